"""Export and edit zips: what the client sends becomes a project, what is sent is what was meant, nothing is trusted."""

import io
import json
import xml.etree.ElementTree as ET
import zipfile

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from atlaswriter.cli.deepcell_export import command
from atlaswriter.errors import InputError
from atlaswriter.formats.deepcell import edit, exchange
from atlaswriter.formats.deepcell.cells import Cells
from atlaswriter.formats.deepcell.edit import EditRequest, EditResponse
from atlaswriter.formats.deepcell.exchange import deepcell_export, write_export_request

ARRAYS = {
    "Uint8Array": "u1",
    "Uint8ClampedArray": "u1",
    "Uint16Array": "u2",
    "Uint32Array": "u4",
    "Int16Array": "i2",
    "Int32Array": "i4",
    "Float32Array": "f4",
    "Float64Array": "f8",
}
SHAPE = C, T, H, W = 2, 3, 7, 5
FEATURES = 2
RUN = {"workers": 2, "progress": False}


def pixels(dtype="u2", seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return rng.normal(0, 1e3, SHAPE).astype(dtype)
    return rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max, SHAPE, dtype, endpoint=True)


def labels():
    """Values 1, 2 and 9 everywhere; they mean other cells in each feature."""
    y = np.zeros((FEATURES, T, H, W), np.int32)
    y[:, :, :3, :2] = 1
    y[:, :, 4:, :] = 2
    y[:, :, 3, :] = 9
    return y


def rows():
    cells = []
    for t in range(T):
        cells += [{"cell": 4, "value": 1, "t": t, "c": 0}, {"cell": 7, "value": 9, "t": t, "c": 0}]
        cells += [{"cell": 4, "value": 9, "t": t, "c": 0}, {"cell": 1, "value": 2, "t": t, "c": 1}]
        cells += [{"cell": 3, "value": 55, "t": t, "c": 1}]  # no pixel has it
    return cells


def members(**changes):
    """Of a request; ``name=None`` leaves one out (``.`` is written ``_``)."""
    image = pixels()
    content = {
        "dimensions.json": dimensions(),
        "labeled.dat": labels().astype("<i4").tobytes(),
        "raw.dat": image.astype("<u2").tobytes(),
        "channels.json": ["DAPI", "CD45"],
        "cells.json": rows(),
        "cellTypes.json": [{"id": 1, "cells": [4], "color": "#ff0000", "name": "T", "feature": 0}],
        "divisions.json": [],
        "spots.csv": b"x,y\n1.5,2.5\n0.25,6",
    }
    for name, value in changes.items():
        content[name.replace("_", ".")] = value
    return {
        name: value if isinstance(value, bytes) else json.dumps(value).encode()
        for name, value in content.items()
        if value is not None
    }


def write_zip(path, content, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, value in content.items():
            archive.writestr(name, value)
    return path


def dimensions(**changes):
    found = {"width": W, "height": H, "duration": T, "numChannels": C, "numFeatures": FEATURES, "dtype": "Uint16Array"}
    return {key: value for key, value in (found | changes).items() if value is not None}


def read_tiff(path, name):
    """(channels, frames, rows, columns), and the names of the channels."""
    with zipfile.ZipFile(path) as archive, tifffile.TiffFile(io.BytesIO(archive.read(name))) as file:
        pages = np.stack([page.asarray() for page in file.pages])
        found = ET.fromstring(file.ome_metadata)
    sizes = next(item for item in found.iter() if item.tag.endswith("Pixels"))
    names = [item.get("Name") for item in found.iter() if item.tag.endswith("Channel")]
    return pages.reshape(int(sizes.get("SizeC")), int(sizes.get("SizeZ")), *pages.shape[1:]), names


def read_json(path, name):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read(name))


def meaning(y, cells):
    """Cells of every pixel."""
    of = {}
    for row in cells:
        of.setdefault((row["c"], row["t"], row["value"]), set()).add(row["cell"])
    return [frozenset(of.get((c, t, value), ())) for (c, t, _, _), value in np.ndenumerate(y)]


