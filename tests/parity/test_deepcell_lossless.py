"""A project holds what it was made of: pixels bit for bit, labels by the cells they show, and every table.

What projects hold is read by zipfile, tifffile and json; the package's own reader must say the same.
"""

import itertools
import json
import subprocess
import sys

import numpy as np
import pytest
from tests.conftest import SHARED
from tests.deepcell_inputs import KINDS, arranged, npy, npz, project, request, tiff, zipped
from tests.deepcell_truth import (
    DTYPES,
    Truth,
    as_uint8,
    assert_holds,
    assert_same_meaning,
    meanings,
    own_cells,
    read_project,
    truth,
)

import atlaswriter as aw

GENERATOR = SHARED / "data" / "make_deepcell_inputs.py"
OF_EVERY_DTYPE = [
    *("npz_X_y.npz", "npy_fortran.npy", "npy_big_endian.npy", "tiff_CZYX.tiff", "tiff_samples.tiff"),
    *("tiff_motorola.tiff", "tiff_tiles.tiff", "ome_TCYX.ome.tiff", "array_v2.zarr", "ome_v3.zarr.zip", "array_dask"),
    *("array_big_endian", "array_fortran", "movie.trk", "project_ZCYX.zip", "project_CZYX.zip"),
]
# What a tool is right to say of inputs that are sound.
SAID = {
    "npz_unnamed.npz": ["'arr_1.npy' not used"],
    "png_RGBA.png": ["its transparency is left out"],
    "png_LA.png": ["its transparency is left out"],
    "png_1.png": ["its 1-bit values are stretched to 0 to 255"],
    "labels_bool": ["cells that do not touch get numbers of their own by scipy.ndimage.label"],
}


def written(folder, given, **options):
    """Make a project of an input; its path and the report."""
    out = folder / "project.zip"
    report = aw.deepcell(given.images, out, given.labels, progress=False, **{**given.options, **options})
    return out, report


def assert_clean(path):
    found = aw.check(path)
    assert found.ok, found
    return found


def cells_of(rows):
    return [(row["cell"], row["value"], row["t"], row["c"]) for row in rows]


# ---------------------------------------------------------------- our own inputs


@pytest.mark.parametrize("name", KINDS)
def test_every_kind(tmp_path, name):
    given = KINDS[name](tmp_path, truth())
    out, report = written(tmp_path, given, image_dtype="keep")
    assert_holds(out, given.expected)
    assert not assert_clean(out).findings
    assert [text.rpartition(": ")[2].rpartition(".npz ")[2] for text in report.warnings] == SAID.get(name, [])


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "uint16"])
def test_every_dtype(tmp_path, dtype):
    for name in OF_EVERY_DTYPE:
        folder = tmp_path / name
        folder.mkdir()
        given = KINDS[name](folder, truth(dtype))
        out, _ = written(folder, given, image_dtype="keep")
        assert_holds(out, given.expected)
        assert_clean(out)


@pytest.mark.parametrize("dtype", DTYPES)
def test_export_requests(tmp_path, dtype):
    (tmp_path / "request.zip").write_bytes(request(truth(dtype)))
    aw.deepcell_export(tmp_path / "request.zip", tmp_path / "out.zip", progress=False)
    assert_holds(tmp_path / "out.zip", truth(dtype).only("cells", "divisions", "types", "spots", "names"))
    assert_clean(tmp_path / "out.zip")


@pytest.mark.parametrize("order", ["".join(order) for order in itertools.permutations("TYXC")])
def test_axes_in_every_order(tmp_path, order):
    m = truth()
    (tmp_path / "X.npz").write_bytes(npz(X=arranged(m.X, order)))
    (tmp_path / "y.zip").write_bytes(zipped({"y.npy": npy(arranged(m.y, order))}))
    out, _ = (
        tmp_path / "p.zip",
        aw.deepcell(
            tmp_path / "X.npz",
            tmp_path / "p.zip",
            tmp_path / "y.zip",
            axes=order.lower(),
            label_axes=order.replace("T", "Z"),
            image_dtype="keep",
            progress=False,
        ),
    )
    assert_holds(out, m.only())


