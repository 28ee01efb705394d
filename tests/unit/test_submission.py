"""Submissions: everything that can be given as images and labels is read as it is meant, or refused by name."""

import functools
import http.server
import io
import itertools
import json
import os
import pickle
import random
import tarfile
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile

from atlaswriter.errors import AtlasWriterError, InputError
from atlaswriter.sources.contents import Contents, Part, contents, natural
from atlaswriter.sources.submission import OpenSubmission, Options

T, Y, X, C, F = 3, 12, 17, 2, 2
RNG = np.random.default_rng(0)
IMAGE = RNG.integers(0, 60_000, (T, Y, X, C), dtype=np.uint16)
MASKS = RNG.integers(0, 9, (T, Y, X, F), dtype=np.int32)
ONE, MASK = IMAGE[..., :1], MASKS[..., :1]
LINEAGE = {"1": {"label": 1, "frames": [0], "parent": None, "daughters": [], "frame_div": None, "capped": False}}
CELLS = [{"cell": 1, "value": 1, "t": 0, "c": 0}]
SPOTS = b"x,y\n1,2\n"


@pytest.fixture(autouse=True)
def no_thread_stays():
    yield
    assert [thread for thread in threading.enumerate() if thread.name.startswith("unpack")] == []


@pytest.fixture
def given(tmp_path):
    """Opens a submission; afterwards nothing is left."""
    opened = []
    scratch = tmp_path / "scratch"
    scratch.mkdir()

    def give(images, labels=None, **options):
        opened.append(OpenSubmission(images, labels, scratch=lambda: scratch, options=Options(**options)))
        return opened[-1].submission

    yield give
    for each in opened:
        each.verify()
        each.close()
    assert list(scratch.iterdir()) == []


def whole(movie):
    """(frames, rows, columns, channels) of a movie."""
    frames, channels, rows, _ = movie.stack.shape
    read = [movie.stack.read(frame, slice(0, channels), slice(0, rows)) for frame in range(frames)]
    return np.moveaxis(np.stack(read), 1, 3)


def equal(movie, expected):
    np.testing.assert_array_equal(whole(movie), expected)
    assert movie.stack.dtype == expected.dtype


def zcyx(array):
    return np.ascontiguousarray(np.moveaxis(array, 3, 1))


def czyx(array):
    return np.ascontiguousarray(np.moveaxis(array, 3, 0))


def npy(array, **options):
    content = io.BytesIO()
    np.save(content, array, **options)
    return content.getvalue()


def npz(save=np.savez, **arrays):
    content = io.BytesIO()
    save(content, **arrays)
    return content.getvalue()


def tiff(array, **options):
    content = io.BytesIO()
    tifffile.imwrite(content, array, **{"photometric": "minisblack", **options})
    return content.getvalue()


def ome(array, axes, names=()):
    metadata = {"axes": axes, **({"Channel": {"Name": list(names)}} if names else {})}
    return tiff(array, ome=True, compression="zlib", metadata=metadata)


def png(array):
    import imagecodecs

    return imagecodecs.png_encode(np.ascontiguousarray(array))


