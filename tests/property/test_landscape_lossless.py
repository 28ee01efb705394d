"""LandscapeFiles hold what the bundle holds: every transcript, outline, count and pixel once, in its place."""

import io
import itertools
import json
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests import landscape_truth as truths
from tests.bundles import make_bundle
from tests.landscape_truth import Meant, assert_lossless, files

import atlaswriter as aw
from atlaswriter.formats.landscape import pyramid

NAMES = ("NA", "nan", "a/b", "a b", "β?", "p%20q", "Blank-1", "HLA-DRA", "HLA-DRA", "Zeb2", "aaa")


def lossless(tile, *_):
    """WebP without loss, so that pixels can be compared one by one."""
    out = io.BytesIO()
    Image.fromarray(tile).convert("RGB").save(out, "WEBP", lossless=True, quality=0, method=0)
    return out.getvalue()


@pytest.fixture
def exact_images(monkeypatch):
    monkeypatch.setattr(pyramid, "encode", lossless)


def export(bundle, out, **options):
    return aw.landscape(bundle, out, progress=False, **options)


bundles = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 10_000),
        "n_cells": st.integers(2, 60),
        "n_genes": st.integers(3, 14),
        "n_transcripts": st.integers(1, 1500),
        "image": st.tuples(st.integers(20, 700), st.integers(20, 700)),
        "channels": st.integers(1, 4),
        "n_clusters": st.integers(1, 5),
        "controls": st.booleans(),
        "names": st.sampled_from([(), NAMES]),
        "version": st.sampled_from(["1", "3"]),
        "parquet": st.booleans(),
        "transform": st.sampled_from(["zarr", "csv"]),
        "translation": st.sampled_from([(0, 0), (12.5, -30.25), (-100, 3)]),
        "matrix": st.sampled_from(["mex", "h5", "zarr"]),
        "tar": st.booleans(),
        "lut": st.booleans(),
        "row_group": st.sampled_from([7, 100, 10_000]),
    }
)
ways = st.fixed_dictionaries(
    {
        "tile_size": st.one_of(st.integers(30, 700), st.sampled_from([250, 655, 656])),
        "row_groups": st.booleans(),
        "max_row_groups_per_file": st.sampled_from([1, 3, 400]),
        "compat": st.booleans(),
        "workers": st.sampled_from([1, 2]),
        "strategy": st.sampled_from(["auto", "memory", "spill"]),
        "drop_controls": st.booleans(),
        "min_qv": st.sampled_from([None, 20.0, 30.5]),
    }
)
FIRST = {
    "seed": 1, "n_cells": 40, "n_genes": 12, "n_transcripts": 900, "image": (600, 530), "channels": 2, "n_clusters": 3,
    "controls": True, "names": NAMES, "version": "3", "parquet": True, "transform": "zarr", "translation": (0, 0),
    "matrix": "mex", "tar": False, "lut": False, "row_group": 100,
}  # fmt: skip
WAY = {
    "tile_size": 250, "row_groups": False, "max_row_groups_per_file": 400, "compat": False, "workers": 2,
    "strategy": "auto", "drop_controls": False, "min_qv": None,
}  # fmt: skip


@settings(max_examples=40, deadline=None, derandomize=True)
@given(bundles, ways)
@example(FIRST, WAY)
@example(FIRST, {**WAY, "row_groups": True, "max_row_groups_per_file": 3})
@example({**FIRST, "translation": (-100, 3)}, {**WAY, "compat": True, "strategy": "spill"})
@example({**FIRST, "n_transcripts": 300}, {**WAY, "tile_size": 1})
@example({**FIRST, "image": (40, 30)}, {**WAY, "tile_size": 2, "row_groups": True, "max_row_groups_per_file": 50})
def test_everything_arrives(bundle, way):
    if len(bundle["names"]) > bundle["n_genes"]:
        bundle = {**bundle, "n_genes": len(bundle["names"]) + 1}
    if bundle["version"] == "1" and bundle["matrix"] == "zarr":
        bundle = {**bundle, "matrix": "h5"}  # the maker names cells of Zarr as of version 2
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(pyramid, "encode", lossless):
        truth = make_bundle(Path(folder) / "bundle", **bundle)
        report = export(truth.folder, Path(folder) / "out", **way)
        chosen = {key: way[key] for key in ("tile_size", "drop_controls", "min_qv")}
        meant = Meant(truth, **chosen)
        found = assert_lossless(Path(folder) / "out", meant)
        if not way["row_groups"]:
            assert report.contents["transcripts"] + sum_of(report) == len(truth.points)
            assert_reported(report, found)


