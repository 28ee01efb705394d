"""A project fed to the writer again comes out byte for byte, and nothing but the input decides its bytes."""

import io
import json
import os
import tempfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.deepcell_inputs import KINDS, made, npy, npz, ome, project, tables, tiff, zarr_store, zipped
from tests.deepcell_truth import DTYPES, Truth, assert_holds, pixels, read_project, truth

import atlaswriter as aw
from atlaswriter.formats.deepcell.exchange import write_export_request
from atlaswriter.units import resident_memory

SERVED = [dtype for dtype in DTYPES if dtype not in ("int8", "int16")]
OF_EVERY_FORM = [
    *("npz_X_y.npz", "tiff_YXC.tiff", "ome_TCYX.ome.tiff", "png_RGB.png", "movie.trk", "project_ZCYX.zip"),
    *("project_stored.zip", "project_no_y.zip", "labels_twice.zip", "labels_bool", "labels_tiff.zip", "none"),
]
# Whose channels, or features, lie together, so that those of a block of rows are written together.
CHANNELS_TOGETHER = ["npz_X_y.npz", "tiff_YXC.tiff", "png_RGB.png", "labels_twice.zip", "labels_bool", "none"]
CHANNELS_TOGETHER += ["labels_tiff.zip"]


def write(images, out, *rest, **options):
    return aw.deepcell(images, out, *rest, progress=False, **options)


# ---------------------------------------------------------------- again


@pytest.mark.parametrize("image_dtype", ["keep", "uint8"])
@pytest.mark.parametrize("name", OF_EVERY_FORM)
def test_a_project_made_again_is_the_same(tmp_path, name, image_dtype):
    """At first strips lie in the order in which they were read; from then on every byte is the same."""
    first, again, third, parts = (tmp_path / f"{name}.zip" for name in ("first", "again", "third", "parts"))
    form = KINDS[name](tmp_path, truth())
    write(form.images, first, form.labels, image_dtype=image_dtype, **form.options)
    write(first, again, image_dtype=image_dtype)
    assert contents(again) == contents(first)
    if name not in CHANNELS_TOGETHER:
        assert again.read_bytes() == first.read_bytes()
    write(again, third, image_dtype=image_dtype)
    assert third.read_bytes() == again.read_bytes()
    # Image and labels apart, the latter with all that belongs to them.
    found = read_project(first)
    write(np.ascontiguousarray(found.X), parts, first, image_dtype=image_dtype, channel_names=_given(found.names))
    assert contents(parts) == contents(first)


def _given(names):
    return None if None in names else names


def contents(path):
    """Every byte of a project but the places of strips: tables as they are, of images strips and tags."""
    found = _members(path)
    return {name: _strips(content) if name.endswith(".tiff") else content for name, content in found.items()}


def _strips(content):
    """Of each page its tags, and the bytes of its strips in order."""
    pages = []
    with tifffile.TiffFile(io.BytesIO(content)) as opened:
        for page in opened.pages:
            tags = {tag.name: tag.value for tag in page.tags.values() if tag.name != "StripOffsets"}
            places = zip(page.dataoffsets, page.databytecounts, strict=True)
            pages.append((tags, [content[offset : offset + size] for offset, size in places]))
    return pages


@pytest.mark.parametrize("dtype", SERVED)
def test_through_the_client_and_back(tmp_path, dtype):
    """What the client would send of a project makes this project, without the embeddings, which it does not send."""
    m = truth(dtype)
    (tmp_path / "given.zip").write_bytes(project(m, "CZYX"))
    write(tmp_path / "given.zip", tmp_path / "first.zip", image_dtype="keep")
    write_export_request(tmp_path / "first.zip", tmp_path / "request.zip")
    aw.deepcell_export(tmp_path / "request.zip", tmp_path / "again.zip", progress=False)
    assert_holds(tmp_path / "again.zip", replace(m, embeddings=None))
    first, again = (_members(tmp_path / name) for name in ("first.zip", "again.zip"))
    assert again == {**first, "embeddings.json": b"null"}


def _members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


# ---------------------------------------------------------------- nothing else decides