def problems(call, *args, **kwargs):
    with pytest.raises(InputError) as error:
        call(*args, **kwargs)
    return [str(problem) for problem in error.value.problems]


# --- export


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_export_keeps_pixels_and_the_meaning_of_labels(tmp_path, method):
    request, out = write_zip(tmp_path / "r.zip", members(), method), tmp_path / "out.zip"
    report = deepcell_export(request, out, **RUN)
    image, names = read_tiff(out, "X.ome.tiff")
    assert image.dtype == np.uint16
    assert np.array_equal(image, pixels())
    assert names == ["DAPI", "CD45"]
    y, cells = read_tiff(out, "y.ome.tiff")[0], read_json(out, "cells.json")
    assert meaning(y, cells) == meaning(labels(), rows())
    # By hand: a value of one cell is the cell, one of two is above all cells of the frame, one of none is gone.
    assert sorted(np.unique(y[0]).tolist()) == [0, 4, 8]
    assert sorted(np.unique(y[1]).tolist()) == [0, 1]
    assert all(row["cell"] != 3 for row in cells)
    assert any("no pixel shows" in warning for warning in report.warnings)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_no_spot_is_lost_though_the_client_sends_no_last_newline(tmp_path):
    request, out = write_zip(tmp_path / "r.zip", members()), tmp_path / "out.zip"
    report = deepcell_export(request, out, **RUN)
    assert zipfile.ZipFile(out).read("spots.csv") == b"x,y\n1.5,2.5\n0.25,6\n"
    assert report.contents["spots"] == 2
    assert read_json(out, "cellTypes.json")[0]["name"] == "T"


@pytest.mark.parametrize(("array", "dtype"), ARRAYS.items())
def test_pixels_of_every_kind_of_array(tmp_path, array, dtype):
    image = pixels(dtype)
    content = members(raw_dat=image.astype(f"<{dtype}").tobytes(), dimensions_json=dimensions(dtype=array))
    out = tmp_path / "out.zip"
    deepcell_export(write_zip(tmp_path / "r.zip", content), out, **RUN)
    found = read_tiff(out, "X.ome.tiff")[0]
    assert found.dtype == np.dtype(dtype)
    assert np.array_equal(found, image)


def test_without_a_dtype_pixels_are_bytes_and_without_names_there_are_none(tmp_path):
    content = members(
        raw_dat=pixels("u1").tobytes(),
        dimensions_json=dimensions(dtype=None),
        channels_json=None,
        spots_csv=None,
        cellTypes_json=None,
        divisions_json=None,
    )
    out = tmp_path / "out.zip"
    deepcell_export(write_zip(tmp_path / "r.zip", content), out, **RUN)
    image, names = read_tiff(out, "X.ome.tiff")
    assert np.array_equal(image, pixels("u1"))
    assert names == [None, None]
    assert read_json(out, "divisions.json") == []
    assert "spots.csv" not in zipfile.ZipFile(out).namelist()


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("a&amp;b", "a&b"),
        ("a&amp;amp;b", "a&amp;b"),
        ("&lt;x&gt; &quot;y&quot; &apos;z&apos;", "<x> \"y\" 'z'"),
        ("&#945;-SMA", "α-SMA"),
        ("&copy; R&D", "&copy; R&D"),
        (488, "488"),
        (1000.0, "1000"),
        (0.5, "0.5"),
        (True, "true"),
        ("", ""),
    ],
)
def test_names_are_those_from_before_the_xml_reader_of_the_client(tmp_path, sent, meant):
    out = tmp_path / "out.zip"
    deepcell_export(write_zip(tmp_path / "r.zip", members(channels_json=[sent, "CD45"])), out, **RUN)
    assert [name or "" for name in read_tiff(out, "X.ome.tiff")[1]] == [meant, "CD45"]


