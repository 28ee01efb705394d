"""Reading projects back: whatever wrote them, however they are stored, and with clear errors where they are damaged."""

from __future__ import annotations

import gc
import io
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from tests.deepcell_sample import CHANNELS, FRAMES, HEIGHT, IMAGES, MEANING, NAMES, WIDTH, Sample, damaged

import atlaswriter
from atlaswriter.cli.main import run
from atlaswriter.errors import FormatError, InputError, UnknownNameError
from atlaswriter.findings import ReadError
from atlaswriter.formats import detect
from atlaswriter.formats.deepcell.read import Project

VARIANTS: dict[str, dict[str, Any]] = {
    "ours": {"predictor": True},
    "server": {"order": "ZCYX", "stored": ()},
    "export": {"order": "CZYX", "zip64": True},
    "frames on T": {"order": "ZCYX", "frames_on": "T"},
    "frames on T, channels first": {"order": "CZYX", "frames_on": "T", "stored": ("y.ome.tiff",)},
    "big": {"big": True, "rows": 4},
}


def project(path: Path, **options: Any) -> Project:
    found = atlaswriter.open_export(Sample().write(path / "project.zip", **options))
    assert isinstance(found, Project)
    return found


@pytest.fixture(params=VARIANTS)
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path, **VARIANTS[request.param]) as found:
        yield found


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def test_pixels(opened: Project) -> None:
    truth = Sample()
    assert (opened.n_frames, opened.n_channels, opened.n_features) == (FRAMES, CHANNELS, 2)
    assert (opened.height, opened.width) == (HEIGHT, WIDTH)
    assert opened.image_dtype == opened.X.dtype == np.uint16
    assert np.array_equal(opened.X, truth.X)
    assert opened.y.dtype == np.int32
    assert np.array_equal(opened.y, truth.y)
    for t, c in np.ndindex(FRAMES, CHANNELS):
        assert np.array_equal(opened.image(t, c), truth.X[c, t])
        assert np.array_equal(opened.image(t, NAMES[c]), truth.X[c, t])
        assert np.array_equal(opened.labels(t, c), truth.y[c, t])
    assert opened.segmentation.stack.shape == (FRAMES, 2, HEIGHT, WIDTH)
    assert opened.images.stack.read(1, slice(1, 2), slice(3, 9)).tolist() == truth.X[1:2, 1, 3:9].tolist()


def test_tables(opened: Project) -> None:
    truth = Sample()
    assert opened.channels == NAMES
    assert opened.cells.to_dict("records") == truth.cells
    assert (opened.cells.dtypes == np.int64).all()
    assert opened.divisions == truth.divisions
    assert opened.cell_types == truth.types
    assert opened.embeddings is not None
    assert opened.embeddings.tolist() == truth.embeddings
    assert opened.embeddings.dtype == np.float64
    assert opened.spots is not None
    assert list(opened.spots) == ["x", "y", "cell_0", "gene"]
    assert opened.spots[["x", "y"]].to_numpy().tolist() == [[3.5, 4.25], [16, 0.5], [9, 12.125]]
    assert opened.spots["cell_0"].tolist() == [1, 0, 4]
    assert opened.spots["gene"].tolist() == ["CD3E", "MS4A1", "CD3E"]


def test_meaning(opened: Project) -> None:
    truth = Sample()
    for t, c in np.ndindex(FRAMES, 2):
        there = set(np.unique(truth.y[c, t]).tolist()) - {0}
        assert opened.cells_at(t, c) == {value: MEANING[value] for value in there}
        for cell in (1, 2, 3, 4):
            values = [value for value, cells in MEANING.items() if cell in cells]
            assert np.array_equal(opened.mask(cell, t, c), np.isin(truth.y[c, t], values))
    assert opened.mask(4, 0).sum() == 9 * 7  # with the overlap


def test_shown(opened: Project) -> None:
    assert "frames: 3 of 17 × 13 pixels" in repr(opened)
    assert "CD45 <membrane>" in repr(opened)
    assert "CD45 &lt;membrane&gt;" in opened._repr_html_()