def zipped(members, method=zipfile.ZIP_DEFLATED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", method) as archive:
        for name, data in members.items() if isinstance(members, dict) else members:
            archive.writestr(name, data if isinstance(data, bytes) else json.dumps(data))
    return content.getvalue()


def trk(raw=ONE, tracked=MASK, lineage=LINEAGE, name="lineage.json", mode="w:gz"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for member, data in (
            (name, json.dumps(lineage).encode()),
            ("raw.npy", npy(raw)),
            ("tracked.npy", npy(tracked)),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return content.getvalue()


@pytest.fixture
def put(tmp_path):
    """Writes a file."""
    numbers = itertools.count()

    def write(content, suffix=""):
        path = tmp_path / f"file{next(numbers)}{suffix}"
        path.write_bytes(content)
        return path

    return write


BATCHES = [(f"movie_batch_{t}_feature_{f}.tiff", tiff(MASKS[t, :, :, f])) for f in range(F) for t in range(T)]


# --- images, and the segmentation that comes with them


PROJECT = {"cells.json": CELLS, "divisions.json": [], "cellTypes.json": [], "embeddings.json": None, "spots.csv": SPOTS}
WITH_LABELS = {
    "npz": lambda: npz(X=IMAGE, y=MASKS),
    "npz, y first": lambda: npz(y=MASKS, X=IMAGE),
    "npz, compressed": lambda: npz(np.savez_compressed, X=IMAGE, y=MASKS),
    "npz, other name": lambda: npz(first=IMAGE, y=MASKS),
    "zip with npz": lambda: zipped({"movie.npz": npz(X=IMAGE, y=MASKS)}),
    "zip with npz, stored": lambda: zipped({"a/movie.npz": npz(X=IMAGE, y=MASKS)}, zipfile.ZIP_STORED),
    "zip of npy": lambda: zipped({"y.npy": npy(MASKS), "X.npy": npy(IMAGE)}),
    "project ZCYX": lambda: zipped({"X.ome.tiff": ome(zcyx(IMAGE), "ZCYX"), "y.ome.tiff": ome(zcyx(MASKS), "ZCYX")}),
    "project CZYX": lambda: zipped({"X.ome.tiff": ome(czyx(IMAGE), "CZYX"), "y.ome.tiff": ome(czyx(MASKS), "CZYX")}),
    "project TCYX": lambda: zipped({"X.ome.tiff": ome(zcyx(IMAGE), "TCYX"), "y.ome.tiff": ome(zcyx(MASKS), "TCYX")}),
    "project in a folder": lambda: zipped(
        {
            "p/X.ome.tiff": ome(zcyx(IMAGE), "ZCYX"),
            "p/y.ome.tiff": ome(zcyx(MASKS), "ZCYX"),
            "__MACOSX/p/._X.ome.tiff": b"attributes",
        }
    ),
    "image and batches": lambda: zipped({"X.npy": npy(IMAGE), **dict(BATCHES)}),
}


@pytest.mark.parametrize("kind", WITH_LABELS)
def test_image_with_segmentation(put, given, kind):
    found = given(put(WITH_LABELS[kind]()))
    equal(found.images, IMAGE)
    equal(found.labels, MASKS)
    assert found.members == {}
    assert found.warnings == ()


IMAGES = {
    "npz X": (lambda: npz(X=IMAGE), None, IMAGE),
    "npz 3-D": (lambda: npz(X=IMAGE[..., 0]), None, ONE),
    "npy": (lambda: npy(IMAGE), None, IMAGE),
    "npy CTYX": (lambda: npy(czyx(IMAGE)), "CTYX", IMAGE),
    "tiff 2-D": (lambda: tiff(IMAGE[0, :, :, 0]), None, IMAGE[:1, :, :, :1]),
    "tiff ZYX": (lambda: tiff(IMAGE[..., 0]), "ZYX", ONE),
    "tiff CZYX": (lambda: tiff(czyx(IMAGE)), "CZYX", IMAGE),
    "png": (lambda: png(IMAGE[0, :, :, 0]), None, IMAGE[:1, :, :, :1]),
    "ome": (lambda: ome(zcyx(IMAGE), "TCYX"), None, IMAGE),
    "zip of a png": (lambda: zipped({"a.png": png(IMAGE[0, :, :, 0])}), None, IMAGE[:1, :, :, :1]),
    "zip of a tiff": (lambda: zipped({"a.tif": tiff(czyx(IMAGE))}), "CZYX", IMAGE),
    "zip of a npy": (lambda: zipped({"a.npy": npy(IMAGE)}), None, IMAGE),
    "zip, channels": (
        lambda: zipped([(f"ch{c}.tiff", tiff(IMAGE[:, :, :, c % 2])) for c in (10, 9, 11)]),
        "ZYX",
        IMAGE[..., [1, 0, 1]],
    ),
    "zip, channels, CZYX": (
        lambda: zipped([(f"ch{c}.tiff", tiff(IMAGE[:, :, :, c])) for c in (1, 0)]), "CZYX", IMAGE),
    "zip, channels, 2-D": (
        lambda: zipped([(f"ch{c}.png", png(IMAGE[0, :, :, c])) for c in (1, 0)]), None, IMAGE[:1]),
    "zip, channels, ZYX": (
        lambda: zipped([(f"ch{c}.tif", tiff(IMAGE[0, :, :, c])) for c in (1, 0)]), "ZYX", IMAGE[:1]),
    "project without y": (lambda: zipped({"X.ome.tiff": ome(czyx(IMAGE), "CZYX")}), None, IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("kind", IMAGES)
def test_image_alone_has_no_segmentation(put, given, kind):
    make, axes, expected = IMAGES[kind]
    found = given(put(make()), axes=axes)
    equal(found.images, expected)
    assert found.labels is None
    assert found.warnings == ()


@pytest.mark.parametrize("mode", ["w", "w:gz"])
def test_tracking_archives(put, given, mode):
    for content in (trk(mode=mode), trk(ONE[None], MASK[None], [LINEAGE], "lineages.json", mode)):
        found = given(put(content, ".trk"))
        equal(found.images, ONE)
        equal(found.labels, MASK)
        ((name, (where, member)),) = found.members.items()
        assert name == "lineage.json"
        assert "lineage" in where
        assert json.loads(member) == LINEAGE


def test_tracking_archive_of_several_movies(put, given):
    for lineages, text in (([LINEAGE] * 3, "tells of 3 movies"), (LINEAGE, "no list of"), ([], "0 movies")):
        with pytest.raises(InputError, match=rf"lineages\.json: .*{text}"):
            given(put(trk(ONE[None], MASK[None], lineages, "lineages.json")))


def test_names_and_members_of_a_project(put, given):
    images = {"X.ome.tiff": ome(zcyx(IMAGE), "ZCYX", ["DAPI", "a & b"]), **PROJECT, "channels.json": ["a", "b"]}
    path = put(zipped(images))
    found = given(path)
    assert found.images.names == ("DAPI", "a & b")
    assert {name: content for name, (_, content) in found.members.items()} == {
        name: content if isinstance(content, bytes) else json.dumps(content).encode()
        for name, content in PROJECT.items()
    }
    assert found.members["cells.json"][0] == f"{path}: cells.json"
    assert found.warnings == ()


def test_arrays_in_memory(given):
    import dask.array as da

    for make in (np.asarray, functools.partial(da.from_array, chunks=(1, 5, 9, 1))):
        found = given(make(IMAGE), make(MASKS))
        equal(found.images, IMAGE)
        equal(found.labels, MASKS)
    found = given(czyx(IMAGE), czyx(MASKS), axes="CTYX", label_axes="CTYX")
    equal(found.images, IMAGE)
    equal(found.labels, MASKS)


def test_zarr(tmp_path, given):
    import zarr

    options = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
    for name, array in (("X.zarr", IMAGE), ("y.zarr", MASKS)):
        store = zarr.open_array(str(tmp_path / name), mode="w", shape=array.shape, dtype=array.dtype, **options)
        store[...] = array
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            for path in sorted((tmp_path / name).rglob("*")):
                if path.is_file():
                    archive.write(path, path.relative_to(tmp_path / name))
    for suffix in ("", ".zip"):
        found = given(str(tmp_path / f"X.zarr{suffix}"), tmp_path / f"y.zarr{suffix}")
        equal(found.images, IMAGE)
        equal(found.labels, MASKS)
    found = given(zarr.open_array(str(tmp_path / "X.zarr"), mode="r"))
    equal(found.images, IMAGE)


def test_lists_are_frames(put, given):
    paths = [put(tiff(IMAGE[t, :, :, 0]), ".tif") for t in range(T)]
    masks = [MASKS[t, :, :, 0] for t in range(T)]
    found = given([str(path) for path in paths], masks)
    equal(found.images, ONE)
    equal(found.labels, MASK)
    for axes in ("TYX", "YX"):
        equal(given(paths, axes=axes).images, ONE)
    colours = [put(tiff(IMAGE[t]), ".tif") for t in range(T)]
    for axes in ("TYXC", "YXC"):
        equal(given(colours, axes=axes).images, IMAGE)
    equal(given(paths, axes="CYX").images, np.moveaxis(IMAGE[..., 0], 0, 2)[np.newaxis])
    channels = [put(npy(IMAGE[..., c]), ".npy") for c in range(C)]
    equal(given(channels, axes="CTYX").images, IMAGE)


def test_folders(tmp_path, given):
    frames = tmp_path / "frames"
    frames.mkdir()
    for t in range(11):
        (frames / f"t{t}.tif").write_bytes(tiff(IMAGE[t % T, :, :, 0]))
    (frames / ".hidden").write_bytes(b"")
    equal(given(frames).images, ONE[np.arange(11) % T])
    project = tmp_path / "project"
    project.mkdir()
    (project / "X.ome.tiff").write_bytes(ome(zcyx(IMAGE), "ZCYX"))
    for name, content in BATCHES:
        (project / name).write_bytes(content)
    (project / "cells.json").write_text("[]")
    found = given(project)
    equal(found.images, IMAGE)
    equal(found.labels, MASKS)
    assert found.members["cells.json"][1] == b"[]"
    equal(given(IMAGE, project).labels, MASKS)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="has no image: it holds no files"):
        given(empty)


# --- labels


LABELS = {
    "npz y": (lambda: npz(y=MASKS), MASKS),
    "npz X and y": (lambda: npz(X=IMAGE, y=MASKS), MASKS),
    "npz X and other": (lambda: npz(X=IMAGE, masks=MASKS), MASKS),
    "npz other": (lambda: npz(arr_0=MASKS), MASKS),
    "npy": (lambda: npy(MASKS), MASKS),
    "npy 3-D": (lambda: npy(MASKS[..., 0]), MASK),
    "npy CTYX": (lambda: npy(czyx(MASKS)), MASKS),
    "tiff": (lambda: tiff(MASKS[..., 0]), MASK),
    "trk": (trk, MASK),
    "trk, plain": (lambda: trk(mode="w"), MASK),
    "trks": (lambda: trk(ONE[None], MASK[None], [LINEAGE], "lineages.json"), MASK),
    "zip y.npy": (lambda: zipped({"y.npy": npy(MASKS)}), MASKS),
    "zip any npy": (lambda: zipped({"segmentation.npy": npy(MASKS)}), MASKS),
    "zip npz": (lambda: zipped({"a.npz": npz(X=IMAGE, y=MASKS)}), MASKS),
    "zip npz, first": (lambda: zipped({"a.npz": npz(arr_0=MASKS)}), MASKS),
    "zip tiff": (lambda: zipped({"mask.tiff": tiff(MASKS[..., 0])}), MASK),
    "zip y.ome.tiff": (lambda: zipped({"y.ome.tiff": ome(zcyx(MASKS), "ZCYX")}), MASKS),
    "zip X and y": (
        lambda: zipped({"X.ome.tiff": ome(zcyx(IMAGE), "ZCYX"), "y.ome.tiff": ome(zcyx(MASKS), "TCYX")}),
        MASKS,
    ),
    "zip by feature": (lambda: zipped(BATCHES), MASKS),
    "zip by batch": (lambda: zipped(sorted(BATCHES)), MASKS),
    "zip shuffled": (lambda: zipped(random.Random(1).sample(BATCHES, len(BATCHES)), zipfile.ZIP_STORED), MASKS),
    "zip from 1": (
        lambda: zipped(
            [(f"batch_{t + 1}_feature_{f + 1}.tif", tiff(MASKS[t, :, :, f])) for t in range(T) for f in range(F)]
        ),
        MASKS,
    ),
    "zip, features": (
        lambda: zipped([(f"feature_{f}.tif", tiff(MASKS[:, :, :, f % F])) for f in (1, 0, 10)]),
        MASKS[..., [0, 1, 0]],
    ),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels(put, given, kind):
    make, expected = LABELS[kind]
    found = given(IMAGE, put(make()))
    equal(found.images, IMAGE)
    equal(found.labels, expected)
    assert found.warnings == ()


def test_labels_of_one_frame(put, given):
    image, masks = IMAGE[:1], MASKS[:1]
    for content in (
        npy(masks[0]),
        npy(masks[0].transpose(2, 0, 1)),
        zipped([(f"{f}.png", png(masks[0, :, :, f].astype("u1"))) for f in range(F)]),
    ):
        np.testing.assert_array_equal(whole(given(image, put(content)).labels), masks)


def test_many_files_of_batches(put, given):
    """More than may be open at a time."""
    frames, features = 60, 6
    masks = RNG.integers(0, 9, (frames, 4, 5, features), dtype=np.int32)
    names = {f"batch_{t}_feature_{f}.tiff": tiff(masks[t, :, :, f]) for t in range(frames) for f in range(features)}
    folder = Path("/proc/self/fd")
    before = len(os.listdir(folder)) if folder.is_dir() else 0
    found = given(np.zeros((frames, 4, 5, 1), np.uint8), put(zipped(names)))
    equal(found.labels, masks)
    if before:
        assert len(os.listdir(folder)) < before + 100


def test_members_of_labels(put, given):
    labels = {"y.npy": npy(MASKS), "lineage.json": LINEAGE, "divisions.json": [], "the spots.csv": SPOTS}
    found = given(IMAGE, put(zipped(labels)))
    assert set(found.members) == {"lineage.json", "divisions.json", "spots.csv"}
    assert found.members["spots.csv"][1] == SPOTS
    assert found.members["spots.csv"][0].endswith(": the spots.csv")


def test_labels_may_be_only_about_cells(put, given):
    project = zipped({"X.npy": npy(IMAGE), "y.npy": npy(MASKS), "cells.json": [], "divisions.json": [1]})
    found = given(put(project), put(zipped({"cells.json": CELLS, "spots.csv": SPOTS})))
    equal(found.labels, MASKS)
    assert {name: content for name, (_, content) in found.members.items()} == {
        "cells.json": json.dumps(CELLS).encode(), "divisions.json": b"[1]", "spots.csv": SPOTS,
    }  # fmt: skip
    found = given(IMAGE, put(zipped({"lineage.json": LINEAGE})))
    assert found.labels is None
    assert set(found.members) == {"lineage.json"}


def test_another_segmentation_than_that_of_the_project(put, given):
    project = zipped({"X.npy": npy(IMAGE), "y.npy": npy(MASKS * 0), "cells.json": CELLS, "spots.csv": SPOTS})
    found = given(put(project), MASKS)
    equal(found.labels, MASKS)
    assert set(found.members) == {"spots.csv"}
    assert len(found.warnings) == 1
    assert "'cells.json' not used: about another segmentation" in found.warnings[0]


def test_left_out_with_a_warning(put, given):
    found = given(put(zipped({"X.npy": npy(IMAGE), "a.tif": b"", "b.npy": b"", "notes.txt": b"", ".DS_Store": b""})))
    assert [text.partition(": ")[2] for text in found.warnings] == ["'a.tif', 'b.npy', 'notes.txt' not used"]
    found = given(IMAGE, put(npz(y=MASKS, other=MASKS)))
    assert [text.partition(": ")[2] for text in found.warnings] == ["'other.npy' not used"]
    found = given(IMAGE, put(zipped({"y.npy": npy(MASKS), "a.csv": b"", "b.csv": b""})))
    assert "'a.csv', 'b.csv' not used" in found.warnings[0]


# --- what is refused


REFUSED_IMAGES = {
    "nothing": (lambda: zipped({}), "has no image: it holds no files → give one of TIFF"),
    "no arrays": (lambda: zipped({"a.txt": b""}), r"has no image: it holds 'a\.txt'"),
    "only labels": (lambda: npz(y=MASKS), r"has no image: it holds 'y\.npy'"),
    "only batches": (lambda: zipped(BATCHES), "has no image: it holds 'movie_batch_0_feature_0"),
    "two npz": (lambda: zipped({"a.npz": b"", "b.npz": b""}), r"may be made of any of 'a\.npz', 'b\.npz'"),
    "kinds": (lambda: zipped({"a.npz": b"", "b.tif": b""}), "may be made of any of"),
    "two X": (lambda: zipped({"X.npy": b"", "X.ome.tiff": b""}), r"has 'X\.npy', 'X\.ome\.tiff' → keep one"),
    "export": (lambda: zipped({"dimensions.json": {}, "raw.dat": b""}), "is an export request.*deepcell-export"),
    "edit": (lambda: zipped({"edit.json": {}, "labeled.dat": b""}), "is an edit request"),
    "npz that is none": (lambda: zipped({"a.npz": b"nothing"}), r"a\.npz: is no \.npz file"),
    "npz without arrays": (lambda: zipped({"a.npz": zipped({"b.txt": b""})}), "has no image"),
    "damaged npz": (lambda: npz(np.savez_compressed, X=IMAGE)[:-40], "cannot be read from"),
    "damaged trk": (lambda: trk()[:-500], "cut short|cannot be read"),
    "no image at all": (lambda: b"text", "is no image"),
    "empty file": (lambda: b"", "is no image|cannot be read"),
    "pickle": (lambda: npz(X=np.array([[{}, 1]], object)), "X"),
    "pickled file": (lambda: pickle.dumps(1), "is no image"),
    "damaged npy": (lambda: zipped({"X.npy": npy(IMAGE)[:-100]}), r"X\.npy"),
    "names that lead elsewhere": (lambda: zipped({"../X.npy": npy(IMAGE)}), "names lead elsewhere"),
    "5-D": (lambda: npz(X=IMAGE[None]), "5 dimensions"),
}


@pytest.mark.parametrize("kind", REFUSED_IMAGES)
def test_refused_images(put, given, kind):
    make, text = REFUSED_IMAGES[kind]
    path = put(make())
    with pytest.raises(InputError, match=text) as refused:
        given(path)
    assert str(path) in str(refused.value)


REFUSED_LABELS = {
    "nothing": (lambda: zipped({}), "has no segmentation, nor anything about cells: it holds no files"),
    "only X": (lambda: zipped({"X.ome.tiff": ome(zcyx(IMAGE), "ZCYX")}), r"has no segmentation.*'X\.ome\.tiff'"),
    "only X, npz": (lambda: npz(X=IMAGE), "has no segmentation"),
    "two y": (lambda: zipped({"y.npy": b"", "y.ome.tiff": b""}), "keep one of them"),
    "mixed": (lambda: zipped({**dict(BATCHES), "a.tif": b""}), r"named by batch and feature beside 'a\.tif'"),
    "one missing": (lambda: zipped(BATCHES[:-1]), "lacks .*'frame 2 channel 1'"),
    "most missing": (
        lambda: zipped({f"batch_{n}_feature_{n}.tif": tiff(MASK[0, :, :, 0]) for n in range(9)}),
        "has 9 files for 9 batches of 9 features",
    ),
    "twice": (lambda: zipped({"a_batch_0_feature_0.tif": b"", "b_batch_0_feature_0.tif": b""}), "two files of one"),
    "other frames": (
        lambda: npy(MASKS[:2]),
        rf"has 2 frames of {Y} × {X} pixels \(axes TYXC\), the image images {T} frames of {Y} × {X} pixels",
    ),
    "other rows": (lambda: npy(MASKS[:, 1:]), rf"has 3 frames of {Y - 1} × {X} pixels"),
    "other rows, one": (lambda: zipped({"a.tif": tiff(MASKS[:, 1:, :, 0])}), rf"has 3 frames of {Y - 1} × {X} pixels"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED_LABELS)
def test_refused_labels(put, given, kind):
    make, text = REFUSED_LABELS[kind]
    with pytest.raises(InputError, match=text):
        given(IMAGE, put(make()))


def test_everything_wrong_is_told_at_once(put, given, tmp_path):
    with pytest.raises(InputError) as refused:
        given(tmp_path / "missing.tif", put(zipped({"a.txt": b""})))
    assert [problem.found.split(" (")[0] for problem in refused.value.problems] == [
        "cannot be read", "has no segmentation, nor anything about cells: it holds 'a.txt'",
    ]  # fmt: skip
    with pytest.raises(InputError, match="2 problems"):
        given([tmp_path / "a.tif", tmp_path / "b.tif"], [put(b"nothing")])


@pytest.mark.parametrize(
    "source", [[], 3, object(), {"X": IMAGE}, b"path"], ids=["list", "int", "object", "dict", "bytes"]
)
def test_what_cannot_be_given(given, source):
    for role in ({"images": source}, {"images": IMAGE, "labels": source}):
        with pytest.raises(InputError, match=r"images|labels"):
            given(**role)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no such thing here")
def test_special_files(tmp_path, given):
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", [tmp_path / "pipe"]):
        with pytest.raises(InputError, match="is neither a file nor a folder"):
            given(source)


def test_damage_found_late(put, tmp_path):
    """The image was read before its last bytes were known to be wrong."""
    content = bytearray(zipped({"X.npy": npy(IMAGE), "y.npy": npy(MASKS)}, zipfile.ZIP_STORED))
    content[1000] ^= 1
    with OpenSubmission(put(bytes(content)), scratch=lambda: tmp_path) as opened:
        with pytest.raises(AssertionError):
            equal(opened.submission.images, IMAGE)
        with pytest.raises(InputError, match=r"X\.npy: has the CRC"):
            opened.verify()


# --- addresses


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "web"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder)) as made:
        made.daemon_threads = False
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


def test_addresses(server, given):
    folder, url = server
    (folder / "movie").write_bytes(npz(X=IMAGE))
    (folder / "masks").write_bytes(zipped(BATCHES))
    (folder / "frame").write_bytes(tiff(IMAGE[0, :, :, 0]))
    told = []
    found = given(f"{url}/movie?key=hidden", f"{url}/masks", progress=lambda *each: told.append(each))
    equal(found.images, IMAGE)
    equal(found.labels, MASKS)
    assert len({whole for _, whole in told}) == 2
    equal(given([f"{url}/frame", IMAGE[1, :, :, 0]]).images, ONE[:2])
    with pytest.raises(InputError, match="2 problems") as refused:
        given(f"{url}/none?key=hidden", f"{url}/movie", limit=1000)
    assert [problem.where for problem in refused.value.problems] == [f"{url}/none", f"{url}/movie"]
    assert "404" in str(refused.value)
    assert "more than the 1000 B allowed" in str(refused.value)


# --- names


def test_contents():
    assert contents(["a/X.ome.tiff", "a/y.ome.tiff"], "images", "w") == Contents(
        Part(("a/X.ome.tiff",)), Part(("a/y.ome.tiff",))
    )
    assert contents(["b.npy", "a.npy"], "images", "w") == Contents(Part(("b.npy",)), unused=("a.npy",))
    assert contents(["t10.tif", "t9.tif"], "images", "w", "frames").images == Part(("t9.tif", "t10.tif"), "frames")
    assert contents(["X.npz", "y.npz"], "labels", "w") == Contents(None, Part(("y.npz",), "npz"))
    found = contents(["p/a/x.npy", "p/a/s.csv", "p/a/cells.json"], "labels", "w")
    assert found.members == {"spots.csv": "p/a/s.csv", "cells.json": "p/a/cells.json"}
    grid = contents(["B_batch_007_feature_1.TIF", "b_batch_7_feature_0.ome.tiff"], "labels", "w").labels
    assert (grid.how, grid.places) == ("grid", ((7, 1), (7, 0)))


def test_contents_of_many_files():
    """Time grows with their number, not its square."""
    names = [f"p/movie_batch_{n}_feature_0.tiff" for n in range(50_000)] + [f"p/{n}.txt" for n in range(50_000)]
    found = contents(names, "labels", "w")
    assert (len(found.labels.names), len(found.unused)) == (50_000, 50_000)


def test_natural_order():
    names = ["a10b2", "a9", "a10b10", "a09", "a", "1", "²3"]
    assert sorted(names, key=natural) == ["1", "a", "a09", "a9", "a10b2", "a10b10", "²3"]


def test_any_byte_may_be_wrong(tmp_path):
    """Whatever is damaged, only errors of ours come, and nothing is left."""
    whole_files = [WITH_LABELS["npz, compressed"](), WITH_LABELS["project ZCYX"](), trk(), zipped(BATCHES)]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    rng = random.Random(3)
    for content in whole_files:
        for _ in range(40):
            wrong = bytearray(content)
            for _ in range(rng.choice([1, 1, 4])):
                wrong[rng.randrange(len(wrong))] = rng.randrange(256)
            (tmp_path / "a").write_bytes(wrong)
            try:
                with OpenSubmission(IMAGE, tmp_path / "a", scratch=lambda: scratch) as opened:
                    if opened.submission.labels:
                        whole(opened.submission.labels)
                    opened.verify()
            except AtlasWriterError:
                pass
            assert list(scratch.iterdir()) == []