def test_images_can_be_stretched_to_8_bit(tmp_path):
    out = tmp_path / "out.zip"
    deepcell_export(write_zip(tmp_path / "r.zip", members()), out, image_dtype="uint8", **RUN)
    image = read_tiff(out, "X.ome.tiff")[0]
    assert image.dtype == np.uint8
    assert (image.min(), image.max()) == (0, 255)


def test_a_preview_is_written_beside(tmp_path):
    deepcell_export(write_zip(tmp_path / "r.zip", members()), tmp_path / "out.zip", preview=True, **RUN)
    assert (tmp_path / "out.preview.png").read_bytes().startswith(b"\x89PNG")


def test_all_missing_members_are_named(tmp_path):
    content = members(raw_dat=None, cells_json=None, dimensions_json=None)
    (found,) = problems(deepcell_export, write_zip(tmp_path / "r.zip", content), tmp_path / "out.zip", **RUN)
    assert all(name in found for name in ("raw.dat", "cells.json", "dimensions.json"))
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"width": 0}, "width 0"),
        ({"height": -7}, "height -7"),
        ({"duration": 2.5}, "duration 2.5"),
        ({"numChannels": True}, "numChannels True"),
        ({"numFeatures": "2"}, "numFeatures '2'"),
        ({"width": None}, "no width"),
        ({"width": 2**40}, "width"),
        ({"height": 10**30}, "height"),
        ({"duration": 2**30, "numChannels": 2**30}, "images"),
        ({"dtype": "BigInt64Array"}, "BigInt64Array"),
        ({"dtype": 16}, "dtype 16"),
        ({"dtype": "Uint8Array"}, "raw.dat: has 420 bytes"),
        ({"width": W - 1}, "labeled.dat: has 840 bytes"),
        ({"width": 2**31 - 1}, "labeled.dat: has 840 bytes"),
    ],
)
def test_dimensions_that_cannot_be(tmp_path, changes, found):
    content = members(dimensions_json=dimensions(**changes))
    every = problems(deepcell_export, write_zip(tmp_path / "r.zip", content), tmp_path / "out.zip", **RUN)
    assert any(found in problem for problem in every), every
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{", b"\xff", b'{"width": 1, "width": 2}', b"[" * 100_000])
def test_dimensions_that_are_none(tmp_path, content):
    request = write_zip(tmp_path / "r.zip", members(dimensions_json=content))
    assert "dimensions.json" in problems(deepcell_export, request, tmp_path / "out.zip", **RUN)[0]


@pytest.mark.parametrize("name", ["labeled.dat", "raw.dat"])
@pytest.mark.parametrize("change", [lambda content: content[:-1], lambda content: content + b"\0", lambda _: b""])
def test_buffers_of_another_size(tmp_path, name, change):
    content = members()
    content[name] = change(content[name])
    (found,) = problems(deepcell_export, write_zip(tmp_path / "r.zip", content), tmp_path / "out.zip", **RUN)
    assert f"{name}: has {len(content[name]):,} bytes" in found


@pytest.mark.parametrize(
    ("names", "found"),
    [(["a"], "1 names for 2 channels"), ({"a": 1}, "no list of names"), ([None, "b"], "no list"), (b"x", "JSON")],
)
def test_names_that_cannot_be(tmp_path, names, found):
    request = write_zip(tmp_path / "r.zip", members(channels_json=names))
    assert found in problems(deepcell_export, request, tmp_path / "out.zip", **RUN)[0]


def test_everything_wrong_is_said_at_once(tmp_path):
    content = members(dimensions_json=dimensions(width=0, dtype="x"), channels_json=[None])
    assert len(problems(deepcell_export, write_zip(tmp_path / "r.zip", content), tmp_path / "out.zip", **RUN)) == 3


def test_labels_below_zero_and_cells_of_no_frame_are_refused(tmp_path):
    y = labels()
    y[1, 2, 0, 0] = -3
    request = write_zip(tmp_path / "a.zip", members(labeled_dat=y.astype("<i4").tobytes()))
    assert "negative" in problems(deepcell_export, request, tmp_path / "out.zip", **RUN)[0]
    far = [{"cell": 1, "value": 1, "t": T, "c": 0}]
    request = write_zip(tmp_path / "b.zip", members(cells_json=far))
    assert "cells.json" in problems(deepcell_export, request, tmp_path / "out.zip", **RUN)[0]


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("name", ["raw.dat", "labeled.dat", "cells.json", "channels.json"])
def test_damaged_content_is_found_and_the_target_stays(tmp_path, name, method):
    path, out = write_zip(tmp_path / "r.zip", members(), method), tmp_path / "out.zip"
    deepcell_export(path, out, **RUN)
    old = out.read_bytes()
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name)
    content = bytearray(path.read_bytes())
    content[info.header_offset + 30 + len(name) + info.compress_size // 2] ^= 0x10
    path.write_bytes(content)
    assert name in "".join(problems(deepcell_export, path, out, force=True, **RUN))
    assert out.read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir() if "lock" not in path.name) == ["out.zip", "r.zip"]


@pytest.mark.parametrize("cut", [0, 3, 40, 300, -1])
def test_a_request_that_is_cut_short(tmp_path, cut):
    path = write_zip(tmp_path / "r.zip", members())
    path.write_bytes(path.read_bytes()[:cut])
    assert problems(deepcell_export, path, tmp_path / "out.zip", **RUN)


def test_what_is_no_zip_file(tmp_path):
    assert "cannot be read" in problems(deepcell_export, tmp_path / "none.zip", tmp_path / "out.zip", **RUN)[0]
    assert problems(deepcell_export, tmp_path, tmp_path / "out.zip", **RUN)
    assert "not a path" in problems(deepcell_export, 3, tmp_path / "out.zip", **RUN)[0]
    path = write_zip(tmp_path / "r.zip", members() | {"../x": b""})
    assert "lead elsewhere" in problems(deepcell_export, path, tmp_path / "out.zip", **RUN)[0]


def test_a_request_is_not_overwritten_by_its_project(tmp_path):
    path = write_zip(tmp_path / "r.zip", members())
    before = path.read_bytes()
    assert problems(deepcell_export, path, path, force=True, **RUN)
    assert path.read_bytes() == before


def test_other_members_are_left_out_and_it_is_said(tmp_path):
    path = write_zip(tmp_path / "r.zip", members() | {"notes.txt": b"hello"})
    report = deepcell_export(path, tmp_path / "out.zip", **RUN)
    assert any("notes.txt" in warning for warning in report.warnings)
    assert "notes.txt" not in zipfile.ZipFile(tmp_path / "out.zip").namelist()


def test_the_command(tmp_path):
    path, out = write_zip(tmp_path / "r.zip", members()), tmp_path / "out.zip"
    result = CliRunner().invoke(command, [str(path), str(out), "--json", "--no-progress", "--image-dtype", "uint8"])
    assert result.exit_code == 0, result.output
    assert read_tiff(out, "X.ome.tiff")[0].dtype == np.uint8
    again = CliRunner().invoke(command, [str(path), str(out), "--no-progress"])
    assert isinstance(again.exception, InputError)
    assert CliRunner().invoke(command, [str(path), str(out), "--force", "--no-progress"]).exit_code == 0
    assert read_tiff(out, "X.ome.tiff")[0].dtype == np.uint16


# --- writing export requests


def test_a_project_becomes_the_request_it_came_from(tmp_path, monkeypatch):
    sent = ["a&amp;b &lt;&quot;c&quot;&gt;", "488"]
    deepcell_export(write_zip(tmp_path / "r.zip", members(channels_json=sent)), tmp_path / "a.zip", **RUN)
    write_export_request(tmp_path / "a.zip", tmp_path / "b.zip")
    monkeypatch.setattr(exchange, "_BLOCK_BYTES", 1)  # row by row
    write_export_request(tmp_path / "a.zip", tmp_path / "c.zip")
    assert (tmp_path / "b.zip").read_bytes() == (tmp_path / "c.zip").read_bytes()
    deepcell_export(tmp_path / "b.zip", tmp_path / "d.zip", **RUN)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "d.zip").read_bytes()
    assert read_tiff(tmp_path / "a.zip", "X.ome.tiff")[1] == ['a&b <"c">', "488"]
    assert read_json(tmp_path / "b.zip", "dimensions.json") == dimensions()
    assert read_json(tmp_path / "b.zip", "channels.json") == sent
    assert zipfile.ZipFile(tmp_path / "b.zip").read("raw.dat") == pixels().astype("<u2").tobytes()


