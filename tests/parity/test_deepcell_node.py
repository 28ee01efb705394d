"""What the web client of DeepCell Label gets from a project: zip.js and Viv's loader, run in Node (`tests/node`).

Install the two once with `npm ci --prefix tests/node`, or name a folder of installed packages in
ATLASWRITER_NODE_MODULES; without them these tests are skipped.
"""

import base64
import io
import itertools
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.deepcell_projects import ome_xml, tiff, write_project

import atlaswriter

READER = Path(__file__).parents[1] / "node" / "read_project.mjs"
PACKAGES = ("@vivjs/loaders", "@zip.js/zip.js")
SECONDS = 120
DTYPES = ["uint8", "uint16", "int32", "float32"]
CHANNELS, FRAMES, HEIGHT, WIDTH = 2, 3, 17, 23


def node_modules():
    return Path(os.environ.get("ATLASWRITER_NODE_MODULES") or READER.parent / "node_modules")


def missing():
    """Why projects cannot be read with Viv here; None if they can."""
    if not shutil.which("node"):
        return "node is not installed"
    absent = [name for name in PACKAGES if not (node_modules() / name).is_dir()]
    return f"{', '.join(absent)} not in {node_modules()}: npm ci --prefix tests/node" if absent else None


def read_with_viv(path):
    """Read a project as the client does.

    Returns
    -------
    dict
        ``X`` and ``y``: arrays, channels × frames × rows × columns. ``names``: per image the channels' names as the
        client holds them (numbers and booleans are converted, entities are not), None for no name. ``members``: names
        in the order of the zip. ``text``: of each JSON or CSV member, by name. ``seconds``: to decode, per image.
    """
    environment = {**os.environ, "ATLASWRITER_NODE_MODULES": str(node_modules())}
    command = ["node", str(READER), str(path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=SECONDS, env=environment)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    images = {name.removesuffix(".ome.tiff"): image for name, image in found["images"].items()}
    return {
        **{name: _array(image) for name, image in images.items()},
        "names": {name: image["names"] for name, image in images.items()},
        "seconds": {name: image["seconds"] for name, image in images.items()},
        "members": found["members"],
        "text": found["text"],
    }


def _array(image):
    assert image["levels"] == 1, "taken for a pyramid"
    assert image["shape"] == image["size"], "the raster is not of the size that the metadata promises"
    dtype = image["array"].removesuffix("Array").lower()
    pixels = b"".join(base64.b64decode(plane) for plane in image["planes"])
    return np.frombuffer(pixels, np.dtype(dtype)).reshape(image["shape"])


@pytest.fixture(scope="module", autouse=True)
def viv():
    if reason := missing():
        pytest.skip(reason)


def pixels(dtype, seed=0):
    """Channels × frames × rows × columns, of the whole range of the type, smooth and rough parts."""
    rng = np.random.default_rng(seed)
    shape = (CHANNELS, FRAMES, HEIGHT, WIDTH)
    if np.dtype(dtype).kind == "f":
        values = rng.normal(0, 1e3, shape).astype(dtype)
    else:
        limits = np.iinfo(dtype)
        values = rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)
    values[:, 1] = 0
    values[:, :, 4:9] = 7
    return values


def in_order(X, **options):
    """An image whose pages are in the order of the array, channels outermost."""
    return tiff(X.reshape(-1, HEIGHT, WIDTH), ome_xml(X.shape, X.dtype, **options))


def read_image(tmp_path, written):
    return read_with_viv(write_project(tmp_path / "p.zip", [("X.ome.tiff", written)]))