def sum_of(report):
    """Transcripts that the report says were left out."""
    return sum(int(text.split()[0].replace(",", "")) for text in report.contents.get("transcripts left out", []))


def assert_reported(report, found):
    """The report counts what is there."""
    assert report.contents["transcripts"] == sum(map(len, found.transcripts.values()))
    assert report.contents["outlines"] == sum(map(len, found.outlines.values()))
    assert report.contents["tiles of transcripts"] == len(found.transcripts)
    assert report.contents["tiles of outlines"] == len(found.outlines)
    assert report.contents["counts"] == sum(cells.size for cells, _ in found.counts.values())


# --- where points are


def plain_bundle(folder, *, to_px=None, **given):
    """A bundle whose coordinates are pixels, unless there is another transform."""
    recipe = {"n_cells": 6, "n_genes": 5, "n_transcripts": 20, "image": (300, 420), "channels": 1, "transform": "csv"}
    truth = make_bundle(folder / "bundle", **{**recipe, **given})
    truths.put_transform(truth, np.eye(3) if to_px is None else to_px)
    return truth


def square(x, y, half=2.0):
    corners = [(-half, -half), (half, -half), (half, half), (-half, half), (-half, -half)]
    return np.array([x, y], float) + corners


@pytest.mark.parametrize("row_groups", [False, True])
@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("tile_size", [1, 5, 100, 250, 655, 656, 700, 1 << 20])
@pytest.mark.parametrize("spill", [False, True])
def test_points_at_every_edge(row_groups, compat, tile_size, spill, tmp_path, exact_images):
    """On, just before and just behind edges of tiles and of the image, where the last hundredth decides."""
    if row_groups and tile_size == 1:
        tile_size = 20  # few enough row groups
    truth = plain_bundle(tmp_path)
    near = [0, 0.001, 0.004, 0.006, -0.004, -0.006, 0.01, -0.01, 0.5]
    edges = [0, tile_size, 2 * tile_size, 250, 420, 300, 655.36, 655.35, 327.68]
    axis = sorted({edge + step for edge, step in itertools.product(edges, near) if edge < 1000 or spill})
    axis = [value for value in axis if value < 2e6]
    rng = np.random.default_rng(0)
    points = np.array(
        [(x, y) for x in axis for y in rng.choice(axis, 1 if tile_size < 50 else 3)] + [(x, x) for x in axis]
    )
    if row_groups:
        points = points[(points < (400 if tile_size < 50 else 1000)).all(1)]
        points = points[(np.rint(points * 100) >= 0).all(1)]
    if not compat:
        # Where float32 has every hundredth; further out see below.
        points = points[(np.abs(points) < 1300).all(1)]
    truth = truths.put_transcripts(truth, points, row_group=50)
    xy = np.column_stack([truth.cells, truth.cells])  # names, only for the shape
    middle = rng.uniform(20, 250, xy.shape)
    truth = truths.put_cells(truth, middle)
    truth = truths.put_outlines(truth, [square(*center) for center in middle])
    options = {"row_groups": row_groups, "compat": compat, "tile_size": tile_size}
    export(truth.folder, tmp_path / "out", strategy="spill" if spill else "memory", **options)
    assert_lossless(tmp_path / "out", Meant(truth, np.eye(3), tile_size=tile_size))