def test_arrays_become_a_request_with_a_cell_for_each_value(tmp_path):
    x, y = pixels("f4").transpose(1, 2, 3, 0), labels().transpose(1, 2, 3, 0).astype(np.int64)
    write_export_request(x.astype(">f4"), tmp_path / "r.zip", y)
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert archive.read("raw.dat") == pixels("f4").tobytes()
        assert archive.read("labeled.dat") == labels().tobytes()
        cells = json.loads(archive.read("cells.json"))
        assert json.loads(archive.read("channels.json")) == ["channel 0", "channel 1"]
    found = {(row["t"], row["c"], row["value"]) for row in cells}
    assert found == {(t, c, value) for t in range(T) for c in range(FEATURES) for value in (1, 2, 9)}
    assert all(row["cell"] == row["value"] for row in cells)


def test_without_labels_a_request_has_one_empty_feature(tmp_path):
    write_export_request(pixels("u1").transpose(1, 2, 3, 0), tmp_path / "r.zip")
    with zipfile.ZipFile(tmp_path / "r.zip") as archive:
        assert not any(archive.read("labeled.dat"))
        assert json.loads(archive.read("dimensions.json"))["numFeatures"] == 1
        assert json.loads(archive.read("cells.json")) == []


@pytest.mark.parametrize("dtype", ["i2", "i1", "u8", "f2"])
def test_pixels_that_servers_do_not_know_are_refused(tmp_path, dtype):
    image = np.zeros((T, H, W, C), dtype)
    assert "do not know" in problems(write_export_request, image, tmp_path / "r.zip")[0]
    assert list(tmp_path.iterdir()) == []