def test_bytes_do_not_depend_on_workers_budget_or_time(tmp_path):
    rng = np.random.default_rng(4)
    X = rng.integers(0, 4000, (3, 700, 500, 2), np.uint16)
    y = (np.arange(700)[:, None] // 40 * 13 + np.arange(500) // 40).astype(np.int32)
    y = np.stack([np.stack([y + t, np.where(y % 3, y, 0)], axis=-1) for t in range(3)])
    y[1, 100:130, 200:240, 0] = 900
    rows = [
        {"cell": cell, "value": value, "t": t, "c": c}
        for t, c in np.ndindex(3, 2)
        for value in np.unique(y[t, :, :, c]).tolist()
        for cell in ((7, 8) if value == 900 else (value,))
        if value
    ]
    (tmp_path / "y.zip").write_bytes(zipped({"y.npy": npy(y), "cells.json": rows}))
    forms = {
        "array": X,
        "deflated": made(tmp_path / "a.npz", npz(np.savez_compressed, X=X)),
        "strips": made(
            tmp_path / "a.tif",
            tiff(X, photometric="minisblack", planarconfig="contig", rowsperstrip=9, compression="zlib"),
        ),
        "chunks": made(tmp_path / "a.zarr", zarr_store(X, 2)),
    }
    (tmp_path / "spill").mkdir()
    # Workers, and bytes beside what the process holds; None: the default.
    every = [(1, None), (2, None), (3, None), (2, 120 << 20), (1, 80 << 20)]
    found, seen = {}, {}
    for image_dtype in ("keep", "uint8"):
        for form, images in forms.items():
            for workers, room in every if form == "strips" else every[1:3]:
                budget = None if room is None else resident_memory() + room
                options = {"workers": workers, "memory_budget": budget, "spill_dir": tmp_path / "spill"}
                write(
                    images,
                    tmp_path / "p.zip",
                    tmp_path / "y.zip",
                    "TYXC",
                    image_dtype=image_dtype,
                    force=True,
                    **options,
                )
                found.setdefault((image_dtype, form), set()).add((tmp_path / "p.zip").read_bytes())
            seen.setdefault(image_dtype, []).append(contents(tmp_path / "p.zip"))
    assert {len(bytes_of) for bytes_of in found.values()} == {1}
    assert all(one == every[0] for every in seen.values() for one in every)
    assert not list((tmp_path / "spill").iterdir())
    assert_holds(tmp_path / "p.zip", Truth(X, y, tuple(tuple(row.values()) for row in rows)), keep=False)


def test_bytes_do_not_depend_on_names_clock_or_zone(tmp_path, monkeypatch):
    m = truth()
    (tmp_path / "one.zip").write_bytes(project(m, "CZYX"))
    write(tmp_path / "one.zip", tmp_path / "p.zip")
    other = tmp_path / "other"
    other.mkdir()
    (other / "näme.bin").write_bytes((tmp_path / "one.zip").read_bytes())
    monkeypatch.setenv("TZ", "Pacific/Chatham")
    time.tzset()
    os.utime(other / "näme.bin", (1e9, 1e9))
    try:
        write(other / "näme.bin", other / "q.zip")
    finally:
        monkeypatch.undo()
        time.tzset()
    assert (tmp_path / "p.zip").read_bytes() == (other / "q.zip").read_bytes()


# ---------------------------------------------------------------- anything


@st.composite
def movies(draw):
    """A movie with labels whose values mean anything, and tables that go with them."""
    frames, channels, features = (draw(st.integers(1, 3)) for _ in range(3))
    height, width = (draw(st.integers(1, 12)) for _ in range(2))
    rng = np.random.default_rng(draw(st.integers(0, 10_000)))
    X = pixels_of(draw(st.sampled_from(DTYPES)), (frames, height, width, channels), rng)
    values = draw(st.lists(st.integers(1, 9) | st.integers(1, 2**31 - 1), max_size=6, unique=True))
    y = rng.choice(np.array([0, 0, *values], np.int32), (frames, height, width, features))
    if not draw(st.booleans()):
        return Truth(X, y)
    ids = draw(st.lists(st.integers(1, 12) | st.integers(1, 10**6), min_size=3, max_size=7, unique=True))
    rows = [
        (cell, value, t, c)
        for t, c in np.ndindex(frames, features)
        for value in np.unique(y[t, :, :, c]).tolist()
        if value
        for cell in rng.choice(ids, rng.choice([1, 1, 2, 3]), replace=False).tolist()
    ]
    rng.shuffle(rows)
    cells = tuple(tuple(int(number) for number in row) for row in rows)
    spots = rng.uniform(0, 1, (draw(st.integers(0, 4)), 2)) * (width, height)
    lines = "".join(f"{x!r},{y:.3e},{n}\n" for n, (x, y) in enumerate(spots.tolist()))
    return Truth(
        X,
        y,
        cells,
        draw_divisions(cells, frames, rng),
        tuple(
            {"id": number, "cells": draw(st.lists(st.sampled_from(ids), unique=True)), "color": "#0aF9c0"}
            | {"name": draw(st.text(max_size=5)), "feature": draw(st.integers(0, features - 1))}
            for number in draw(st.lists(st.integers(0, 9), max_size=3, unique=True))
        ),
        draw(
            st.none()
            | st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2).map(list), max_size=4)
        ),
        f"x,y,n\n{lines}".encode() if draw(st.booleans()) else None,
        tuple(draw(st.lists(channel_names, min_size=channels, max_size=channels))) if draw(st.booleans()) else (),
    )