@pytest.mark.parametrize("row_groups", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_rotation_translation_and_shear(row_groups, workers, tmp_path, exact_images):
    """Half of everything lies left of and above the image; loose tiles keep it, row groups say that they do not."""
    turn = np.deg2rad(33)
    rows = [np.cos(turn) / 0.2125, -np.sin(turn) / 0.2, -120.75], [np.sin(turn) / 0.21, 4.4, -90.123], [0, 0, 1]
    to_px = np.array(rows)
    truth = plain_bundle(tmp_path, to_px=to_px, n_transcripts=3000, n_cells=80, seed=3)
    report = export(truth.folder, tmp_path / "out", row_groups=row_groups, workers=workers, tile_size=50)
    meant = Meant(truth, to_px, tile_size=50)
    assert_lossless(tmp_path / "out", meant)
    negative = sum(len(rows) for tile, rows in meant.transcripts().items() if min(tile) < 0)
    assert negative > 500
    said = [text for text in report.warnings if "left of or above" in text]
    assert [text.split(" lie")[0] for text in said] == [
        f"{negative:,} transcripts",
        f"{sum(len(rows) for tile, rows in meant.outlines().items() if min(tile) < 0):,} outlines",
    ]


def test_row_groups_count_only_what_they_hold(tmp_path):
    """What lies left of or above the image is left out, and counted neither as transcripts nor as tiles."""
    truth = plain_bundle(tmp_path, to_px=[[1, 0, -40], [0, 1, -40], [0, 0, 1]], n_transcripts=2000, n_cells=50)
    report = export(truth.folder, tmp_path / "out", row_groups=True, tile_size=40)
    assert_reported(report, truths.Written(tmp_path / "out"))


@pytest.mark.parametrize("far", [1e5, 131_000, 140_000, 1e6, 2e7])
@pytest.mark.parametrize("what", ["transcripts", "outlines"])
def test_far_from_the_image_hundredths_stay(far, what, tmp_path):
    """Positions far outside of image and cells, which nothing forbids, keep their two decimals too."""
    truth = plain_bundle(tmp_path)
    if what == "transcripts":
        near = np.random.default_rng(0).uniform(0, 300, (50, 2))
        points = np.vstack([near, far + np.arange(100)[:, None] * [0.01, 0.03]])
        truth = truths.put_transcripts(truth, points)
    else:
        rings = [square(100 + 10 * k, 50) for k in range(5)]
        truth = truths.put_outlines(truth, [*rings, square(far, 77.77, 1.23)])
    export(truth.folder, tmp_path / "out", tile_size=5000)
    assert_lossless(tmp_path / "out", Meant(truth, np.eye(3), tile_size=5000), images=False)


def test_float32_holds_every_hundredth_up_to_its_limit():
    values = np.arange(131_072 * 100 - 300_000, 131_072 * 100) / 100
    np.testing.assert_array_equal(np.rint(values.astype(np.float32).astype(np.float64) * 100), np.rint(values * 100))


def test_outlines_of_cells_across_borders(tmp_path, exact_images):
    """Every outline is whole, in the tile of its own centre, which is not that of the cell's position."""
    truth = plain_bundle(tmp_path, n_cells=40, seed=5)
    rng = np.random.default_rng(1)
    rings = []
    for _ in truth.cells:
        angle = np.sort(rng.uniform(0, 2 * np.pi, rng.integers(3, 30)))[:: rng.choice([1, -1])]
        ring = rng.uniform(-40, 300, 2) + rng.uniform(20, 80) * np.column_stack([np.cos(angle), np.sin(angle)])
        rings.append(np.vstack([ring, ring[:1]]))
    truth = truths.put_outlines(truth, rings)
    export(truth.folder, tmp_path / "out", tile_size=64)
    meant = Meant(truth, np.eye(3), tile_size=64)
    found = assert_lossless(tmp_path / "out", meant)
    assert sum(map(len, found.outlines.values())) == 40
    assert len({tile for tile in found.outlines if min(tile) < 0}) > 0


def test_open_rings_are_closed_and_closed_ones_are_not_closed_again(tmp_path):
    truth = plain_bundle(tmp_path)
    rings = [square(50 + 20 * k, 50.005 + k)[: 4 if k % 2 else 5] for k in range(6)]
    truth = truths.put_outlines(truth, rings)
    export(truth.folder, tmp_path / "out")
    closed = truths.changed(truth, rings=[np.vstack([ring[:4], ring[:1]]) for ring in rings])
    assert_lossless(tmp_path / "out", Meant(closed, np.eye(3)), images=False)


@pytest.mark.parametrize("n_cells", [1, 2])
def test_the_smallest_data_set(n_cells, tmp_path, exact_images):
    recipe = {"n_cells": n_cells, "n_genes": 2, "n_transcripts": 1, "image": (1, 1), "n_clusters": 1}
    truth = plain_bundle(tmp_path, **recipe, controls=False)
    truth = truths.put_transcripts(truth, np.array([[0.5, 0.25]]))
    report = export(truth.folder, tmp_path / "out")
    found = truths.Written(tmp_path / "out")
    assert found.transcripts.keys() == {(0, 0)}
    assert [level.shape for level in found.image("dapi")] == [(1, 1)]
    assert report.contents["transcripts"] == 1


# --- the image as it is really written


@pytest.mark.parametrize("row_groups", [False, True])
def test_webp_is_near_its_source(row_groups, tmp_path):
    truth = make_bundle(tmp_path / "bundle", image=(1300, 1100), n_cells=150, channels=3, levels=2, lut=True)
    export(truth.folder, tmp_path / "out", row_groups=row_groups)
    found, meant = truths.Written(tmp_path / "out"), Meant(truth)
    for channel in range(3):
        for ours, other in zip(found.image(truths.KEYS[channel], grey=False), meant.image(channel), strict=True):
            error = np.abs(ours.astype(int) - other)
            assert error.max() <= 8
            assert error.mean() <= 1 or error.size < 200


# --- however it is done


def test_the_same_bytes_however_it_is_done(tmp_path):
    truth = make_bundle(
        tmp_path / "bundle", seed=9, n_cells=300, n_genes=40, n_transcripts=60_000, image=(900, 1200), channels=2,
        names=NAMES, row_group=1500, matrix="h5",
    )  # fmt: skip
    for row_groups in (False, True):
        expected = None
        for number, (workers, strategy) in enumerate(itertools.product((1, 2, 4), ("auto", "memory", "spill"))):
            out = tmp_path / f"out-{row_groups}-{number}"
            report = export(
                truth.folder, out, workers=workers, strategy=strategy, row_groups=row_groups, tile_size=100,
                memory_budget=["8GiB", "2GiB", None][number % 3],
            )  # fmt: skip
            assert (report.spill_bytes > 0) == (strategy == "spill")
            found = files(out)
            expected = expected or found
            assert found.keys() == expected.keys()
            assert [name for name in expected if found[name] != expected[name]] == []


def test_the_same_bytes_from_every_form_of_the_bundle(tmp_path):
    """Parquet or CSV, any matrix, packed or not: one result."""
    expected = None
    recipe = {"seed": 4, "n_transcripts": 2000, "image": (260, 300), "names": NAMES}
    forms = [
        {},
        {"matrix": "h5"},
        {"matrix": "zarr", "row_group": 77},
        {"tar": True, "layout": "single"},
        {"codec": "jpeg2000"},
        {"codec": "none", "layout": "root"},
        {"transform": "csv"},
        {"transform": "none"},
    ]
    for number, form in enumerate(forms):
        truth = make_bundle(tmp_path / f"bundle-{number}", **recipe, **form)
        export(truth.folder, tmp_path / f"out-{number}")
        found = files(tmp_path / f"out-{number}")
        expected = expected or found
        assert found.keys() == expected.keys()
        told = [json.loads(one["landscape_parameters.json"]) for one in (found, expected)]
        for one in told:
            one.get("image_scaling", {}).pop("source_image", None)
        assert told[0] == told[1]
        differing = [name for name in expected if found[name] != expected[name]]
        assert set(differing) <= {"landscape_parameters.json"}, form


def test_text_tables_tell_the_same(tmp_path):
    """Of ``.csv.gz`` positions are float64; the result is the same up to ties."""
    truth = make_bundle(tmp_path / "bundle", seed=4, parquet=False, names=NAMES)
    export(truth.folder, tmp_path / "out")
    assert_lossless(tmp_path / "out", Meant(truth), images=False)


@pytest.mark.parametrize("row_groups", [False, True])
def test_a_real_region(shared, tmp_path, row_groups):
    """A region of a public Xenium data set: every row of its transcripts and every outline is found again."""
    bundle = shared / "data" / "xenium_pancreas_region"
    before = truths.fingerprint(bundle)
    report = export(bundle, tmp_path / "out", row_groups=row_groups)
    assert truths.fingerprint(bundle) == before
    found = truths.Written(tmp_path / "out")
    to_px = np.loadtxt(found.folder / "micron_to_image_transform.csv")
    table = pq.read_table(bundle / "transcripts.parquet", columns=["feature_name", "x_location", "y_location"])
    points = np.column_stack([table[name].to_numpy() for name in ("x_location", "y_location")])
    px = np.rint(truths.pixels_of(to_px, points) * 100).astype(np.int64)
    names = np.array(found.genes)
    features = table["feature_name"].cast("string").to_numpy(zero_copy_only=False).astype(str)
    rows = np.column_stack([np.searchsorted(names, features), px])
    assert (names[rows[:, 0]] == features).all()
    tiles = px // 25_000
    order = np.lexsort((np.arange(len(tiles)), tiles[:, 1], tiles[:, 0]))
    ours = np.vstack([found.transcripts[tile] for tile in sorted(found.transcripts)])
    np.testing.assert_array_equal(ours, rows[order])
    np.testing.assert_array_equal(np.unique(tiles, axis=0), sorted(found.transcripts))
    assert report.contents["transcripts"] == len(rows)
    drawn = sorted(cell for tile in found.outlines.values() for cell, _ in tile)
    boundaries = pq.read_table(bundle / "cell_boundaries.parquet", columns=["cell_id"])["cell_id"].to_pylist()
    cells = {name: k for k, name in enumerate(found.cells[0])}
    assert drawn == sorted(cells[name] for name in set(boundaries) if name in cells)