def test_labels_beyond_32_bits_are_refused(tmp_path):
    y = np.full((T, H, W, 1), 2**31, np.int64)
    assert "32 bits" in problems(write_export_request, pixels("u1").transpose(1, 2, 3, 0), tmp_path / "r.zip", y)[0]


# --- edits

PLANE = np.arange(H * W, dtype=np.int32).reshape(H, W)
IMAGE = (PLANE * 7).astype(np.uint8)
ROWS = Cells(*(np.array(numbers) for numbers in ([3, 4, 5], [3, 4, 4], [2, 2, 2], [1, 1, 1])))
ARGS = {
    "draw": {"trace": "[[1, 2], [3.5, 4]]", "brush_size": 3, "cell": 2},
    "trim_pixels": {"cell": 1, "x": 0, "y": H - 1},
    "flood": {"foreground": 2, "background": 0, "x": W - 1, "y": 0},
    "watershed": {"cell": 1, "new_cell": 2, "x1": 0, "y1": 0, "x2": 4, "y2": 6},
    "threshold": {"y1": 0, "x1": 0, "y2": 6, "x2": 4, "cell": 9},
    "active_contour": {"cell": 1, "min_pixels": 20, "iterations": 100, "dilate": 0},
    "erode": {"cell": 1},
    "dilate": {"cell": 1},
}


def same_cells(a, b):
    return all(np.array_equal(one, other) for one, other in zip(vars(a).values(), vars(b).values(), strict=True))


