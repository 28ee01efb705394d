"""Bad images, labels, tables, archives and requests: refused with what, where and what to do, the target as it was."""

import errno
import functools
import http.server
import io
import json
import os
import pickle
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
import tifffile
from tests.deepcell_inputs import (
    lineage,
    npy,
    npz,
    ome,
    png,
    project,
    request,
    tiff,
    tracked,
    trk,
    zarr_store,
    zipped,
)
from tests.deepcell_truth import read_project, truth

import atlaswriter as aw
from atlaswriter.cli.main import run
from atlaswriter.errors import AtlasWriterError, BudgetError, InputError, OutputError
from atlaswriter.formats.deepcell import images as writing
from atlaswriter.formats.deepcell import survey
from atlaswriter.sinks import fs

IMAGE = np.arange(3 * 20 * 30, dtype=np.uint16).reshape(3, 20, 30)
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX only")


def masks(frames=3):
    """Cell 1 in all frames; cell 2 divides into 3 and 4 in the last."""
    y = np.zeros((frames, 20, 30), np.int32)
    y[:, 2:6, 2:6] = 1
    y[:-1, 10:15, 2:12] = 2
    y[-1, 10:15, 2:6] = 3
    y[-1, 10:15, 8:12] = 4
    return y


def cells():
    y = masks()
    return [{"cell": value, "value": value, "t": t, "c": 0} for t in range(3) for value in np.unique(y[t])[1:].tolist()]


@pytest.fixture
def target(request, tmp_path):
    """Where a project goes, over an older one unless a test says otherwise; what is there must be there afterwards."""
    folder = tmp_path / "projects"
    folder.mkdir()
    if getattr(request, "param", "") != "new":
        aw.deepcell(np.eye(9, dtype=np.uint8), folder / "out.zip", progress=False)
    return folder / "out.zip"


@pytest.fixture
def out(tmp_path):
    return tmp_path / "out.zip"


@pytest.fixture
def put(tmp_path):
    """Writes an input; its path."""

    def write(content, name="given"):
        (tmp_path / "in").mkdir(exist_ok=True)
        path = tmp_path / "in" / name
        path.write_bytes(content)
        return path

    return write


def state(folder):
    """Every file with its content and time, and every folder."""
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, path.read_bytes()) if path.is_file() else None
        for path in folder.rglob("*")
    }


def own_threads():
    """Number of threads but those that zarr starts once and keeps."""
    return sum(not thread.name.startswith(("zarr", "asyncio")) for thread in threading.enumerate())


def refused(target, *texts, error=InputError, write=aw.deepcell, **given):
    """A project is refused with all of these words; nothing changes, no thread is left."""
    before, threads = state(target.parent), own_threads()
    options = {"progress": False, "force": True, **given}
    with pytest.raises(error) as caught:
        write(options.pop("images"), target, **options) if "images" in given else write(out=target, **options)
    message = str(caught.value)
    for text in texts:
        assert text in message
    for problem in getattr(caught.value, "problems", ()):
        assert problem.where
        assert problem.found
        assert problem.remedy, message
    assert state(target.parent) == before
    assert own_threads() <= threads
    return message


# ---------------------------------------------------------------- pixels and labels


@pytest.mark.parametrize(
    ("labels", "texts"),
    [
        (masks(2), ["2 frames of 20 × 30", "3 frames of 20 × 30"]),
        (masks()[:, 1:], ["19 × 30"]),
        (masks()[:, :, 1:], ["20 × 29"]),
        (masks().transpose(0, 2, 1), ["30 × 20"]),
        (masks().astype(np.float32), ["labels", "float32", "int32"]),
        (masks().astype(np.float64) + 0.5, ["float64"]),
        (masks().astype(np.complex64), ["complex64"]),
        (masks() - 1, ["3 values are negative", "-1 in frame 0, feature 0", "-1 in frame 2"]),
        (masks().astype(np.int64) - 2**31, ["-2147483648", "32 bits"]),
        (masks().astype(np.int64) * 2**31, ["labels", "32 bits"]),
        (masks().astype(np.uint64) * 2**62, ["32 bits"]),
        (masks().astype(np.uint32) + 2**31, ["labels", "2147483650", "32 bits"]),
        (np.zeros((3, 0, 30), np.int32), ["is empty"]),
        (np.zeros((3, 20, 30), "datetime64[s]"), ["datetime64"]),
        (np.ma.masked_less(masks(), 2), ["masked array", "filled()"]),
    ],
)
def test_labels_that_are_none(labels, texts, target, put):
    refused(target, *texts, images=IMAGE, labels=labels)
    if not isinstance(labels, np.ma.MaskedArray) and labels.dtype.kind != "M":
        path = put(zipped({"y.npy": npy(labels)}))
        refused(target, *texts[1:], str(path), images=IMAGE, labels=path)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_as_labels(workers, target):
    """Found after a million different values, not after all of them."""
    numbers = np.random.default_rng(0).permutation(1100 * 1100).astype(np.int32).reshape(1100, 1100)
    pixels = np.zeros((1100, 1100), np.uint8)
    refused(target, "1,048,576 different values", "exchanged", images=pixels, labels=numbers, workers=workers)