def test_every_bit_of_floats(tmp_path):
    """NaN with any payload, infinities and zeros of both signs."""
    rng = np.random.default_rng(1)
    for size in (4, 8):
        X = np.frombuffer(rng.bytes(2 * 9 * 8 * size), f"f{size}").reshape(2, 9, 8, 1).copy()
        bits = X.view(f"u{size}")
        bits[0, 0] |= np.array(np.inf, X.dtype).view(bits.dtype)
        X[1, 0, :4, 0] = np.inf, -np.inf, -0.0, 0.0
        assert np.isnan(X).sum() > 3
        aw.deepcell(X, tmp_path / f"{size}.zip", image_dtype="keep", progress=False)
        assert_holds(tmp_path / f"{size}.zip", Truth(X, np.zeros((2, 9, 8, 1), np.int32)))


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (1, 1, 40, 1), (7, 1, 1, 2), (2, 300, 1, 1), (1, 2, 3, 70), (3, 5, 4, 4)]
)
def test_strange_shapes(tmp_path, shape):
    X = (np.arange(np.prod(shape)) % 251).astype(np.uint16).reshape(shape)
    y = (np.arange(np.prod(shape[:3])) % 5 * 1_000_000).astype(np.int32).reshape(*shape[:3], 1)
    aw.deepcell(X, tmp_path / "p.zip", y, "TYXC", image_dtype="keep", progress=False)
    assert_holds(tmp_path / "p.zip", Truth(X, y))
    assert_clean(tmp_path / "p.zip")


def test_images_of_many_strips(tmp_path):
    """Rows of some 150 KiB: strips of one and of several rows, the last one shorter."""
    X = np.random.default_rng(2).integers(0, 2**16, (2, 13, 20_001, 2), np.uint16)
    y = np.zeros((2, 13, 20_001, 1), np.int32)
    y[1, 3:9, 5:19_000] = 2**31 - 1
    aw.deepcell(X, tmp_path / "p.zip", y, image_dtype="keep", progress=False)
    assert_holds(tmp_path / "p.zip", Truth(X, y))


def test_names_of_channels(tmp_path):
    """Names that XML must escape arrive, from arguments, and from a project that has them."""
    m, names = truth(), ('a "b" & <c>', "µ – 日本 'q'", "488")
    aw.deepcell(m.X, tmp_path / "p.zip", channel_names=names, image_dtype="keep", progress=False)
    aw.deepcell(tmp_path / "p.zip", tmp_path / "q.zip", image_dtype="keep", progress=False)
    for name in ("p.zip", "q.zip"):
        assert read_project(tmp_path / name).names == list(names)
        assert aw.open_export(tmp_path / name).channels == list(names)


@pytest.mark.parametrize("name", ["project_ZCYX.zip", "npz_X_y.npz", "labels_twice.zip", "none"])
def test_our_own_reader_agrees(tmp_path, name):
    given = KINDS[name](tmp_path, truth())
    out, _ = written(tmp_path, given, image_dtype="keep")
    expected = given.expected
    with aw.open_export(out) as found:
        np.testing.assert_array_equal(np.moveaxis(found.X, 0, -1), expected.X)
        assert found.X.dtype == expected.X.dtype
        rows = found.cells[["cell", "value", "t", "c"]].to_numpy().tolist()
        cells = own_cells(expected.y) if expected.cells is None else expected.cells
        assert_same_meaning(np.moveaxis(found.y, 0, -1), rows, expected.y, cells)
        shown = meanings(cells)
        for t, c in itertools.product(range(expected.y.shape[0]), range(expected.y.shape[3])):
            for cell in {row[0] for row in cells if row[2:] == (t, c)}:
                values = [value for value, several in shown[t, c].items() if cell in several]
                np.testing.assert_array_equal(found.mask(cell, t, c), np.isin(expected.y[t, :, :, c], values))
        assert {(one["parent"], frozenset(one["daughters"]), one["t"]) for one in found.divisions} == expected.divisions
        assert found.cell_types == list(expected.types)
        embeddings = found.embeddings
        assert (None if embeddings is None else embeddings.tolist()) == expected.embeddings
        if expected.spots is None:
            assert found.spots is None
        else:
            lines = [line.split(",")[:2] for line in expected.spots.decode().splitlines()[1:]]
            np.testing.assert_array_equal(found.spots[["x", "y"]].to_numpy(), np.array(lines, float))


# ---------------------------------------------------------------- 8 bit