@pytest.mark.parametrize("action", edit.ACTIONS)
@pytest.mark.parametrize("mode", edit.WRITE_MODES)
def test_edit_requests_come_back(tmp_path, action, mode):
    request = EditRequest(action, ARGS[action], PLANE, ROWS, mode, IMAGE if action in edit.OF_IMAGES else None)
    edit.write_edit_request(request, tmp_path / "a.zip")
    edit.write_edit_request(request, tmp_path / "b.zip")
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    found = edit.read_edit_request(tmp_path / "a.zip")
    assert (found.action, dict(found.args), found.write_mode) == (action, ARGS[action], mode)
    assert (found.height, found.width) == (H, W)
    assert np.array_equal(found.labels, PLANE)
    assert found.labels.dtype == np.int32
    assert same_cells(found.cells, ROWS)
    assert (found.raw is None) == (action not in edit.OF_IMAGES)
    assert found.raw is None or np.array_equal(found.raw, IMAGE)


def edit_members(action="dilate", args=None, **changes):
    described = {"width": W, "height": H, "action": action, "args": args or ARGS[action], "writeMode": "overlap"}
    content = {"edit.json": described | changes.pop("edit", {}), "labeled.dat": PLANE.astype("<i4").tobytes()}
    content |= {name.replace("_", "."): value for name, value in changes.items()}
    return {name: value if isinstance(value, bytes) else json.dumps(value).encode() for name, value in content.items()}


def test_the_request_of_the_page_has_neither_cells_nor_image(tmp_path):
    content = edit_members()
    described = json.loads(content["edit.json"])
    del described["writeMode"]
    content["edit.json"] = json.dumps(described).encode()
    found = edit.read_edit_request(write_zip(tmp_path / "e.zip", content))
    assert (found.cells, found.raw, found.write_mode) == (None, None, "overlap")


@pytest.mark.parametrize(
    ("action", "change", "found"),
    [
        ("draw", {"trace": [[1, 2]]}, "trace"),
        ("draw", {"trace": "[[1]]"}, "trace"),
        ("draw", {"trace": "[[1, true]]"}, "trace"),
        ("draw", {"trace": "[[1, NaN]]"}, "trace"),
        ("draw", {"trace": "\ud800"}, "trace"),
        ("draw", {"erase": 1}, "erase"),
        ("draw", {"brush_size": -1}, "brush_size"),
        ("draw", {"cell": 0}, "cell"),
        ("flood", {"background": -1}, "background"),
        ("flood", {"x": W}, "x"),
        ("flood", {"y": H}, "y"),
        ("flood", {"x": 1.5}, "x"),
        ("watershed", {"y2": -1}, "y2"),
        ("threshold", {"x2": "4"}, "x2"),
        ("active_contour", {"iterations": None}, "iterations"),
        ("dilate", {"cell": 2**31}, "cell"),
        ("dilate", {"__class__": 1}, "__class__"),
    ],
)
def test_arguments_that_cannot_be(tmp_path, action, change, found):
    args = ARGS[action] | change
    content = edit_members(action, args, raw_dat=IMAGE.tobytes())
    (problem,) = problems(edit.read_edit_request, write_zip(tmp_path / "e.zip", content))
    assert found in problem
    request = EditRequest(action, args, PLANE, ROWS, "overlap", IMAGE)
    assert len(problems(edit.write_edit_request, request, tmp_path / "out.zip")) == 1
    assert not (tmp_path / "out.zip").exists()