@pytest.mark.parametrize(
    ("ask", "match"),
    [
        (lambda found: found.image(3, 0), "frame 3"),
        (lambda found: found.image(-1, 0), "frame -1"),
        (lambda found: found.image(0, 2), "channel 2"),
        (lambda found: found.image(0, "PanCK"), "channel 'PanCK'"),
        (lambda found: found.labels(0, 2), "feature 2"),
        (lambda found: found.cells_at(9), r"frame 9.*'0', '1', '2'"),
        (lambda found: found.mask(7, 0), "cell 7"),
        (lambda found: found.mask(1, 0, 5), "feature 5"),
    ],
)
def test_names_that_are_not_there(tmp_path: Path, ask: Any, match: str) -> None:
    with project(tmp_path) as found, pytest.raises(UnknownNameError, match=match):
        ask(found)


def test_temporary_files_go(tmp_path: Path, scratch: Path) -> None:
    found = project(tmp_path, stored=())
    assert not list(scratch.iterdir())  # nothing was asked for
    assert found.n_frames == FRAMES
    assert [path.is_dir() for path in scratch.iterdir()] == [True]
    found.close()
    assert not list(scratch.iterdir())
    with pytest.raises(ValueError, match="is closed"):
        found.image(0, 0)
    assert "closed" in repr(found)
    found = project(tmp_path, stored=())
    assert found.n_frames == FRAMES
    del found
    gc.collect()
    assert not list(scratch.iterdir())


def test_stored_members_are_read_in_place(tmp_path: Path, scratch: Path) -> None:
    with project(tmp_path) as found:
        assert np.array_equal(found.y, Sample().y)
        assert not list(scratch.iterdir())


def test_what_tifffile_writes(tmp_path: Path) -> None:
    truth = Sample()
    members = truth.members()
    for name, array in zip(IMAGES, (truth.X, truth.y), strict=True):
        out = io.BytesIO()
        names = {"Channel": {"Name": ["a", "b"]}} if array is truth.X else {}
        metadata = {"axes": "ZCYX", **names}
        tifffile.imwrite(out, array.swapaxes(0, 1), ome=True, compression="zlib", metadata=metadata)
        members[name] = out.getvalue()
    with atlaswriter.open_export(damaged(tmp_path / "p.zip", members)) as found:
        assert np.array_equal(found.X, truth.X)
        assert np.array_equal(found.y, truth.y)
        assert found.channels == ["a", "b"]


def test_little_is_needed(tmp_path: Path) -> None:
    truth = Sample(names=[], cells=[], spots="x,y\r\n1,2\r\n3.5,4.5", embeddings=None)
    members = truth.members()
    gone = ["divisions.json", "cellTypes.json"]
    path = damaged(tmp_path / "p.zip", members, **dict.fromkeys(gone))
    with atlaswriter.open_export(path) as found:
        assert found.channels == ["channel 0", "channel 1"]
        assert (found.divisions, found.cell_types, found.embeddings) == ([], [], None)
        assert len(found.cells) == 0
        assert found.cells_at(0) == {}
        assert found.spots.to_numpy().tolist() == [[1, 2], [3.5, 4.5]]  # the last line has no end
    path = damaged(path, members, **dict.fromkeys([*gone, "embeddings.json", "spots.csv"]))
    with atlaswriter.open_export(path) as found:
        assert (found.embeddings, found.spots) == (None, None)


def test_one_frame_of_one_channel(tmp_path: Path) -> None:
    truth = Sample()
    one = Sample(X=truth.X[:1, :1].astype(np.float32), y=truth.y[:1, :1], names=["a"], divisions=[], types=[])
    for order in ("CZYX", "ZCYX"):
        with atlaswriter.open_export(one.write(tmp_path / f"{order}.zip", order)) as found:
            assert np.array_equal(found.X, one.X)
            assert found.image_dtype == np.float32
            assert found.labels(0).tolist() == truth.y[0, 0].tolist()