@pytest.mark.parametrize("dtype", [*DTYPES, "int64", "uint64", "float16", "bool"])
def test_eight_bit_as_the_client_shows_it(tmp_path, dtype):
    m = truth("uint16") if dtype in ("float16", "bool") else truth(dtype if dtype in DTYPES else "int32")
    X = (m.X % 2000).astype(dtype) if dtype == "float16" else m.X.astype(dtype)
    if dtype in ("float32", "float64"):
        X[0, 0, 1:4:2, 0] = 0  # as wide as it is, the range of all finite numbers is none
    out, report = tmp_path / "p.zip", aw.deepcell(X, tmp_path / "p.zip", m.y, progress=False)
    assert_holds(out, Truth(X, m.y), keep=False)
    assert_clean(out)
    said = report.contents["pixels"]
    if dtype == "uint8":
        assert said == "uint8, as they were given"
        return
    assert said.startswith(f"uint8, from {X.dtype}; stretched to 0 to 255: channel 0 ")
    for channel, text in enumerate(said.partition("255: ")[2].split(", ")):
        low, _, high = text.removeprefix(f"channel {channel} ").partition(" to ")
        values = X[..., channel].astype(np.float64)
        assert (float(low), float(high)) == (values.min(), values.max()), "the factors undo what was done"


def test_eight_bit_of_numbers_that_are_none(tmp_path):
    X = truth("float32").X.copy()
    X[0, 0, 1:4:2, 0] = 0
    X[1, 3, :9, 0] = np.nan
    X[2, 4, :9, 1] = np.inf
    X[2, 5, :9, 1] = -np.inf
    X[..., 2] = np.nan
    aw.deepcell(X, tmp_path / "p.zip", progress=False)
    found = read_project(tmp_path / "p.zip").X
    expected = as_uint8(X)
    expected[np.isnan(X)] = 0
    np.testing.assert_array_equal(found, expected)
    assert (found[2, 4, :9, 1] == 255).all()
    assert (found[2, 5, :9, 1] == 0).all()


def test_eight_bit_of_the_widest_range(tmp_path):
    """The range of all finite numbers is more than the largest of them."""
    X = np.zeros((1, 4, 5, 1))
    X[0, 0, :3, 0] = np.finfo(float).max, np.finfo(float).min, np.finfo(float).max / 2
    aw.deepcell(X, tmp_path / "p.zip", progress=False)
    found = read_project(tmp_path / "p.zip").X[0, :, :, 0]
    assert found[0].tolist() == [255, 0, 191, 128, 128]
    assert (found[1:] == 128).all()


def test_eight_bit_is_of_all_frames(tmp_path):
    X = np.zeros((3, 6, 7, 2), np.uint16)
    X[0, ..., 0], X[1, ..., 0], X[2, ..., 0] = 10, 20, 30
    X[..., 1] = 5
    report = aw.deepcell(X, tmp_path / "p.zip", channel_names=["a", "b"], progress=False)
    found = read_project(tmp_path / "p.zip").X
    assert [np.unique(found[t, ..., 0]).tolist() for t in range(3)] == [[0], [128], [255]]
    assert not found[..., 1].any()
    assert report.contents["pixels"].endswith("a 10 to 30, b 5 to 5")
    assert any("one value everywhere" in text for text in report.warnings)


# ---------------------------------------------------------------- the inputs that all formats were judged by


@pytest.fixture(scope="module", params=["uint8", "uint16", "uint32", "int32", "float32", "float64"])
def generated(request, tmp_path_factory):
    """A folder of inputs of the project's own generator."""
    if not GENERATOR.is_file():
        pytest.skip(f"the project's test data is not at {SHARED}")
    folder = tmp_path_factory.mktemp(request.param)
    sizes = {"frames": 5, "height": 48, "width": 57, "channels": 3, "features": 2, "cells": 9, "divisions": 2}
    sizes |= {"overlaps": 2, "spots": 20, "seed": 3}
    options = [str(word) for name, value in sizes.items() for word in (f"--{name}", value)]
    command = [sys.executable, str(GENERATOR), str(folder), *options, "--dtype", request.param]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _truth_of(folder):
    with np.load(folder / "truth.npz") as arrays:
        X, y = arrays["X"], arrays["y"]
    told = json.loads((folder / "truth.json").read_text())
    divisions = {(one["parent"], frozenset(one["daughters"]), one["t"]) for one in told["divisions"]}
    members = tuple(cells_of(told["cells"])), frozenset(divisions), tuple(told["cellTypes"]), told["embeddings"]
    return Truth(X, y, *members, names=tuple(told["channels"]))