@pytest.mark.parametrize("action", ARGS)
def test_every_missing_argument_is_named(tmp_path, action):
    content = edit_members(action, {"other": 1}, raw_dat=IMAGE.tobytes())
    needed = [name for name in edit.ACTIONS[action] if not name.endswith("?")]
    every = problems(edit.read_edit_request, write_zip(tmp_path / "e.zip", content))
    assert len(every) == 2
    assert all(name in every[0] for name in needed)
    assert "'other'" in every[1]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (edit_members(edit={"action": "explode"}), "explode"),
        (edit_members(edit={"action": ["draw"]}), "action"),
        (edit_members(edit={"writeMode": "replace"}), "writeMode"),
        (edit_members(edit={"writeMode": []}), "writeMode"),
        (edit_members(edit={"args": [1]}), "args"),
        (edit_members(edit={"height": 0}), "height"),
        (edit_members(edit={"width": 2**31}), "width"),
        (edit_members(edit={"width": W + 1}), "labeled.dat"),
        (edit_members("threshold"), "raw.dat"),
        (edit_members("threshold", raw_dat=b"123"), "raw.dat: has 3 bytes"),
        (edit_members(cells_json=b"{}"), "cells.json"),
        (edit_members(cells_json=[{"cell": 1, "value": 1, "t": t, "c": 0} for t in (0, 1)]), "several frames"),
        (edit_members() | {"edit.json": b"[]"}, "edit.json"),
        (edit_members() | {"edit.json": b"[" * 100_000}, "edit.json"),
        ({"labeled.dat": b""}, "edit.json"),
        ({"a": b""}, "labeled.dat"),
    ],
)
def test_edit_requests_that_cannot_be(tmp_path, content, found):
    assert found in "".join(problems(edit.read_edit_request, write_zip(tmp_path / "e.zip", content)))


@pytest.mark.parametrize(
    "changes",
    [
        {"labels": PLANE.astype(np.int64)},
        {"labels": PLANE[np.newaxis]},
        {"labels": PLANE.tolist()},
        {"labels": PLANE[:0]},
        {"raw": IMAGE.T},
        {"raw": IMAGE.astype(np.uint16)},
        {"write_mode": "other"},
        {"action": "other"},
    ],
)
def test_edit_requests_that_are_not_written(tmp_path, changes):
    given = {"action": "threshold", "args": ARGS["threshold"], "labels": PLANE, "cells": ROWS, "raw": IMAGE}
    assert problems(edit.write_edit_request, EditRequest(**given | changes), tmp_path / "e.zip")
    assert list(tmp_path.iterdir()) == []


def test_edit_responses_go_by_position(tmp_path):
    edit.write_edit_response(EditResponse(PLANE, ROWS), tmp_path / "a.zip")
    assert zipfile.ZipFile(tmp_path / "a.zip").namelist() == ["labeled.dat", "cells.json"]
    found = edit.read_edit_response(tmp_path / "a.zip", height=H, width=W)
    assert np.array_equal(found.labels, PLANE)
    assert same_cells(found.cells, ROWS)
    # Rows of new values name no frame and feature; names of members do not matter.
    some = [{"cell": 3, "value": 3, "t": 2, "c": 1}, {"cell": 8, "value": 9}]
    path = write_zip(tmp_path / "b.zip", {"x": PLANE.tobytes(), "y": json.dumps(some).encode()})
    found = edit.read_edit_response(path, height=H, width=W, t=2, c=1)
    assert found.cells.t.tolist() == [2, 2]
    assert found.cells.c.tolist() == [1, 1]
    assert found.cells.value.tolist() == [3, 9]


def test_edit_responses_that_cannot_be(tmp_path):
    swapped = write_zip(tmp_path / "a.zip", {"cells.json": b"[]", "labeled.dat": PLANE.tobytes()})
    assert "cells.json: has 2 bytes" in problems(edit.read_edit_response, swapped, height=H, width=W)[0]
    one = write_zip(tmp_path / "b.zip", {"labeled.dat": PLANE.tobytes()})
    assert "1 members" in problems(edit.read_edit_response, one, height=H, width=W)[0]
    bad = write_zip(tmp_path / "c.zip", {"labeled.dat": PLANE.tobytes(), "cells.json": b'[1, {"cell": 0}, {}]'})
    assert problems(edit.read_edit_response, bad, height=H, width=W)
    other = write_zip(tmp_path / "d.zip", {"labeled.dat": PLANE.tobytes(), "cells.json": b'{"error": "x"}'})
    assert "list" in problems(edit.read_edit_response, other, height=H, width=W)[0]