def test_strips_from_byte_16_with_the_ifds_at_the_end(tmp_path):
    truth, members = {}, []
    for dtype, predictor, big in itertools.product(DTYPES, (False, True), (False, True)):
        name = f"{dtype} predictor={predictor} big={big}"
        X = truth[name] = pixels(dtype, seed=len(truth))
        written = tiff(X.reshape(-1, HEIGHT, WIDTH), ome_xml(X.shape, dtype), predictor=predictor, big=big)
        members.append((f"{name}.ome.tiff", written))
        with tifffile.TiffFile(io.BytesIO(written)) as opened:
            assert opened.is_bigtiff == big
            assert opened.pages[0].dataoffsets[0] == 16
            assert opened.pages[0].offset > opened.pages[-1].dataoffsets[-1]
    found = read_with_viv(write_project(tmp_path / "p.zip", members))
    for name, X in truth.items():
        assert found[name].dtype == X.dtype
        np.testing.assert_array_equal(found[name], X, err_msg=name)


def test_pages_by_tifffile_in_both_orders(tmp_path):
    truth, members = {}, []
    for dtype, predictor, axes in itertools.product(("uint8", "uint16", "int32"), (False, True), ("CZYX", "ZCYX")):
        name = f"{dtype} predictor={predictor} {axes}"
        X = truth[name] = pixels(dtype, seed=len(truth))
        pages = X if axes == "CZYX" else X.swapaxes(0, 1)
        buffer, options = io.BytesIO(), {"compression": "zlib", "predictor": predictor, "metadata": {"axes": axes}}
        tifffile.imwrite(buffer, pages, ome=True, photometric="minisblack", **options)
        members.append((f"{name}.ome.tiff", buffer.getvalue()))
    found = read_with_viv(write_project(tmp_path / "p.zip", members))
    for name, X in truth.items():
        assert found[name].dtype == X.dtype
        np.testing.assert_array_equal(found[name], X, err_msg=name)


def test_identical_strips_may_be_stored_once(tmp_path):
    X = pixels("int32")
    written = tiff(X.reshape(-1, HEIGHT, WIDTH), ome_xml(X.shape, "int32"), share=True)
    with tifffile.TiffFile(io.BytesIO(written)) as opened:
        assert len({offset for page in opened.pages for offset in page.dataoffsets}) < 3 * CHANNELS * FRAMES
        np.testing.assert_array_equal(opened.asarray(), X)
    np.testing.assert_array_equal(read_image(tmp_path, written)["X"], X)


def test_frames_on_the_time_axis_are_not_seen(tmp_path):
    X = pixels("uint8")
    found = read_image(tmp_path, in_order(X, order="XYTCZ", frames_on="T"))
    np.testing.assert_array_equal(found["X"], X[:, :1])


def test_a_wrong_order_of_pages_goes_unnoticed(tmp_path):
    X = pixels("uint8")
    found = read_image(tmp_path, in_order(X, order="XYCZT"))
    np.testing.assert_array_equal(found["X"], X.reshape(FRAMES, CHANNELS, HEIGHT, WIDTH).swapaxes(0, 1))


def test_names_of_channels(tmp_path):
    """Text arrives as it is, in double or single quotes; entities stay, and numbers and booleans are converted."""
    as_shown = {
        "DAPI": "DAPI",
        "CD45 µ–日本": "CD45 µ–日本",
        'say "b"': 'say "b"',
        "o'clock": "o'clock",
        "null": "null",
        "a&b": "a&amp;b",
        "a<b": "a&lt;b",
        "488": 488,
        "1e3": 1000,
        "007": 7,
        "true": True,
        " spaces ": "spaces",
    }
    X = np.zeros((len(as_shown), 1, HEIGHT, WIDTH), np.uint8)
    found = read_image(tmp_path, in_order(X, names=list(as_shown)))
    assert found["names"]["X"] == list(as_shown.values())
    assert [type(name) for name in found["names"]["X"]] == [type(name) for name in as_shown.values()]


def test_a_type_that_the_client_refuses(tmp_path):
    X = pixels("uint8")
    written = in_order(X).replace(b'Type="uint8"', b'Type="bit"  ')
    with pytest.raises(AssertionError, match="Pixel type bit not supported"):
        read_image(tmp_path, written)