def _expected(name, info, m, spots):
    """What a project of a generated file holds."""
    kept = set()
    if "project_" in name or "full" in name:
        kept = {"cells", "divisions", "types", "embeddings"}
    elif info["role"] == "export":
        kept = {"cells", "divisions", "types", "names"}
    elif "trk" in name or "lineage" in name:
        kept = {"divisions"}
    kept = set() if name == "project_no_y.zip" else kept
    if "project_" in name or "ome_" in name:
        kept.add("names")
    part = {kind: slice(1) for kind in ("frame", "channel", "feature") if f"{kind}0" in info["truth"]}
    part = {f"{kind}s": value for kind, value in part.items()}
    found = m.only(*kept, **part) if info["role"] != "images" and name != "project_no_y.zip" else None
    found = found or m.without_labels(*kept, **{kind: value for kind, value in part.items() if kind != "features"})
    with_spots = info["role"] == "export" or "full" in name or name in _WITH_SPOTS
    return found if not with_spots else Truth(**{**vars(found), "spots": spots})


_WITH_SPOTS = {f"project_{axes}.zip" for axes in ("ZCYX", "CZYX", "TCYX")}


def test_generated_inputs(generated, tmp_path):
    m = _truth_of(generated)
    manifest = json.loads((generated / "manifest.json").read_text())
    with_columns = _spots_of(generated / "project_ZCYX.zip")
    plain = _spots_of(generated / "client_export.zip") + b"\n"
    done = 0
    for name, info in manifest.items():
        if info["role"] == "edit" or info["truth"] == "none":
            continue
        out, source, options = tmp_path / "p.zip", generated / name, {"progress": False, "force": True}
        expected = _expected(name, info, m, plain if info["role"] == "export" else with_columns)
        if info["role"] == "export":
            aw.deepcell_export(source, out, **options)
        elif info["role"] == "labels":
            aw.deepcell(m.X, out, source, image_dtype="keep", **options)
        else:
            aw.deepcell(source, out, axes=info["axes"], image_dtype="keep", **options)
        assert_holds(out, expected)
        assert_clean(out)
        done += 1
    assert done >= 32


def _spots_of(path):
    import zipfile

    with zipfile.ZipFile(path) as archive:
        return archive.read("spots.csv")


def test_generated_pictures(generated, tmp_path):
    """What the generator keeps no truth of: PNGs, read by Pillow."""
    from PIL import Image

    for name in ("png_L.png", "png_RGB.png", "png_16.png"):
        with Image.open(generated / name) as opened:
            X = np.array(opened)
        X = X.astype(np.uint16) if name == "png_16.png" else X
        X = X.reshape(1, *X.shape[:2], -1)
        aw.deepcell(generated / name, tmp_path / name, image_dtype="keep", progress=False)
        assert_holds(tmp_path / name, Truth(X, np.zeros((*X.shape[:3], 1), np.int32)))


# ---------------------------------------------------------------- does the proof see what it should?


@pytest.mark.parametrize("planted", ["pixel", "label", "row", "division", "type", "spot", "name", "embedding"])
def test_the_comparison_finds_what_is_lost(tmp_path, planted):
    m = truth()
    (tmp_path / "a.zip").write_bytes(project(m, "CZYX"))
    aw.deepcell(tmp_path / "a.zip", tmp_path / "p.zip", image_dtype="keep", progress=False)
    assert_holds(tmp_path / "p.zip", m)
    change = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in vars(m).items()}
    if planted == "pixel":
        change["X"][3, 22, 30, 2] ^= 1
    elif planted == "label":
        change["y"][3, 17, 25, 0] = 0
    elif planted == "row":
        overlap = next(row for row in m.cells if row[1] > 300)
        change["cells"] = tuple(row for row in m.cells if row != overlap)
    elif planted == "division":
        change["divisions"] = frozenset((parent, daughters, t + 1) for parent, daughters, t in m.divisions)
    elif planted == "type":
        change["types"] = m.types[::-1]
    elif planted == "spot":
        change["spots"] = m.spots.replace(b"6.50000", b"6.5")
    elif planted == "name":
        change["names"] = (*m.names[:2], "489")
    else:
        change["embeddings"] = [*m.embeddings[:-1], [m.embeddings[-1][0], np.nextafter(m.embeddings[-1][1], 9)]]
    with pytest.raises(AssertionError):
        assert_holds(tmp_path / "p.zip", Truth(**change))


def test_tiffs_of_several_writers_are_one(tmp_path):
    """The same movie from every container makes the same bytes."""
    m, made = truth(), set()
    files = {"a.npy": npy(m.X), "a.tif": tiff(m.X), "b.tif": tiff(m.X, compression="zlib"), "a.npz": npz(X=m.X)}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        aw.deepcell(tmp_path / name, tmp_path / "p.zip", axes="TYXC", force=True, progress=False)
        made.add((tmp_path / "p.zip").read_bytes())
    assert len(made) == 1