channel_names = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cn", "Zs", "Zl", "Zp"]), min_size=1, max_size=6)


def pixels_of(dtype, shape, rng):
    dtype = np.dtype(dtype)
    found = np.frombuffer(rng.bytes(int(np.prod(shape)) * dtype.itemsize), dtype).reshape(shape).copy()
    found[rng.random(shape) < 0.5] = 7
    return found


def draw_divisions(cells, frames, rng):
    """Some that go with the cells: parents from before, daughters from then on."""
    found, used = set(), set()
    for t in range(1, frames):
        before = sorted({row[0] for row in cells if row[2] < t} - used)
        after = sorted({row[0] for row in cells if row[2] >= t} - used)
        parent = int(rng.choice(before)) if before else None
        daughters = [cell for cell in after if cell != parent][: int(rng.integers(1, 3))]
        if parent is not None and daughters:
            found.add((parent, frozenset(daughters), t))
            used |= {parent, *daughters}
    return frozenset(found)


@example(Truth(pixels("int8"), truth().y), "CZYX", zipfile.ZIP_STORED)
@settings(max_examples=50)
@given(movies(), st.sampled_from(["CZYX", "ZCYX", "TCYX"]), st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
def test_anything_there_and_back(m, axes, method):
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        members = {"X.ome.tiff": ome(m.X, axes), "y.ome.tiff": ome(m.y, axes)}
        if m.cells is not None:
            members |= {name: content for name, content in tables(m).items() if name != "spots.csv" or content}
        (here / "given.zip").write_bytes(zipped(members, method))
        write(here / "given.zip", here / "first.zip", image_dtype="keep", channel_names=m.names or None)
        assert_holds(here / "first.zip", m)
        found = aw.check(here / "first.zip")
        assert found.ok, found
        write(here / "first.zip", here / "again.zip", image_dtype="keep")
        assert (here / "again.zip").read_bytes() == (here / "first.zip").read_bytes()
        if m.cells is not None and not m.names:
            assert aw.diff(here / "given.zip", here / "first.zip").equal


def test_json_of_numbers_is_exact(tmp_path):
    """Vectors keep every bit, however they are written."""
    m = truth()
    vectors = [[0.1, -0.0], [5e-324, 1.7976931348623157e308], [1 / 3, 2**53 + 1.0]]
    members = {"y.npy": npy(m.y[..., :1]), "embeddings.json": json.dumps(vectors, indent=3).encode()}
    (tmp_path / "y.zip").write_bytes(zipped(members))
    write(m.X, tmp_path / "p.zip", tmp_path / "y.zip")
    found = read_project(tmp_path / "p.zip").tables["embeddings.json"]
    assert [[number.hex() for number in row] for row in found] == [[number.hex() for number in row] for row in vectors]
