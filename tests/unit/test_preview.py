"""`preview.html`: what it shows is where and what the files say, whatever is missing."""

import base64
import html
import json
import re
import shutil
from itertools import pairwise

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import landscape_folder
from tests.bundles import make_bundle

import atlaswriter as aw
from atlaswriter.formats.landscape import details, figures, preview, previewparts
from atlaswriter.formats.landscape.figures import Frame
from atlaswriter.formats.landscape.previewfacts import Facts
from atlaswriter.formats.landscape.read import open_export
from atlaswriter.kernels import draw
from atlaswriter.kernels._jit import Kernel


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return landscape_folder.write(tmp_path_factory.mktemp("folder") / "x")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export of a bundle of which everything is known."""
    root = tmp_path_factory.mktemp("bundle")
    truth = make_bundle(root / "in", lut=True)
    aw.landscape(truth.folder, root / "out", progress=False)
    return truth, root / "out"


def text_of(path, **options):
    return preview.page(open_export(path), **options).decode()


def pictures(text):
    """Decoded pictures by their description."""
    found = re.findall(r"alt='([^']*)' src='data:image/webp;base64,([^']*)'", text)
    return {html.unescape(name): imagecodecs.webp_decode(base64.b64decode(data)) for name, data in found}


def words(text):
    """What a reader sees, without pictures and styles."""
    text = re.sub(r"<style>.*?</style>|<[^>]*>", " ", text, flags=re.DOTALL)
    return " ".join(html.unescape(text).split())


def shown(count, name, text):
    return f"<dt>{name}</dt><dd>{count:,}</dd>" in text


# ---------------------------------------------------------------- page


def test_counts_and_tables(exported):
    truth, out = exported
    text = text_of(out, title="My sample")
    assert "<title>My sample</title>" in text
    n_features = len(truth.features)
    for count, name in (
        (120, "cells"),
        (120, "outlines"),
        (5000, "transcripts"),
        (n_features, "genes"),
        (4, "clusters"),
    ):
        assert shown(count, name, text)
    seen = words(text)
    best = truth.features[int(np.argmax(truth.counts.mean(0)))]
    assert (
        f"Genes with the highest mean gene mean per cell cells with it {best} {truth.counts.mean(0).max():.3g}" in seen
    )
    assert "1 px = 0.2125 µm" in seen
    assert "420 × 300 px" in seen
    assert "All cells lie inside the image" in seen
    assert "117 of 120 cells have a cluster (97.5 %)" in seen
    assert "2,600" in seen  # what the instrument suggests as brightest
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    assert f"{size / 1024:.3g} KiB" in seen or f"{size / 1024:.0f} KiB" in seen


def test_nothing_comes_from_elsewhere(exported):
    text = text_of(exported[1])
    assert not re.search("https?://", text)
    assert "<script" not in text
    assert "url(" not in text
    assert set(re.findall(r"src='([a-z:/]*)", text)) == {"data:image/webp"}
    assert "default-src 'none'" in text
    assert len(text) < 3_000_000


def test_the_same_bytes_again(exported, tmp_path):
    out = exported[1]
    first = preview.page(open_export(out))
    assert first == preview.page(open_export(out))
    shutil.copytree(out, tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "preview.html").write_bytes(first)
    assert first == preview.page(open_export(tmp_path / "elsewhere"))


@pytest.mark.parametrize("variant", [{"row_groups": True}, {"old": True}])
def test_variants_look_alike(folder, tmp_path, variant):
    expected, found = (pictures(text_of(path)) for path in (folder, landscape_folder.write(tmp_path / "y", **variant)))
    assert expected.keys() == found.keys()
    for name, picture in expected.items():
        np.testing.assert_array_equal(found[name], picture)


def test_names_are_escaped(tmp_path):
    bad = "<img src=x onerror=alert(1)>"
    root = landscape_folder.write(tmp_path / "x")
    table = pq.read_table(root / "meta_gene.parquet")
    names = [bad, "&amp;'\"", *landscape_folder.GENES[2:]]
    table = table.set_column(table.column_names.index("__index_level_0__"), "__index_level_0__", pa.array(names))
    table = table.set_column(table.column_names.index("color"), "color", pa.array(["red'><b>"] * len(names)))
    pq.write_table(table, root / "meta_gene.parquet")
    for name in ("cluster", "meta_cluster"):
        path = root / "cell_clusters" / f"{name}.parquet"
        table = pq.read_table(path)
        column = "cluster" if name == "cluster" else "__index_level_0__"
        labels = [bad if label == "1" else label for label in table[column].to_pylist()]
        pq.write_table(table.set_column(table.column_names.index(column), column, pa.array(labels)), path)
    parameters = json.loads((root / "landscape_parameters.json").read_text())
    parameters |= {"technology": bad, "atlaswriter": {"version": bad, "region": bad}}
    parameters["image_info"][0]["button_name"] = bad
    parameters["image_scaling"] = {"channels": {"dapi": {"lut_max": bad}}}
    (root / "landscape_parameters.json").write_text(json.dumps(parameters))
    text = text_of(root, title=bad)
    assert "<img src=x" not in text
    assert "red'" not in text
    assert words(text).count(bad) >= 7
    assert "&amp;amp;" in text


# ---------------------------------------------------------------- pictures


def test_sizes_of_pictures(exported):
    facts = Facts(open_export(exported[1]))
    found = pictures(text_of(exported[1]))
    height, width = facts.frame.shape
    assert (height, width) == (600, 840)
    for name in ("Image: Image", "Image: Outlines", "Transcript density: Density", "Clusters: Clusters"):
        assert found[name].shape[:2] == (height, width)
    assert found["Detail A: Image"].shape == (300, 420, 3)
    assert found["Detail A: Transcripts"].shape[:2] == facts.details[0].shape == (686, 960)


def test_cells_have_the_colour_of_their_cluster_where_they_are(folder):
    found = pictures(text_of(folder))["Clusters: Clusters"]
    colors = {"1": (0xE5, 0x50, 0x50), "2": (0x50, 0xE5, 0xE5), None: figures.GREY}
    for (x, y), label in zip(landscape_folder.centres().astype(int), landscape_folder.LABELS, strict=True):
        assert tuple(found[y, x]) == colors[label]
        assert found[max(y - 12, 0), x].max() < 40 or y < 12


def test_outlines_lie_where_they_are(folder):
    found = pictures(text_of(folder))["Image: Outlines"]
    x, y = (landscape_folder.centres()[1]).astype(int)
    assert found[y, x, 3] == 0
    for place in ((y - 8, x), (y + 8, x), (y, x - 9), (y, x + 9)):
        assert found[place][3] > 0


def test_the_image_is_as_bright_as_in_the_viewer(folder):
    export = open_export(folder)
    found = figures.image(export, Facts(export).frame)
    grey = sum(np.minimum(landscape_folder.pixels(name, 10).mean(2) * 5, 255) for name in landscape_folder.CHANNELS)
    assert found[..., :2].max() == 0
    assert np.abs(found[..., 2] - np.minimum(grey, 255)).max() <= 1


def test_coarse_pictures_are_means(exported):
    export = open_export(exported[1])
    name = next(iter(export.channels))
    full = figures._sampled(export, name, Frame(0, 0, 420, 300, 1.0))
    np.testing.assert_array_equal(full, export.image_tile(name, len(export.image(name).levels) - 1, 0, 0))
    for scale in (0.9, 0.5, 0.3, 1.7):
        coarse = figures._sampled(export, name, Frame(10, 20, 400, 260, scale))
        rows, columns = (np.arange(n) / scale for n in coarse.shape[:2])
        expected = full[20 + rows.astype(int)][:, 10 + columns.astype(int)]
        assert abs(coarse.mean() - full[20:280, 10:410].mean()) < 1
        assert np.corrcoef(coarse.ravel(), expected.ravel())[0, 1] > 0.85


def test_density_counts_transcripts(exported):
    truth, out = exported
    facts = Facts(open_export(out))
    assert facts.density.inside == len(truth.points) == 5000
    bins, edge = figures._by_bin(facts.export, facts.counts, facts.frame)
    x, y = truth.px(truth.points.astype(float)).round(2).T
    expected = np.histogram2d(y, x, [np.arange(n + 1) * edge for n in bins.shape])[0]
    assert np.abs(bins - expected).sum() <= 4  # positions at the edge of a bin are rounded
    there = expected > 0
    bright = facts.density.pixels.sum(2) > 4
    repeat = round(edge * facts.frame.scale)
    repeated = np.kron(there, np.ones((repeat, repeat)))[:600, :840] > 0
    assert (bright != repeated).mean() < 0.01


def test_transcripts_of_details_lie_where_they_are(exported):
    truth, out = exported
    export = open_export(out)
    facts = Facts(export)
    picture = pictures(text_of(out))["Detail A: Transcripts"]
    names, counts = np.unique(truth.gene, return_counts=True)
    best = names[np.argsort(-counts)[:6]]
    kinds = [np.array(color) for color in details.GENE_COLORS]
    x, y = (truth.px(truth.points.astype(float)) * facts.details[0].scale).T
    shown = np.isin(truth.gene, best) & (x < picture.shape[1] - 1) & (y < picture.shape[0] - 1)
    at = picture[y[shown].astype(int), x[shown].astype(int)]
    assert (at[:, 3] == 255).all()
    # The rarest is drawn last, so nothing hides it.
    rarest = best[-1]
    mine = at[truth.gene[shown] == rarest, :3]
    assert (mine == kinds[5]).all(1).mean() > 0.98


# ---------------------------------------------------------------- what may be missing or large


def without(folder, tmp_path, *names):
    shutil.copytree(folder, tmp_path / "x")
    for name in names:
        path = tmp_path / "x" / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    return tmp_path / "x"


@pytest.mark.parametrize(
    ("names", "said", "gone"),
    [
        (["transcript_tiles"], "There are no transcripts.", "Transcript density"),
        (["cell_segmentation"], "There are no outlines.", "Outlines filled"),
        (["cell_clusters"], "0 of 8 cells have a cluster", "Largest clusters"),
        (["micron_to_image_transform.csv"], "There is no transform.", "µm"),
    ],
)
def test_missing_parts_are_said(folder, tmp_path, names, said, gone):
    text = words(text_of(without(folder, tmp_path, *names)))
    assert said in text
    assert gone not in text


def test_without_outlines_cells_are_dots(folder, tmp_path):
    found = pictures(text_of(without(folder, tmp_path, "cell_segmentation")))
    x, y = landscape_folder.centres()[4].astype(int)
    assert tuple(found["Clusters: Clusters"][y, x]) == (0x50, 0xE5, 0xE5)
    assert tuple(found["Image: Cells"][y, x]) == (0x50, 0xE5, 0xE5, 255)


def test_no_image(tmp_path):
    make_bundle(tmp_path / "in", layout="none")
    aw.landscape(tmp_path / "in", tmp_path / "out", progress=False)
    text = text_of(tmp_path / "out")
    assert "There is no image." in text
    assert set(pictures(text)) >= {"Transcript density: Density", "Clusters: Clusters", "Detail A: Outlines"}
    assert "Image: Image" not in pictures(text)


def test_cells_without_positions(tmp_path):
    import anndata
    import pandas as pd

    obs = pd.DataFrame({"kind": pd.Categorical(list("ab") * 5)}, index=[f"c{k}" for k in range(10)])
    adata = anndata.AnnData(np.ones((10, 3), np.float32), obs)
    aw.landscape(adata, tmp_path / "out", clusters="kind", progress=False)
    text = text_of(tmp_path / "out")
    assert "Cells have no positions: all lie at 0, 0." in text
    assert "there is nothing to draw" in text
    assert not pictures(text)
    assert shown(10, "cells", text)


@pytest.mark.parametrize("options", [{"n_transcripts": 20}, {"image": (1, 1), "n_transcripts": 20}])
def test_one_cell(tmp_path, options):
    make_bundle(tmp_path / "in", n_cells=1, n_clusters=1, **options)
    aw.landscape(tmp_path / "in", tmp_path / "out", progress=False)
    text = text_of(tmp_path / "out")
    assert shown(1, "cells", text)
    if "image" in options:
        assert pictures(text)["Image: Image"].shape == (64, 64, 3)


@pytest.mark.parametrize("tile_size", [40, 5000])
def test_other_tile_sizes_look_alike(exported, tmp_path, tile_size):
    truth, out = exported
    aw.landscape(truth.folder, tmp_path / "out", tile_size=tile_size, progress=False)
    expected, found = pictures(text_of(out)), pictures(text_of(tmp_path / "out"))
    assert expected.keys() == found.keys()
    for name in ("Transcript density: Density", "Detail A: Image", "Image: Outlines"):
        assert (np.abs(expected[name].astype(int) - found[name]).max(-1) > 60).mean() < 0.01


def test_many_transcripts_are_taken_from_the_footers(folder, monkeypatch):
    monkeypatch.setattr(figures, "MOST_POINTS", 10)
    monkeypatch.setattr(details, "MOST_POINTS", 10)
    export = open_export(folder)
    monkeypatch.setattr(export, "transcripts", lambda i, j: pytest.fail("transcripts were read"))
    text = preview.page(export).decode()
    assert "Numbers of transcripts of the tiles of 250 px" in text
    assert "its tiles hold too many transcripts to be read" in text
    assert "All transcripts lie inside the image" in text
    counts = export.transcript_counts()
    found = pictures(text)["Transcript density: Density"].astype(int).sum(2)
    most, least = (pick(counts, key=counts.get) for pick in (max, min))
    assert found[most[1] * 250 + 20, most[0] * 250 + 20] > found[least[1] * 250 + 20, least[0] * 250 + 20]
    assert found[280, 590] == 4  # the empty tile (2, 1)


def test_what_lies_outside_is_said(folder, tmp_path):
    root = without(folder, tmp_path)
    path = root / "pyramid_images" / "dapi.dzi"
    path.write_text(path.read_text().replace('Height="300"', 'Height="150"').replace('Width="600"', 'Width="400"'))
    other = root / "pyramid_images" / "bound.dzi"
    other.write_text(path.read_text())
    frame = Facts(open_export(root)).frame
    centres = landscape_folder.centres()
    inside = int(frame.holds(*centres.T).sum())
    assert 0 < inside < 8
    assert f"{inside} of 8 cells lie inside the image" in words("".join(preview._header(Facts(open_export(root)), "x")))


def test_noise_stays_small():
    noise = np.random.default_rng(0).integers(0, 256, (748, 748, 3)).astype(np.uint8)
    assert len(previewparts.uri(noise)) < 400_000
    few = previewparts.uri(noise[:8, :8], photo=True)
    np.testing.assert_array_equal(imagecodecs.webp_decode(base64.b64decode(few.partition(",")[2])), noise[:8, :8])


# ---------------------------------------------------------------- frames and kernels


@pytest.mark.parametrize(("wide", "high"), [(1, 1), (100_000, 10), (10, 100_000), (34155, 13770), (3, 500)])
def test_pictures_are_of_limited_size(wide, high):
    height, width = Frame.of(0, 0, wide, high).shape
    assert 1 <= height * width <= 570_000
    assert max(height, width) <= 1601


def test_details_lie_inside_and_apart():
    rng = np.random.default_rng(0)
    counts = {(i, j): int(rng.integers(1, 1000)) for i in range(40) for j in range(30)}
    counts[3, 4] = 5000
    cells = figures.CellMap(np.empty(0), np.empty(0), np.empty(0, np.int64), np.zeros((1, 3), np.uint8))

    class Export:
        tile_size = 250

    whole = Frame.of(0, 0, 10_000, 7500)
    first, second = details.detail_places(Export(), counts, cells, whole)
    for one in (first, second):
        assert one.left >= 0
        assert one.left + one.wide <= 10_000
        assert one.top >= 0
        assert one.top + one.high <= 7500
    assert abs(first.left + first.wide / 2 - 875) <= 250
    assert abs(first.top + first.high / 2 - 1125) <= 250
    assert np.hypot(first.left - second.left, first.top - second.top) > 2000


def test_fill_holds_pixel_centres():
    xy = np.array([[2.1, 1], [9.3, 1.2], [8.9, 8], [5.2, 4.2], [2, 8.1], [2.1, 1]], float)
    out = np.full((10, 12), -1)
    draw.fill(xy + 3, np.array([0, 6]), np.array([7]), 3.0, 3.0, 1.0, out)
    expected = np.full((10, 12), -1)
    for row in range(10):
        for column in range(12):
            crossed = 0
            for (x0, y0), (x1, y1) in pairwise(xy):
                if (y0 <= row + 0.5) != (y1 <= row + 0.5):
                    crossed += x0 + (row + 0.5 - y0) * (x1 - x0) / (y1 - y0) < column + 0.5
            expected[row, column] = 7 if crossed % 2 else -1
    np.testing.assert_array_equal(out, expected)


def test_strokes_cover_what_is_near():
    out = np.zeros((5, 9), np.float32)
    draw.strokes(np.array([[1.5, 2.5], [7.5, 2.5]]), np.array([0, 2]), 0.0, 0.0, 1.0, 0.5, out)
    assert (out[2, 1:8] == 1).all()
    assert (out[[1, 3]][:, 1:8] == 0).all()
    assert out[2, 0] == out[2, 8] == 0


def test_discs_and_rings():
    out = np.full((9, 9), -1)
    draw.discs(np.array([4.7, 6.2]), np.array([4.1, 4.9]), np.array([1, 2]), 0.0, 0.0, 1.0, 1.0, 1.0, out)
    assert out[4, 3:8].tolist() == [1, 1, 2, 2, 2]
    assert out[4, 2] == out[4, 8] == -2
    assert out[0].tolist() == [-1] * 9


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300, -5e9])
def test_what_is_no_place_is_left_out(value):
    far = np.array([[value, 1], [2, value], [value, value], [value, 1]])
    ends = np.array([0, 4])
    labels, lines, counts = np.full((4, 4), -1), np.zeros((4, 4), np.float32), np.zeros((4, 4), np.int64)
    draw.fill(far, ends, np.array([1]), 0.0, 0.0, 1.0, labels)
    draw.strokes(far, ends, 0.0, 0.0, 1.0, 1.0, lines)
    x, y = np.ascontiguousarray(far[:, 0]), np.ascontiguousarray(far[:, 1])
    draw.discs(x, y, np.zeros(4, np.int64), 0.0, 0.0, 1.0, 1.0, 1.0, labels)
    draw.tally(x, y, 0.0, 0.0, 1.0, counts)
    assert (labels == -1).all()
    assert not lines.any()
    assert not counts.any()


def test_kernels_were_compiled_for_declared_types_only():
    """Must stay last: everything above has run."""
    kernels = [one for one in Kernel.registry if one in vars(draw).values()]
    assert len(kernels) == 4
    assert not any(one.undeclared() for one in kernels)