@pytest.mark.parametrize(
    ("shape", "options", "texts"),
    [
        ((9,), {}, ["1 dimensions"]),
        ((2, 3, 4, 20, 30), {}, ["5 dimensions", "2 × 3 × 4 × 20 × 30", "tell the order"]),
        ((2, 3, 4, 20, 30), {"axes": "TZCYX"}, ["time lapse of stacks", "T (2) and Z (3)", "one plane of each"]),
        ((2, 3, 4, 20, 30), {"axes": "TCSYX"}, ["channels along two axes", "C (3) and S (4)"]),
        ((20, 30, 3), {}, ["or 20 narrow frames", "axes='YXC'"]),
        ((20, 30, 4), {}, ["or 20 narrow frames", "axes='TYX'"]),
        ((3, 5, 20, 30), {}, ["30 channels", "axes='TCYX'"]),
        ((3, 20, 30), {"axes": "TYXC"}, ["fit in several ways", "3 × 20 × 30"]),
        ((3, 20, 30), {"axes": "YX"}, ["do not fit"]),
        ((3, 20, 30), {"axes": "QYX"}, ["unknown letter 'Q'"]),
        ((3, 20, 30), {"axes": "TTYX"}, ["letter twice"]),
        ((3, 20, 30), {"axes": "TCZ"}, ["lack X or Y"]),
        ((3, 20, 30), {"axes": ""}, ["are no axes"]),
        ((3, 20, 30), {"axes": "T?Y?X"}, ["are no axes"]),
        ((3, 20, 30), {"axes": 3}, ["are no axes"]),
        ((3, 20, 30), {"axes": "ÄYX"}, ["are no axes"]),
        ((0, 20, 30), {}, ["is empty"]),
        ((3, 20, 0), {}, ["is empty"]),
    ],
)
def test_dimensions_that_cannot_be(shape, options, texts, target, put):
    pixels = np.zeros(shape, np.uint8)
    refused(target, *texts, images=pixels, **options)
    refused(target, *texts, images=put(npy(pixels)), **options)


@pytest.mark.parametrize("axes", ["TZCYX", "CZTYX"])
def test_stacks_over_time_have_no_place(axes, target, put):
    sizes = {"T": 2, "Z": 3, "C": 2, "Y": 20, "X": 30}
    movie = np.zeros([sizes[axis] for axis in axes], np.uint8)
    path = put(tiff(movie, ome=True, metadata={"axes": axes}), "stack.ome.tif")
    refused(target, "stack.ome.tif", "time lapse of stacks", "T (2)", "Z (3)", images=path)


@pytest.mark.parametrize(
    ("axes", "told"), [("ome", "CTYX"), ("ome", "TYX"), ("imagej", "CYX"), ("zarr", "CTYX"), ("png", "TYX")]
)
def test_axes_that_contradict_the_file(axes, told, target, put, tmp_path):
    movie = np.zeros((2, 3, 20, 30), np.uint8)
    if axes == "ome":
        path = put(tiff(movie, ome=True, metadata={"axes": "TCYX"}), "a.ome.tif")
    elif axes == "imagej":
        path = put(tiff(movie[:, 0], imagej=True, metadata={"axes": "TYX"}), "a.tif")
    elif axes == "png":
        path = put(png(np.zeros((20, 30, 3), np.uint8)), "a.png")
    else:
        path = zarr_store(movie, 2, "TCYX")(tmp_path / "a.zarr")
    message = refused(target, path.name, told, images=path, axes=told)
    assert "the file says" in message or "is said to have" in message or "do not fit" in message


@pytest.mark.parametrize("dtype", ["int64", "uint64", "float16", "bool"])
def test_pixels_that_the_client_cannot_read(dtype, target, out):
    pixels = (np.arange(600).reshape(20, 30) % 2).astype(dtype)
    refused(target, "images", dtype, "uint8", images=pixels, image_dtype="keep")
    aw.deepcell(pixels, out, progress=False)
    assert (read_project(out).X[0, :, :, 0] == 255 * pixels.astype(int)).all()


@pytest.mark.parametrize("dtype", ["complex64", "longdouble", "U3", "object", "datetime64[s]", "i4,i4"])
def test_pixels_that_are_none(dtype, target):
    for options in ({}, {"image_dtype": "keep"}):
        refused(target, "images", "pixels of dtype", images=np.zeros((20, 30), dtype), **options)