def test_rows_without_a_feature(tmp_path: Path) -> None:
    truth = Sample(cells=[{"cell": 7, "value": 4, "t": 0}, {"cell": 9, "value": 2, "t": 2}])
    truth.y[1, 0] = 0
    with atlaswriter.open_export(truth.write(tmp_path / "p.zip")) as found:
        assert found.cells_at(0, 0) == {4: (7,)}
        assert found.cells_at(0, 1) == {}
        assert found.cells_at(2, 0) == found.cells_at(2, 1) == {2: (9,)}


def test_rows_of_frames_that_are_not_there_mean_nothing(tmp_path: Path) -> None:
    stray = {"cell": 9, "value": 4, "t": 0, "c": 3}  # as t 1, c 1 if frames and features were counted together
    with atlaswriter.open_export(Sample(cells=[stray]).write(tmp_path / "p.zip")) as found:
        assert found.cells.to_dict("records") == [stray]
        assert all(found.cells_at(t, c) == {} for t in range(FRAMES) for c in range(2))


def test_odd_spots_are_read(tmp_path: Path) -> None:
    spots = "X, Y,a,a,x\n-1,99.5,1,2,3\n\n0,1e1,4,5,6\n"
    with atlaswriter.open_export(Sample(spots=spots).write(tmp_path / "p.zip")) as found:
        assert list(found.spots) == ["x", "y", "a", "a_", "x_"]
        assert found.spots.to_numpy().tolist() == [[-1, 99.5, 1, 2, 3], [0, 10, 4, 5, 6]]
    with atlaswriter.open_export(Sample(spots="x,y\n").write(tmp_path / "p.zip")) as found:
        assert found.spots.shape == (0, 2)


def other_labels(**changes: Any) -> bytes:
    truth = Sample()
    array = changes.pop("array", truth.y)
    return Sample(y=array).images()["y.ome.tiff"]