@pytest.mark.parametrize("zip64", [False, True], ids=["zip32", "zip64"])
@pytest.mark.parametrize("stored", [(), ("X.ome.tiff", "y.ome.tiff")], ids=["deflated", "stored"])
def test_members_arrive_as_written(tmp_path, stored, zip64):
    X = pixels("uint16")
    texts = {
        "cells.json": json.dumps([{"cell": 1, "value": 1, "t": 0, "c": 0}]),
        "divisions.json": json.dumps([{"parent": 1, "daughters": [2, 3], "t": 1}]),
        "cellTypes.json": json.dumps([{"id": 1, "cells": [1], "color": "#58b5e1", "name": "T-Zelle µ", "feature": 0}]),
        "embeddings.json": "null",
        "spots.csv": "x,y\n1.5,2.25\n3,4\n",
    }
    image = in_order(X)
    members = [("X.ome.tiff", image), ("y.ome.tiff", image), *texts.items(), ("else.bin", b"\0")]
    found = read_with_viv(write_project(tmp_path / "p.zip", members, stored=stored, zip64=zip64))
    assert found["members"] == [name for name, _ in members]
    assert found["text"] == texts
    np.testing.assert_array_equal(found["X"], X)


# What atlaswriter writes.


def movie(dtype):
    """Frames × rows × columns × channels, and labels of two features."""
    X = np.moveaxis(pixels(dtype), 0, -1)
    y = np.zeros((FRAMES, HEIGHT, WIDTH, 2), np.int32)
    y[:, 1:5, 2:9, 0] = 1
    y[1:, 8:15, 4:20, 0] = 2**31 - 1
    y[0, 2:4, 3:6, 1] = 300
    return X, y


@pytest.fixture
def write(tmp_path):
    if not hasattr(atlaswriter, "deepcell"):
        pytest.skip("this version has no deepcell")

    def written(X, **options):
        atlaswriter.deepcell(X, tmp_path / "ours.zip", axes="TYXC", **options)
        return read_with_viv(tmp_path / "ours.zip")

    return written


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_client_gets_the_pixels_that_were_given(write, dtype):
    X, y = movie(dtype)
    found = write(X, labels=y, label_axes="TYXC", image_dtype="keep")
    assert found["X"].dtype == X.dtype
    np.testing.assert_array_equal(found["X"], np.moveaxis(X, -1, 0))
    assert found["y"].dtype == np.int32
    np.testing.assert_array_equal(found["y"], np.moveaxis(y, -1, 0))


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_the_client_gets_each_channel_stretched_over_all_frames(write, dtype):
    X, _ = movie(dtype)
    found = write(X)
    assert found["X"].dtype == np.uint8
    low, high = (function(X.astype(np.float64), axis=(0, 1, 2)) for function in (np.min, np.max))
    exact = np.moveaxis((X - low) / (high - low) * 255, -1, 0)
    assert np.abs(found["X"] - exact).max() <= 0.5 + 1e-9
    assert not found["y"].any()


def test_the_client_gets_names_cells_and_every_spot(write, tmp_path):
    X, y = movie("uint8")
    names = ["DAPI µ", 'say "CD3"']
    spots = "x,y,cell_0\n1.50000,2.25000,0\n3,4,1\n22.5,16.5,0\n"
    buffer = io.BytesIO()
    np.save(buffer, y)
    labels = write_project(tmp_path / "labels.zip", [("y.npy", buffer.getvalue()), ("spots.csv", spots)])
    found = write(X, labels=labels, label_axes="TYXC", channel_names=names)
    assert found["names"]["X"] == names
    rows = [
        {"cell": int(value), "value": int(value), "t": t, "c": c}
        for t, c in itertools.product(range(FRAMES), range(2))
        for value in np.unique(y[t, :, :, c])
        if value
    ]
    read = {name: json.loads(text) for name, text in found["text"].items() if name.endswith(".json")}
    assert read == {"cells.json": rows, "divisions.json": [], "cellTypes.json": [], "embeddings.json": None}
    # The client drops the header and what follows the last end of a line.
    seen = [[float(field) for field in line.split(",")[:2]] for line in found["text"]["spots.csv"].split("\n")[1:-1]]
    assert seen == [[1.5, 2.25], [3, 4], [22.5, 16.5]]