@pytest.mark.parametrize(
    "image", [3, None, "", b"a", object(), [], {"X": IMAGE}, [[1, 2], [3, 4]], "a\0b", "nowhere.tif"]
)
def test_images_that_are_none(image, target):
    refused(target, images=image)
    if image is not None:
        refused(target, images=IMAGE, labels=image)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 30), (20, 1), (1, 5000), (5000, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize("keep", ["keep", "uint8"])
def test_thin_images_are_written(height, width, keep, out):
    movie = np.arange(2 * height * width, dtype=np.uint16).reshape(2, height, width)
    labels = (movie % 3).astype(np.int32)
    aw.deepcell(movie, out, labels, image_dtype=keep, progress=False, axes="TYX", label_axes="TYX")
    found = read_project(out)
    assert (found.y[..., 0] == labels).all()
    if keep == "keep":
        assert (found.X[..., 0] == movie).all()
    assert aw.check(out).ok, aw.check(out)


def test_pixels_that_are_no_numbers(out):
    """The extremes are those of the others."""
    movie = np.full((2, 20, 30), np.nan, np.float32)
    movie[0, 0, :4] = np.inf, -np.inf, 5, 10
    report = aw.deepcell(np.stack([movie, np.full_like(movie, np.nan)], 3), out, axes="TYXC", progress=False)
    found = read_project(out).X
    assert found[0, 0, :4, 0].tolist() == [255, 0, 0, 255]
    assert not found[..., 1].any()
    assert any("not finite" in text or "no number" in text for text in report.warnings), report.warnings


# ---------------------------------------------------------------- options and names


NASTY = "a\x00b\x1f\"c' & <d>\n\ud800\ufffe]]>é𝄞"


@posix
def test_nasty_names_of_channels(out):
    names = [NASTY, "", "\n", "488", "true", "&amp;", "x" * 5000]
    movie = np.zeros((2, 20, 30, len(names)), np.uint8)
    aw.deepcell(movie, out, channel_names=names, progress=False)
    with zipfile.ZipFile(out) as archive, tifffile.TiffFile(io.BytesIO(archive.read("X.ome.tiff"))) as file:
        assert file.series[0].shape == (len(names), 2, 20, 30)
    found = read_project(out).names
    assert "é𝄞" in found[0]
    assert "& <d>" in found[0]
    assert found[3:6] == names[3:6]
    assert aw.open_export(out).channels


@pytest.mark.parametrize("names", [["a"], ["a"] * 3, [], "ab", b"ab", 3, ["a", 3], {"a": 1, "b": 2}])
def test_names_that_do_not_fit(names, target):
    message = refused(target, "channel_names", images=np.zeros((2, 20, 30, 2), np.uint8), channel_names=names)
    assert "names for 2 channels" in message or "is not a list of names" in message


def test_all_wrong_options_are_named_at_once(target):
    options = {
        "axes": "Y", "label_axes": 1, "image_dtype": "int8", "preview": 2, "download_limit": "much", "timeout": 0,
        "channel_names": "a", "workers": 0, "memory_budget": "some", "spill_dir": "/nowhere",
    }  # fmt: skip
    with pytest.raises(InputError) as caught:
        aw.deepcell(IMAGE, target, **options)
    assert {problem.where for problem in caught.value.problems} >= set(options)


def test_out_among_the_inputs(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for t in range(2):
        (folder / f"{t}.tif").write_bytes(tiff(IMAGE[t]))
    for out in (folder / "0.tif", folder / "out.zip", folder / "sub" / "out.zip", folder):
        before = state(tmp_path)
        with pytest.raises(InputError, match=r"lies inside of, the input|is a folder"):
            aw.deepcell(folder, out, force=True)
        with pytest.raises(InputError, match=r"lies inside of, the input|is a folder"):
            aw.deepcell(IMAGE[0], out, folder, force=True)
        assert state(tmp_path) == before
    with pytest.raises(InputError, match="lies inside of, the input"):
        aw.deepcell([folder / "0.tif", folder / "1.tif"], folder / "1.tif", force=True)


# ---------------------------------------------------------------- files


def whole_files(m):
    """One of each kind, by name."""
    return {
        "a.tif": tiff(m.X[..., 0], compression="zlib"),
        "a.ome.tif": ome(m.X, "TCYX", m.names),
        "a.npy": npy(m.X),
        "a.npz": npz(X=m.X, y=m.y),
        "b.npz": npz(np.savez_compressed, X=m.X, y=m.y),
        "a.trk": tracked(m, "w:gz"),
        "b.trk": tracked(m, "w"),
        "a.png": png(m.X[0, :, :, 0]),
        "project.zip": project(m, "CZYX"),
        "stored.zip": project(m, "ZCYX", zipfile.ZIP_STORED),
        "request.zip": request(m),
    }


def convert(path, out, **options):
    write = aw.deepcell_export if path.name == "request.zip" else aw.deepcell
    return write(path, out, force=True, progress=False, **options)


new_and_old = pytest.mark.parametrize("target", ["new", "over an older one"], indirect=True)
KINDS = tuple(whole_files(truth()))


@new_and_old
@pytest.mark.parametrize("name", KINDS)
def test_cut_short_anywhere(name, target, put):
    """What is not refused lacks nothing: only what follows the end of a PNG or tar file may be missing."""
    content = whole_files(truth())[name]
    before = state(target.parent)
    size = len(content)
    places = {*range(0, 60, 7), *range(60, size, size // 40), *range(size - 30, size, 3)}
    expected = target.parents[1] / "expected.zip"
    convert(put(content, name), expected)
    for at in sorted(places):
        try:
            convert(put(content[:at], name), target)
        except InputError as error:
            told = str(error)
            assert name in told
            assert state(target.parent) == before
        else:
            assert name.endswith((".png", ".trk"))
            assert target.read_bytes() == expected.read_bytes()
            before = state(target.parent)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("name", KINDS)
def test_any_byte_may_be_wrong(name, workers, tmp_path, put):
    """Refused, or a complete project; what has checksums is never taken with other pixels or tables."""
    content, rng = whole_files(truth())[name], random.Random(name)
    out = tmp_path / "projects" / "out.zip"
    out.parent.mkdir()
    convert(put(content, name), out, workers=workers)
    whole = out.read_bytes()
    threads = own_threads()
    for _ in range(40):
        wrong = bytearray(content)
        for _ in range(rng.choice([1, 1, 4])):
            near = rng.choice([60, 400, len(wrong)])
            place = rng.randrange(near) if rng.random() < 0.5 else -1 - rng.randrange(near)
            wrong[place % len(wrong)] ^= 1 << rng.randrange(8)
        before = out.read_bytes()
        try:
            convert(put(wrong, name), out, workers=workers)
        except AtlasWriterError as error:
            told = str(error)
            assert name in told
            assert out.read_bytes() == before
        else:
            with zipfile.ZipFile(out) as archive:
                assert archive.testzip() is None
            if name.endswith((".zip", ".npz", ".png")) and name != "a.png":
                assert out.read_bytes() == whole
        assert os.listdir(out.parent) == ["out.zip"]
        assert own_threads() <= threads


def test_a_damaged_name_makes_no_other_file_of_a_member(target, put):
    """In the list of members only, and of members that would then be left out."""
    content = bytearray(zipped({"y.npy": npy(masks()), "cells.json": cells(), "divisions.json": []}))
    place = content.rindex(b"cells.json")
    content[place] ^= 0x80
    refused(target, "has another name in front of it", images=IMAGE, labels=put(content))


def test_a_comment_that_swallows_other_members(target, put):
    content = bytearray(npz(X=IMAGE, y=masks()))
    first, second = (match for match in range(len(content)) if content[match : match + 4] == b"PK\1\2")
    struct.pack_into("<H", content, first + 32, len(content) - 22 - second)
    refused(target, "hides other members", images=put(content))


def test_headers_that_tifffile_does_not_understand(target, put):
    """Values of tags that are texts or several numbers where one number should be."""
    content = tiff(IMAGE)
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        tags = {tag.code: tag.offset for tag in file.pages.first.tags}
    assert {256, 257, 258, 259, 262, 273, 277, 278, 279} <= set(tags)
    for place in tags.values():
        for kind, count in ((2, 1), (2, 4), (3, 2), (4, 3), (12, 1), (7, 2)):
            wrong = bytearray(content)
            struct.pack_into("<HI", wrong, place + 2, kind, count)
            try:
                aw.deepcell(put(wrong), target, force=True, progress=False)
            except InputError:
                continue
            assert (read_project(target).X.shape[1:3]) == (20, 30)


OTHERS = {
    "a.h5": (b"\x89HDF\r\n\x1a\n" + bytes(500), "is an HDF5 file"),
    "a.jpg": (b"\xff\xd8\xff\xe0" + bytes(500), "is a JPEG"),
    "a.gif": (b"GIF89a" + bytes(500), "is a GIF"),
    "a.czi": (b"ZISRAWFILE" + bytes(500), "is a CZI file"),
    "a.nd2": (b"\xda\xce\xbe\x0a" + bytes(500), "is an ND2 file"),
    "a.pdf": (b"%PDF-1.7" + bytes(500), "is a PDF"),
    "a.tif": (b"hello, this is text\n" * 30, "is no image"),
    "a.npy": (b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 70_000, "header"),
    "a.gz": (b"\x1f\x8b\x08\x00" + bytes(30), "cannot be"),
    "empty.tif": (b"", "is no image"),
    "pickle.pkl": (pickle.dumps([1]), "is no image"),
    "a.html": (b"<!DOCTYPE html><html>login</html>", "is no image"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_files(name, target, put):
    content, text = OTHERS[name]
    path = put(content, name)
    refused(target, text, name, images=path)
    refused(target, text, name, images=IMAGE, labels=path)
    refused(target, images=path.parent)


def test_folders_without_images(target, tmp_path):
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.tif").write_bytes(tiff(IMAGE))
    refused(target, "has no image", str(folder), images=folder)
    (folder / "notes.txt").write_text("nothing")
    refused(target, "has no image", "notes.txt", images=folder)


def test_frames_that_differ_are_all_named(target, tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(6):
        pixels = IMAGE[0, : 20 - t % 2] if t < 4 else IMAGE[0].astype(np.uint8)
        (folder / f"t{t}.tif").write_bytes(tiff(pixels))
    message = refused(target, "4 problems", images=folder)
    assert all(f"t{t}.tif: has" in message for t in (1, 3, 4, 5))


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file(target, put):
    path = put(tiff(IMAGE))
    path.chmod(0)
    refused(target, str(path), "Permission denied", images=path)


@posix
def test_links_and_special_files(target, tmp_path, put):
    for name in ("loop", "nowhere"):
        (tmp_path / name).symlink_to(tmp_path / ("loop" if name == "loop" else "missing"))
        refused(target, str(tmp_path / name), images=tmp_path / name)
    os.mkfifo(tmp_path / "pipe")
    refused(target, "neither a file nor a folder", images=tmp_path / "pipe")
    refused(target, "neither a file nor a folder", images=[put(tiff(IMAGE[0])), tmp_path / "pipe"])


@pytest.mark.parametrize("named", ["../secret.ome.tif", "{folder}/secret.ome.tif", "sub/../../secret.ome.tif", "..\\x"])
def test_ome_tiffs_name_no_files_outside(named, target, tmp_path):
    """The metadata of one file name another as the place of its pixels."""
    secret = np.full((2, 20, 30), 7, np.uint8)
    (tmp_path / "secret.ome.tif").write_bytes(tiff(secret, ome=True, metadata={"axes": "TYX"}))
    folder = tmp_path / "in"
    folder.mkdir()
    content = tiff(secret * 0, ome=True, metadata={"axes": "TYX"})
    with tifffile.TiffFile(io.BytesIO(content)) as file:
        xml = file.ome_metadata
    place = named.format(folder=tmp_path)
    other = f'<TiffData IFD="0" PlaneCount="2"><UUID FileName="{place}">urn:uuid:1</UUID></TiffData>'
    start, end = xml.index("<TiffData"), xml.index("</Pixels>")
    changed = xml[:start] + other + xml[end:]
    (folder / "a.ome.tif").write_bytes(tiff(secret * 0, metadata=None, description=changed))
    refused(target, "a.ome.tif", images=folder / "a.ome.tif")


@pytest.mark.parametrize("saved", [np.save, np.savez, np.savez_compressed, "trk", "zip"])
def test_pickles_are_refused(saved, target, put, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "hacked"),)

    objects = np.array([[Evil()]], object)
    if saved == "trk":
        content = trk("w:gz", lineage={}, raw=objects, tracked=masks()[..., None])
    elif saved == "zip":
        content = zipped({"X.npy": npy(objects)})
    else:
        content = io.BytesIO()
        saved(content, **({"arr": objects} if saved is np.save else {"X": objects}))
        content = content.getvalue()
    refused(target, "Python objects", "pickle", images=put(content))
    as_labels = trk("w:gz", lineage={}, tracked=objects) if saved == "trk" else content.replace(b"X.npy", b"y.npy")
    refused(target, "pickle", images=IMAGE, labels=put(as_labels))
    assert not (tmp_path / "hacked").exists()


# ---------------------------------------------------------------- archives


def bomb(member="X.npy", size=1 << 33):
    """A member that says, and is, far larger than could be believed."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(member, bytes(1 << 20))
    changed = bytearray(content.getvalue())
    struct.pack_into("<I", changed, changed.rindex(b"PK\1\2") + 24, min(size, 2**32 - 2))
    return bytes(changed)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (bomb, "is said to hold"),
        (lambda: bomb(size=1 << 21), "X.npy"),
        (lambda: zipped({"spots.csv": bytes(1 << 27), "X.npy": npy(IMAGE)})[:-3], ""),
        (lambda: zipped({"a.zip": zipped({"X.npy": npy(IMAGE)})}), "has no image"),
        (lambda: zipped({"X.npz": zipped({"X.npz": npz(X=IMAGE)})}), "has no image"),
        (lambda: zipped({"X.tif": zipped({"a.tif": tiff(IMAGE)})}), "is a zip file, where an image is expected"),
        (lambda: zipped({"../X.npy": npy(IMAGE)}), "lead elsewhere"),
        (lambda: zipped({"/X.npy": npy(IMAGE)}), "lead elsewhere"),
        (lambda: zipped({"C:\\X.npy": npy(IMAGE)}), "lead elsewhere"),
        (lambda: zipped({"a/../../X.npy": npy(IMAGE), "..\\y.npy": b""}), "lead elsewhere"),
        (lambda: zipped({"X.npy": npy(IMAGE)}, zipfile.ZIP_LZMA), "is compressed by lzma"),
        (lambda: zipped({"X.npy": npy(IMAGE)}, zipfile.ZIP_BZIP2), "is compressed by bzip2"),
        (lambda: zipped({}), "has no image: it holds no files"),
        (lambda: zipped({"a.txt": b"", "cells.json": []}), "has no image"),
        (lambda: npz(y=masks()), "has no image"),
        (lambda: zipped({"a.npz": b"", "b.npz": b""}), "keep one of them"),
        (lambda: zipped({"X.npy": b"", "X.tif": b""}), "keep one of them"),
        (lambda: trk("w:gz", lineage={}, tracked=masks()), "has no image"),
        (lambda: zipped({"dimensions.json": {}}), "deepcell-export"),
        (lambda: zipped({"edit.json": {}}), "is an edit request"),
    ],
)
def test_archives_that_are_none(content, text, target, put):
    path = put(content())
    refused(target, str(path), text, images=path)
    assert sorted(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (lambda: zipped({}), "has no segmentation, nor anything about cells"),
        (lambda: zipped({"readme.txt": b"a"}), "has no segmentation"),
        (lambda: npz(X=IMAGE), "has no segmentation"),
        (lambda: zipped({"y.npy": b"", "y.tif": b""}), "keep one of them"),
        (lambda: zipped({f"m_batch_{b}_feature_0.tif": tiff(masks()[b]) for b in (0, 2)}), "between frame 0 and 2"),
        (lambda: zipped({f"m_batch_{b}_feature_{b}.tif": tiff(masks()[b]) for b in (0, 1, 2)}), "3 batches"),
        (lambda: zipped({"a.tif": tiff(masks()), "b.tif": tiff(masks()[:, 1:])}), "b.tif: has 3 frames"),
        (lambda: zipped({"m_batch_0_feature_0.tif": tiff(masks()), "other.tif": tiff(masks())}), "other.tif"),
    ],
)
def test_archives_of_labels_that_are_none(content, text, target, put):
    path = put(content())
    refused(target, str(path), text, images=IMAGE, labels=path)


def test_members_that_overlap(target, put):
    content = bytearray(zipped({"X.npy": npy(IMAGE), "y.npy": npy(masks())}))
    first, second = (place for place in range(len(content)) if content[place : place + 4] == b"PK\1\2")
    content[second + 42 : second + 46] = content[first + 42 : first + 46]
    refused(target, "shares bytes with another member", images=put(content))


def test_all_that_is_wrong_with_the_members_of_an_archive(target, put):
    content = zipped({"../X.npy": b"1", "y.npy": npy(masks()), "/etc/passwd": b""})
    labels = zipped({"y.npy": npy(masks())}, zipfile.ZIP_LZMA)
    refused(target, "2 problems", "../X.npy", "/etc/passwd", "lzma", images=put(content, "a"), labels=put(labels, "b"))


def test_an_array_larger_than_its_file(target, put):
    for shape in ((2**40, 20, 30), (1, 2**31, 2**31), (10**9,) * 3):
        header = io.BytesIO()
        np.lib.format.write_array_header_1_0(header, {"descr": "<u2", "fortran_order": False, "shape": shape})
        for content in (header.getvalue() + bytes(99), zipped({"X.npy": header.getvalue() + bytes(99)})):
            refused(target, "is cut short", images=put(content), axes="TYX")


# ---------------------------------------------------------------- tables


def with_tables(put, y=None, **members):
    """Labels with tables, in a zip."""
    return put(zipped({"y.npy": npy(masks() if y is None else y), **members}), "labels.zip")


def changed(rows, number, **values):
    return [{**row, **values} if place == number else row for place, row in enumerate(rows)]


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ([*cells(), *cells()[:3]], ["3 rows are there already", "leave one of each"]),
        (changed(cells(), 1, value=77), ["1 rows name a value that no pixel", "value 77"]),
        (changed(cells(), 0, t=3), ["a t that is not there: there are 3 frames"]),
        (changed(cells(), 0, t=-1), ["a t below 0"]),
        (changed(cells(), 0, c=1), ["a c that is not there: there are 1 features"]),
        (changed(cells(), 0, c=-1), ["negative c"]),
        (changed(cells(), 0, cell=0), ["a cell below 1", "background"]),
        (changed(cells(), 0, value=0), ["a value below 1"]),
        (changed(cells(), 0, cell=2**31), ["a cell above 2,147,483,647"]),
        (changed(cells(), 0, cell=2**80), ["no whole ones"]),
        (changed(cells(), 0, cell=1.5), ["no whole ones"]),
        (changed(cells(), 0, cell="1"), ["no whole ones"]),
        (changed(cells(), 0, cell=None), ["no whole ones"]),
        ([{"cell": 1}, *cells()], ["have no value and no t"]),
        ([[1, 1, 0, 0]], ["are no objects"]),
        ({"1": 1}, ["JSON list"]),
        (b"[{", ["standard JSON"]),
        (b"[NaN]", ["NaN"]),
        (b"\xff\xfe[", ["JSON"]),
        (b"[" * 100_000, ["JSON"]),
        (b"", ["JSON"]),
    ],
)
def test_cells_that_cannot_be(rows, texts, target, put):
    labels = with_tables(put, **{"cells.json": rows})
    refused(target, "labels.zip: cells.json", *texts, images=IMAGE, labels=labels)


def test_cells_are_found_wrong_in_all_ways_at_once(target, put):
    rows = [*cells(), cells()[0], {"cell": 9, "value": 9, "t": 9, "c": 9}, {"cell": 1, "value": 99, "t": 1, "c": 0}]
    labels = with_tables(put, **{"cells.json": rows})
    refused(target, "3 problems", "already", "3 frames", "no pixel", images=IMAGE, labels=labels)
    rows = [{"cell": 0, "value": -1, "t": 0, "c": 0}, {"t": 0}, 7]
    labels = with_tables(put, **{"cells.json": rows})
    refused(target, "4 problems", images=IMAGE, labels=labels)


GOOD = {"parent": 2, "daughters": [3, 4], "t": 2}


@pytest.mark.parametrize(
    ("rows", "texts"),
    [
        ([{**GOOD, "t": 0}], ["t outside 1 to 2", "first frame that shows the daughters"]),
        ([{**GOOD, "t": 3}], ["t outside 1 to 2"]),
        ([{**GOOD, "parent": 9}], ["have a parent that is in no frame before t"]),
        ([{**GOOD, "daughters": [3, 9]}], ["a daughter that is in no frame from t on", "9 of parent 2"]),
        ([{**GOOD, "daughters": []}], ["have no daughters"]),
        ([{**GOOD, "daughters": [3, 3]}], ["a daughter twice"]),
        ([{**GOOD, "daughters": [2, 3]}], ["their parent as a daughter"]),
        ([GOOD, {**GOOD, "daughters": [4]}], ["divides more than once", "daughter of another parent"]),
        ([{**GOOD, "daughters": 3}], ["no whole ones"]),
        ([{**GOOD, "t": "2"}], ["no whole ones"]),
        ([{"parent": 2}], ["have no daughters and no t"]),
        ([3], ["are no objects"]),
        (b"[1,]", ["JSON"]),
    ],
)
def test_divisions_that_cannot_be(rows, texts, target, put):
    labels = with_tables(put, **{"divisions.json": rows})
    refused(target, "labels.zip: divisions.json", *texts, images=IMAGE, labels=labels)


def test_a_lineage_that_contradicts_itself_in_many_ways(target, put):
    told = lineage()
    told["2"]["daughters"] = [5]  # 6 says that 2 is its parent
    told["7"]["parent"] = 1
    told["8"]["parent"] = 99
    told["300"]["daughters"] = [77]
    told["11"]["label"] = 12
    told["9"]["frames"] = [3, 44]
    told["1"] = {"label": 1, "frames": [0], "parent": None, "daughters": [9], "frame_div": None}
    told["x"] = {}
    m = truth()
    content = trk("w:gz", lineage=told, raw=m.X[..., :1], tracked=m.y[..., :1])
    refused(
        target, "lineage.json", "missing in their parent's daughters: 6", "4 has 7, whose parent is 1",
        "a parent that has no entry: 8 has 99", "a daughter that has no entry: 300 has 77", "11 has label 12",
        "frames that are not there", "no frame_div: 1", "no number from 1", images=put(content, "a.trk"),
    )  # fmt: skip


@pytest.mark.parametrize("content", [[], [{}, {}], 3, None, "a", b"{", b'{"1": {}, "1": {}}', {"1": 3}, {"0": {}}])
def test_lineages_that_are_none(content, target, put):
    labels = with_tables(put, **{"lineage.json": content})
    refused(target, "labels.zip: lineage.json", images=IMAGE, labels=labels)


@pytest.mark.parametrize(
    ("text", "texts"),
    [
        ("x,y\n-1,3\n31,3\n3,20.5\n3,3\n", ["3 spots are outside of the image, 30 pixels wide and 20 high", "31,3"]),
        ("x,y\n1,a\nnan,2\n,\n", ["3 spots", "no number"]),
        ("x,y\n1,2\n1\n1,2,3\n", ["2 spots", "another number of fields"]),
        ("1,2\n3,4\n", ["begins with numbers", "first spot is lost"]),
        ("y,x\n1,2\n", ["put x and y first"]),
        ('x,y\n"1","2"\n', ["has quotes"]),
        ("x,y\r1,2\r", ["carriage return"]),
        ("", ["header"]),
        ("x\n1\n", ["two names"]),
        ("x,y\n1e400,2\n", ["1 spots"]),
    ],
)
def test_spots_that_cannot_be(text, texts, target, put):
    labels = with_tables(put, **{"spots.csv": text.encode()})
    refused(target, "labels.zip: spots.csv", *texts, images=IMAGE, labels=labels)


def test_everything_wrong_with_several_tables_is_told_at_once(target, put):
    labels = with_tables(
        put,
        **{
            "cells.json": [{"cell": 1}],
            "divisions.json": [3],
            "cellTypes.json": {},
            "embeddings.json": [[1], [1, 2]],
            "spots.csv": b"x,y\n99,99\n",
            "lineage.json": [],
        },
    )
    message = refused(target, images=IMAGE, labels=labels)
    for name in ("cells.json", "divisions.json", "cellTypes.json", "embeddings.json", "spots.csv", "lineage.json"):
        assert f"labels.zip: {name}: " in message


# ---------------------------------------------------------------- addresses


class Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def do_GET(self):
        if self.path == "/slow":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"II")
            time.sleep(1)
        elif self.path == "/short":
            self.send_response(200)
            self.send_header("Content-Length", "100000")
            self.end_headers()
            self.wfile.write(bytes(50))
        elif self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
        else:
            super().do_GET()


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    folder = tmp_path / "web"
    folder.mkdir()
    handler = functools.partial(Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as made:
        made.daemon_threads = True
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield folder, f"http://127.0.0.1:{made.server_address[1]}"
        made.shutdown()
        thread.join()


def test_addresses_that_give_nothing(server, target):
    folder, url = server
    (folder / "big").write_bytes(bytes(100_000))
    (folder / "page").write_bytes(b"<html>please log in</html>")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}/a.tif"
    before = state(target.parent)
    for address, text, options in [
        (f"{url}/none?key=secret", "answers 404", {}),
        (f"{url}/slow", "sent nothing for 0.2 seconds", {"timeout": 0.2}),
        (f"{url}/short", "was cut short", {}),
        (f"{url}/big", "more than the 1000 B allowed", {"download_limit": 1000}),
        (f"{url}/moved", "leads to no address of the web", {}),
        (f"{url}/page", "is no image", {}),
        (nobody, "cannot be", {}),
        ("http://", "no address of the web", {}),
        ("http://a b/", "http://a b/", {}),
    ]:
        for given in ({"images": address}, {"images": IMAGE, "labels": address}):
            with pytest.raises(InputError) as caught:
                aw.deepcell(**given, out=target, force=True, progress=False, **options)
            message = str(caught.value)
            assert text in message
            assert "secret" not in message
            assert all(problem.remedy for problem in caught.value.problems)
            assert state(target.parent) == before


# ---------------------------------------------------------------- export requests


def changed_request(**changes):
    """A request with other members; None leaves one out, dimensions are changed one by one."""
    with zipfile.ZipFile(io.BytesIO(request(truth()))) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    sizes = changes.pop("dimensions", {})
    if sizes:
        told = {**json.loads(members["dimensions.json"]), **sizes}
        members["dimensions.json"] = json.dumps({k: v for k, v in told.items() if v is not None}).encode()
    members.update(changes)
    return zipped({name: content for name, content in members.items() if content is not None})


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (lambda: changed_request(**{"raw.dat": None, "cells.json": None}), ["raw.dat", "cells.json"]),
        (lambda: changed_request(**{"raw.dat": bytes(5), "labeled.dat": b""}), ["raw.dat: has 5 bytes", "labeled.dat"]),
        (lambda: changed_request(dimensions={"width": 30}), ["raw.dat: has", "labeled.dat: has"]),
        (lambda: changed_request(dimensions={"width": 2**40}), ["width"]),
        (lambda: changed_request(dimensions={"width": 0, "height": -1, "duration": 1.5}), ["width", "duration 1.5"]),
        (lambda: changed_request(dimensions={"duration": None, "dtype": "Float16"}), ["no duration", "Float16"]),
        (lambda: changed_request(dimensions={"dtype": "BigInt64Array"}), ["BigInt64Array"]),
        (lambda: changed_request(dimensions={"numChannels": 2**30, "duration": 2**30}), ["images"]),
        (lambda: changed_request(**{"channels.json": ["a"]}), ["1 names for 3 channels"]),
        (lambda: changed_request(**{"cells.json": {}}), ["cells.json", "JSON list"]),
        (lambda: changed_request(**{"cells.json": [{"cell": 1, "value": 1, "t": 9, "c": 0}]}), ["4 frames"]),
        (lambda: changed_request(**{"spots.csv": b"x,y\n99,1\n"}), ["outside of the image"]),
        (lambda: project(truth(), "CZYX"), ["dimensions.json"]),
        (lambda: request(truth())[:-200], ["given"]),
        (lambda: npy(IMAGE), ["is no zip file"]),
        (lambda: b"", ["is no zip file"]),
    ],
)  # fmt: skip
def test_requests_that_cannot_be(content, texts, target, put):
    refused(target, str(put(content())), *texts, write=aw.deepcell_export, images=put(content()))


@pytest.mark.parametrize("given", [3, None, "a\0b", "nowhere.zip", b"a"])
def test_requests_that_are_none(given, target):
    refused(target, write=aw.deepcell_export, images=given)


# ---------------------------------------------------------------- the command


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["deepcell", "{in}/float.npz"], 3, "float32"),
        (["deepcell", "{in}/five.npy"], 3, "5 dimensions"),
        (["deepcell", "{in}/rgb.npy"], 3, "axes='YXC'"),
        (["deepcell", "{in}/cut.tif"], 3, "cut.tif"),
        (["deepcell", "{in}/nothing.zip"], 3, "has no image"),
        (["deepcell", "{in}/good.npy", "--labels", "{in}/nothing.zip"], 3, "has no segmentation"),
        (["deepcell", "{in}/good.npy", "-M", "1MiB"], 4, "smallest budget that works"),
        (["deepcell-export", "{in}/good.npy"], 3, "is no zip file"),
    ],
)
def test_exit_codes(words, code, text, put, out, capsys):
    put(npz(X=IMAGE, y=masks().astype(np.float32)), "float.npz")
    put(npy(IMAGE[None, None]), "five.npy")
    put(npy(np.zeros((20, 30, 3), np.uint8)), "rgb.npy")
    put(tiff(IMAGE)[:900], "cut.tif")
    put(zipped({}), "nothing.zip")
    folder = put(npy(IMAGE), "good.npy").parent
    words = [word.replace("{in}", str(folder)) for word in words]
    assert run([*words[:2], str(out), *words[2:]]) == code
    printed = capsys.readouterr()
    assert text in printed.err
    assert "→" in printed.err or code == 4
    assert not printed.out
    assert not out.exists()


# ---------------------------------------------------------------- disk, budget, interruption


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("nth", [1, 2, 5, 9, 14])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_disk_that_is_full_while_a_project_is_written(number, nth, workers, target, monkeypatch):
    append, calls = fs.append, []

    def failing(descriptor, buffer):
        calls.append(1)
        if len(calls) < nth:
            return append(descriptor, buffer)
        append(descriptor, bytes(memoryview(buffer).cast("B")[:1]))
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fs, "append", failing)
    given = {"images": IMAGE, "labels": masks(), "workers": workers}
    message = refused(target, str(target), os.strerror(number), error=OutputError, **given)
    assert ("free space" in message) == (number != errno.EIO)
    assert len(calls) == nth


@pytest.mark.parametrize("primitive", ["create", "overwrite", "file_sizes", "sync_file", "replace"])
def test_any_failing_primitive(primitive, target, monkeypatch):
    def fail(*given):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fs, primitive, fail)
    refused(target, str(target), os.strerror(errno.EIO), error=OutputError, images=IMAGE, labels=masks())


def test_a_full_disk_while_members_are_unpacked(target, put, monkeypatch):
    """TIFFs in archives are unpacked to temporary files."""
    path = put(zipped({"X.tif": tiff(IMAGE), "y.tif": tiff(masks())}))
    write = os.write

    def failing(descriptor, content):
        if bytes(content[:4]) == b"II*\0":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(descriptor, content)

    monkeypatch.setattr(os, "write", failing)
    refused(target, "X.tif", "y.tif", os.strerror(errno.ENOSPC), "free some space", images=path)


def test_too_small_a_budget_names_one_that_works(target, put):
    path = put(npz(np.savez_compressed, X=IMAGE, y=masks()))
    budget = 1
    for _ in range(5):
        message = refused(
            target, "smallest budget that works is about", error=BudgetError, images=path, memory_budget=budget
        )
        named = int(message.split("works is about ")[1].split("MiB")[0]) << 20
        assert named > budget
        budget = named + (4 << 20)
        try:
            aw.deepcell(path, target, force=True, progress=False, memory_budget=budget)
            break
        except BudgetError:
            continue
    else:
        pytest.fail("no budget works")
    assert aw.check(target).ok


@new_and_old
@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, ZeroDivisionError])
@pytest.mark.parametrize("where", ["read", "look", "compress", "append"])
def test_whatever_is_raised_leaves_nothing(where, error, workers, target, put, monkeypatch):
    """Also while members of archives are read by other threads."""
    m = truth()
    path = put(zipped({"X.tif": tiff(m.X[..., 0], compression="zlib"), "y.npy": npy(m.y), "cells.json": m.rows}))
    module, name = {
        "read": (survey, "as_values"),
        "look": (survey, "extremes"),
        "compress": (writing, "compressed"),
        "append": (fs, "append"),
    }[where]
    function, calls = getattr(module, name), []

    def failing(*given, **options):
        calls.append(1)
        if len(calls) > 2 * (where != "look"):
            raise error
        return function(*given, **options)

    monkeypatch.setattr(module, name, failing)
    if where == "look":
        from atlaswriter.formats.deepcell import write

        monkeypatch.setattr(write, "extremes", failing)
    refused(target, error=error, images=path, workers=workers)
    assert calls


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_by_the_user(number, target, put):
    """Ctrl-C ends all threads and leaves nothing."""
    m = truth()
    path = put(zipped({"X.tif": tiff(m.X[..., 0], compression="zlib"), "y.npy": npy(m.y)}))
    before = state(target.parent)
    code = (
        "import sys, time\nfrom atlaswriter.cli.main import run\nfrom atlaswriter.formats.deepcell import images\n"
        "compressed = images.compressed\n"
        "def slowly(strip, **options):\n    print('written', flush=True)\n    time.sleep(0.05)\n"
        "    return compressed(strip, **options)\n"
        "images.compressed = slowly\n"
        "raise SystemExit(run(['deepcell', sys.argv[1], sys.argv[2], '--force', '-j', '2']))\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(path), str(target)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout.readline().startswith("written")
        child.send_signal(number)
        _, stderr = child.communicate(timeout=60)
    if number == signal.SIGINT:
        assert child.returncode == 130
        assert "interrupted; nothing was changed" in stderr
        assert state(target.parent) == before
    else:
        assert child.returncode != 0
        found = {name: kept for name, kept in state(target.parent).items() if not name.startswith(".")}
        assert found == before