def plain_tiff(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    tifffile.imwrite(out, array, photometric="minisblack", metadata=None)
    return out.getvalue()


def everything(path: Path) -> None:
    with atlaswriter.open_export(path) as found:
        for name in ("X", "y", "cells", "divisions", "cell_types", "embeddings", "spots"):
            getattr(found, name)


ROW = {"cell": 1, "value": 1, "t": 0, "c": 0}
DAMAGES: list[tuple[str, dict[str, Any], str]] = [
    ("zip.missing", {"cells.json": None}, "has no 'cells.json'"),
    ("zip.missing", {"y.ome.tiff": None, "X.ome.tiff": None}, "X.ome.tiff.*y.ome.tiff"),
    ("tiff.unreadable", {"X.ome.tiff": b"no image"}, "X.ome.tiff"),
    ("tiff.unreadable", {"X.ome.tiff": b""}, "X.ome.tiff"),
    ("tiff.unreadable", {"y.ome.tiff": b"II*\0\xff\xff\xff\xff"}, "y.ome.tiff"),
    ("tiff.unreadable", {"y.ome.tiff": Sample().images()["y.ome.tiff"][:-200]}, "y.ome.tiff"),
    ("tiff.xml", {"X.ome.tiff": plain_tiff(Sample().X[0])}, "X.ome.tiff.*does not say"),
    ("labels.dtype", {"y.ome.tiff": other_labels(array=Sample().y.astype(np.float32))}, "float32"),
    ("labels.size", {"y.ome.tiff": other_labels(array=Sample().y[:, :2])}, "2 frames.*the image has 3 frames"),
    ("labels.size", {"y.ome.tiff": other_labels(array=Sample().y[..., :9])}, "9 columns"),
    ("cells.rows", {"cells.json": json.dumps({"cell": 1})}, "cells.json.*list"),
    ("cells.rows", {"cells.json": "[1, 2"}, "cells.json"),
    ("cells.rows", {"cells.json": json.dumps([ROW, {**ROW, "cell": "1"}])}, "row 1"),
    ("cells.rows", {"cells.json": json.dumps([{**ROW, "value": 2**40}])}, "value above"),
    ("divisions.rows", {"divisions.json": json.dumps([{"parent": 1}])}, "daughters"),
    ("types.rows", {"cellTypes.json": json.dumps([5])}, "cellTypes.json"),
    ("embeddings.rows", {"embeddings.json": "[[0, 1], [2]]"}, "embeddings.json"),
    ("spots.rows", {"spots.csv": "x,y\n1,2\n3\n"}, "spot 2"),
    ("spots.rows", {"spots.csv": "x,y\n1,2\n3,4,5\n"}, "spots.csv.*line 2"),
    ("spots.rows", {"spots.csv": "x,y\n1,2,3\n"}, "3 columns and names for 2"),
    ("spots.rows", {"spots.csv": "x,y\n1,nan\n"}, "no number"),
    ("spots.rows", {"spots.csv": "x,y\n1,two\n"}, "no number"),
    ("spots.rows", {"spots.csv": "x\n1\n"}, "x,y"),
    ("spots.rows", {"spots.csv": ""}, "x,y"),
]


@pytest.mark.parametrize(("rule", "changes", "match"), DAMAGES)
def test_damage_gives_clear_errors(tmp_path: Path, rule: str, changes: dict[str, Any], match: str) -> None:
    path = damaged(tmp_path / "p.zip", Sample().members(), **changes)
    with pytest.raises(ReadError, match=match) as caught:
        everything(path)
    assert caught.value.rule == rule
    assert str(path) in str(caught.value) or "p.zip" in str(caught.value)


def test_random_damage_is_refused_or_harmless(tmp_path: Path) -> None:
    rng, members, path = np.random.default_rng(7), Sample().members(), tmp_path / "p.zip"
    refused = 0
    for _ in range(60):
        name = rng.choice(list(members))
        content = members[name]
        data = bytearray(content if isinstance(content, bytes) else content.encode())
        # The end of an image, where its pages are, matters most.
        first = max(0, len(data) - 1500)
        data[rng.integers(first, len(data))] = rng.integers(256)
        damaged(path, members, **{name: bytes(data[: rng.integers(len(data))] if rng.random() < 0.2 else data)})
        try:
            everything(path)
        except FormatError:
            refused += 1
    assert refused > 20


def flipped(path: Path, content: bytes) -> Path:
    """The zip with one bit of a member's content changed behind the zip's back."""
    data = bytearray(path.read_bytes())
    data[data.index(content) + len(content) // 2] ^= 4
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", ["X.ome.tiff", "cells.json"])
def test_altered_members(tmp_path: Path, name: str) -> None:
    members = Sample().members()
    content = members[name].encode() if isinstance(members[name], str) else members[name]
    path = flipped(Sample().write(tmp_path / "p.zip", stored=tuple(members)), content)
    with pytest.raises(FormatError, match=name):
        everything(path)


def test_altered_pixels_without_compression(tmp_path: Path) -> None:
    members = Sample().members()
    out = io.BytesIO()
    tifffile.imwrite(out, Sample().X, ome=True, metadata={"axes": "CZYX"})
    members["X.ome.tiff"] = out.getvalue()
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    path = flipped(tmp_path / "p.zip", Sample().X.tobytes())
    with atlaswriter.open_export(path) as found:
        found.image(0, 0)  # one frame is not compared with the CRC of all
        with pytest.raises(ReadError, match="CRC") as caught:
            found.X  # noqa: B018
        assert caught.value.rule == "zip.crc"


def test_truncated_zips(tmp_path: Path) -> None:
    content = Sample().write(tmp_path / "whole.zip", stored=()).read_bytes()
    path = tmp_path / "p.zip"
    for size in (0, 3, 10, len(content) // 3, len(content) - 30, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(FormatError, match=r"p\.zip"):
            everything(path)
        assert not atlaswriter.check(path).ok


def test_hostile_zips(tmp_path: Path) -> None:
    path = damaged(tmp_path / "p.zip", Sample().members(), **{"../../evil": b"x"})
    with pytest.raises(FormatError, match="lead elsewhere"):
        atlaswriter.open_export(path)
    bomb = damaged(tmp_path / "p.zip", Sample().members(), **{"spots.csv": "x,y\n" + "1,1\n" * 100})
    data = bytearray(bomb.read_bytes())
    at = data.rindex(b"PK\1\2", 0, data.rindex(b"spots.csv"))
    data[at + 24 : at + 28] = (2**31).to_bytes(4, "little")  # said to be 2 GiB
    bomb.write_bytes(data)
    with pytest.raises(FormatError, match=r"spots\.csv"):
        atlaswriter.open_export(bomb)


def test_what_is_no_project(tmp_path: Path) -> None:
    for name, content in (("a.txt", b"text"), ("empty", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ReadError, match=r"Cellucid export.*LandscapeFiles.*DeepCell Label") as caught:
            atlaswriter.open_export(tmp_path / name)
        assert caught.value.rule == "file.format"
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr(".zgroup", "{}")
    with pytest.raises(ReadError, match=r"none of 'X.ome.tiff'"):
        detect.format_of(tmp_path / "other.zip")
    with pytest.raises(FormatError, match=r"does not exist.*DeepCell Label"):
        atlaswriter.open_export(tmp_path / "none")
    assert [one.rule for one in atlaswriter.check(tmp_path / "a.txt").findings] == ["file.format"]
    with pytest.raises(FormatError, match="is no zip file"):
        Project(tmp_path / "a.txt")
    with pytest.raises(FormatError):
        Project(tmp_path)


def test_options_of_other_formats(tmp_path: Path) -> None:
    path = Sample().write(tmp_path / "p.zip")
    with pytest.raises(InputError, match="segmentation: means nothing for deepcell files"):
        atlaswriter.open_export(path, segmentation="proseg")
    with pytest.raises(InputError, match="strict"):
        atlaswriter.check(path, strict=True)
    for option in ("px", "steps", "grey"):
        with pytest.raises(InputError, match=f"{option}: means nothing"):
            atlaswriter.diff(path, path, **{option: 1.0})


def test_info(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = Sample().write(tmp_path / "p.zip", "ZCYX", big=True, stored=("y.ome.tiff",))
    found = detect.summarise(path)
    expected = {
        "format": "deepcell",
        "n_frames": 3,
        "height": HEIGHT,
        "width": WIDTH,
        "channels": NAMES,
        "n_features": 2,
        "image_dtype": "uint16",
        "label_dtype": "int32",
        "n_cells": 4,
        "n_rows": len(Sample().cells),
        "n_divisions": 1,
        "cell_types": [
            {"name": "T cell", "feature": 0, "n_cells": 2},
            {"name": "B cell", "feature": 1, "n_cells": 1},
        ],
        "embeddings": [5, 2],
        "n_spots": 3,
        "page_order": {"X.ome.tiff": "ZCYX", "y.ome.tiff": "ZCYX"},
        "big_tiff": list(IMAGES),
        "zip64": [],
        "files": 7,
        "bytes": path.stat().st_size,
    }
    assert {name: found[name] for name in expected} == expected
    methods = {one["name"]: one["method"] for one in found["members"]}
    assert methods["X.ome.tiff"] == "deflate"
    assert methods["y.ome.tiff"] == "store"
    with zipfile.ZipFile(path) as archive:
        sizes = {one.filename: (one.file_size, one.compress_size) for one in archive.infolist()}
    assert {one["name"]: (one["bytes"], one["stored"]) for one in found["members"]} == sizes
    assert run(["info", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert run(["info", str(path)]) == 0
    text = capsys.readouterr().out
    assert "BigTIFF" in text
    assert "T cell (2 cells)" in text
    assert "X.ome.tiff ZCYX" in text


def test_info_of_little(tmp_path: Path) -> None:
    path = Sample(spots=None, embeddings=None, types=[]).write(tmp_path / "p.zip")
    found = detect.summarise(path)
    assert (found["n_spots"], found["embeddings"], found["cell_types"], found["big_tiff"]) == (None, None, [], [])
    assert found["page_order"] == {"X.ome.tiff": "CZYX", "y.ome.tiff": "CZYX"}
    assert "spots" in detect.as_text(found)
