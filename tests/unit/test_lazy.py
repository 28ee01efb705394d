"""Arrays that are read in slices: equal to NumPy's, in little memory, by several threads."""

import gc
import itertools
import mmap
import os
import subprocess
import sys
import tempfile
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from hypothesis import given
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.sources import daskread, h5chunks, h5read, kept, lazy, parts, texts, zarrread
from atlaswriter.sources.base import Categorical, Compressed, in_memory, n_bytes, overhead, row_blocks
from atlaswriter.sources.h5read import H5Array
from atlaswriter.sources.lazy import DenseRows, Derived, Mapped, load
from atlaswriter.sources.memory import AnnDataSource, dense_of, matrix_of
from atlaswriter.sources.open import open_source
from atlaswriter.sources.tree import Node

SHARED = Path(__file__).parents[2].parent / "shared"
V2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
MIB = 1 << 20


@pytest.fixture
def nothing_small(monkeypatch):
    """As if every array were too large to be read at once."""
    for module in (lazy, parts):
        monkeypatch.setattr(module, "SMALL_BYTES", -1)


def some_slices(rng, shape, count=25):
    """Keys of every kind: nothing, all, open ends, inside one chunk, across many."""
    yield slice(None)
    yield slice(0, 0)
    yield slice(shape[0], None)
    yield slice(-3, None)
    yield slice(5, 2)
    for _ in range(count):
        rows = slice(*sorted(rng.integers(0, shape[0] + 1, 2).tolist()))
        yield rows
        if len(shape) == 2:
            yield rows, slice(*sorted(rng.integers(0, shape[1] + 1, 2).tolist()))


def assert_slices(array, expected, seed=0):
    """Every slice equals NumPy's, also when the slices follow each other in blocks."""
    expected = np.asarray(expected)
    assert array.shape == expected.shape
    assert array.dtype == expected.dtype.newbyteorder("=")
    assert array.dtype.isnative
    assert array.grain >= 1
    assert array.overhead >= 0
    assert array.speed > 0
    for key in some_slices(np.random.default_rng(seed), expected.shape):
        found = array[key]
        assert type(found) is np.ndarray
        assert found.dtype == array.dtype
        assert found.flags.c_contiguous
        assert found.flags.writeable
        np.testing.assert_array_equal(found, expected[key], err_msg=str(key))
    for step in (1, 3, 7):
        blocks = [block for _, block in row_blocks(array, step)]
        np.testing.assert_array_equal(np.concatenate([array[:0], *blocks]), expected)
    for workers in (1, 2):
        np.testing.assert_array_equal(load(array, workers), expected)


# HDF5


@st.composite
def layouts(draw):
    shape = tuple(draw(st.lists(st.integers(1, 13), min_size=1, max_size=2)))
    chunked = draw(st.booleans())
    return {
        "dtype": draw(st.sampled_from(["?", "u1", "<i2", ">i4", "<i8", "f2", "<f4", ">f8"])),
        "shape": shape,
        **(
            {
                "chunks": tuple(draw(st.integers(1, size)) for size in shape),
                "compression": draw(st.sampled_from([None, "gzip", "lzf"])),
                "shuffle": draw(st.booleans()),
                "fletcher32": draw(st.booleans()),
            }
            if chunked
            else {}
        ),
        "fillvalue": draw(st.sampled_from([0, 1])),
    }


@given(layouts(), st.data())
def test_slices_of_datasets_equal_numpy(layout, data):
    values = np.random.default_rng(0).integers(0, 255, layout["shape"]).astype(layout["dtype"])
    written = tuple(slice(data.draw(st.integers(0, size)), size) for size in layout["shape"])
    expected = np.full(values.shape, layout["fillvalue"], values.dtype)
    expected[written] = values[written]
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/a.h5"
        with h5py.File(path, "w") as file:
            file.create_dataset("x", **layout)[written] = values[written]
        for module in (h5read, h5chunks):
            patch.setattr(module, "TASK_BYTES", 16)
        patch.setattr(h5read, "_GAP_BYTES", data.draw(st.sampled_from([0, 8, 1 << 14])))
        patch.setattr(h5chunks, "_KEPT_BYTES", data.draw(st.sampled_from([0, 1 << 20])))
        with h5py.File(path) as file:
            assert_slices(H5Array(file["x"]), expected)
        patch.delattr(os, "preadv", raising=False)
        with h5py.File(path) as file:
            assert_slices(H5Array(file["x"]), expected)


def written(path, name="x", **options):
    with h5py.File(path, "a") as file:
        file.create_dataset(name, **options)
    return path


@pytest.mark.parametrize(
    ("options", "reader"),
    [
        ({}, h5read._Contiguous),
        ({"chunks": (7, 3)}, h5chunks.Chunked),
        ({"chunks": (7, 3), "compression": "gzip"}, h5chunks.Chunked),
        ({"chunks": (7, 3), "compression": "gzip", "shuffle": True}, h5chunks.Chunked),
        ({"chunks": (7, 3), "shuffle": True}, h5read._Ordinary),
        ({"chunks": (7, 3), "compression": "lzf"}, h5read._Ordinary),
        ({"chunks": (7, 3), "fletcher32": True}, h5read._Ordinary),
        ({"chunks": (7, 3), "scaleoffset": 3, "dtype": "f4"}, h5read._Ordinary),
    ],
)
def test_how_a_dataset_is_read(options, reader, tmp_path):
    values = np.random.default_rng(0).integers(0, 9, (50, 20)).astype("f4")
    with h5py.File(written(tmp_path / "a.h5", data=values, **options)) as file:
        array = H5Array(file["x"])
        assert type(array._reader) is reader
        assert array.grain == options.get("chunks", (1,))[0]
        assert_slices(array, file["x"][()])


def test_datasets_without_storage_and_compact_ones(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("empty", (9, 2), "f4", fillvalue=3)
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple((10,))
        h5py.h5d.create(file.id, b"compact", h5py.h5t.STD_I32LE, space, layout).write(
            h5py.h5s.ALL, h5py.h5s.ALL, np.arange(10, dtype="i4")
        )
        for name in ("empty", "compact"):
            assert_slices(H5Array(file[name]), file[name][()])
    with h5py.File(tmp_path / "a.h5") as file:
        for name in ("empty", "compact"):
            assert type(H5Array(file[name])._reader) is h5read._Ordinary
            assert_slices(H5Array(file[name]), file[name][()])


def test_user_blocks_writable_files_and_other_drivers(tmp_path):
    values = np.arange(300.0).reshape(100, 3)
    with h5py.File(tmp_path / "u.h5", "w", userblock_size=512) as file:
        file["x"] = values
        file.create_dataset("z", data=values, chunks=(9, 3), compression="gzip")
    for name, options in (("u.h5", {}), ("u.h5", {"driver": "core"}), ("u.h5", {"driver": "stdio"})):
        with h5py.File(tmp_path / name, **options) as file:
            assert type(H5Array(file["x"])._reader) is h5read._Ordinary
            for dataset in ("x", "z"):
                assert_slices(H5Array(file[dataset]), values)
    with h5py.File(tmp_path / "u.h5", "r+") as file:
        for dataset in ("x", "z"):
            assert_slices(H5Array(file[dataset]), values)


def test_only_vectors_and_matrices_of_numbers(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"], file["one"], file["text"] = np.ones((2, 2, 2)), 3.0, ["a", "b"]
        for name in ("cube", "one", "text"):
            with pytest.raises(TypeError):
                H5Array(file[name])
            with pytest.raises(InputError, match="no vector or matrix"):
                Node(file[name], "a.h5", name).lazy()


@pytest.mark.parametrize("key", [slice(0, 9, 2), slice(None, None, -1), (slice(None), slice(0, 4, 3))])
def test_steps_are_refused(key, tmp_path):
    with h5py.File(written(tmp_path / "a.h5", data=np.eye(9))) as file, pytest.raises(IndexError, match="steps"):
        H5Array(file["x"])[key]


@pytest.mark.parametrize("options", [{}, {"chunks": (100,)}, {"chunks": (100,), "compression": "gzip"}])
def test_many_threads_read_at_once(options, tmp_path):
    values = np.random.default_rng(0).integers(0, 99, 20_000).astype("i4")
    with h5py.File(written(tmp_path / "a.h5", data=values, **options)) as file:
        array = H5Array(file["x"])

        def check(seed):
            rng = np.random.default_rng(seed)
            for _ in range(200):
                first = int(rng.integers(0, values.size))
                last = first + int(rng.integers(0, 400))
                np.testing.assert_array_equal(array[first:last], values[first:last])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(check, range(16)))


def count_decoded(monkeypatch):
    decoded = []
    original = h5chunks.Chunked._decoded
    monkeypatch.setattr(
        h5chunks.Chunked,
        "_decoded",
        lambda self, row, column: decoded.append((row, column)) or original(self, row, column),
    )
    return decoded


def test_consecutive_slices_decode_each_chunk_once(tmp_path, monkeypatch):
    decoded = count_decoded(monkeypatch)
    with h5py.File(written(tmp_path / "a.h5", data=np.arange(1000), chunks=(64,), compression="gzip")) as file:
        array = H5Array(file["x"])
        for start in range(0, 1000, 37):
            array[start : start + 37]
        assert decoded == [(row, 0) for row in range(16)]
        # Whole chunks are not kept, and nothing is at the end.
        assert array._reader._kept.of_this_thread().block is None
        array[64:192]
        assert array._reader._kept.of_this_thread().block is None


def test_only_chunks_that_meet_rows_and_columns_are_decoded(tmp_path, monkeypatch):
    decoded = count_decoded(monkeypatch)
    with h5py.File(written(tmp_path / "a.h5", data=np.ones((40, 40)), chunks=(10, 10), compression="gzip")) as file:
        array = H5Array(file["x"])
        array[5:20, 12:18]
        assert decoded == [(0, 1), (1, 1)]
        decoded.clear()
        for start in range(0, 40, 4):
            array[start : start + 4, 25:40]
        assert decoded == [(row, column) for row in range(4) for column in (2, 3)]


def test_half_used_chunks_are_released(tmp_path):
    rng = np.random.default_rng(0)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for i in range(6):
            file.create_dataset(f"x{i}", data=rng.random(1000), chunks=(1000,), compression="gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        arrays = [H5Array(file[f"x{i}"]) for i in range(6)]
        for array in arrays:
            array[:10]
        held = [array._reader._kept.of_this_thread().block is not None for array in arrays]
        assert held == [False, False, True, True, True, True]
        references = list(kept._threads.recent)
        del array, arrays
        gc.collect()
        assert [reference() for reference in references] == [None] * 4


def test_closed_files_are_not_read(tmp_path):
    path = written(tmp_path / "a.h5", data=np.arange(10))
    written(path, "z", data=np.arange(10), chunks=(5,), compression="gzip")
    with h5py.File(path) as file:
        arrays = [H5Array(file["x"]), H5Array(file["z"])]
        arrays[1][:2]
    for array in arrays:
        with pytest.raises(InputError, match="closed"):
            array[2:5]


def test_whole_rows_of_several_gibibytes_would_take_several_calls(tmp_path, monkeypatch):
    """preadv brings less than it is asked for."""
    original = os.preadv
    monkeypatch.setattr(
        os, "preadv", lambda descriptor, buffers, offset: original(descriptor, [buffers[0][:13]], offset)
    )
    with h5py.File(written(tmp_path / "a.h5", data=np.arange(100.0))) as file:
        assert_slices(H5Array(file["x"]), np.arange(100.0))


# Damaged HDF5


def spoilt(path, name, change):
    """Change the stored bytes of the second chunk of a dataset."""
    with h5py.File(path) as file:
        chunk = file[name].id.get_chunk_info(1)
    content = bytearray(path.read_bytes())
    place = slice(chunk.byte_offset, chunk.byte_offset + chunk.size)
    content[place] = change(bytes(content[place]))[: chunk.size].ljust(chunk.size, b"\0")
    path.write_bytes(content)


def refused(array, *found):
    for read in (lambda: array[:], lambda: array[60:90], lambda: array[60:65], lambda: load(array, 2)):
        with pytest.raises(InputError) as caught:
            read()
        for part in found:
            assert part in str(caught.value)
        assert caught.value.problems[0].remedy
    assert array[:10].shape == (10,)


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: bytes(len(stored)),
        lambda stored: stored[:20],
        lambda stored: bytes(255 - byte for byte in stored),
        lambda stored: zlib.compress(bytes(10)),
    ],
    ids=["zero", "cut", "flipped", "short"],
)
@pytest.mark.parametrize("shuffle", [False, True])
def test_damaged_chunks(change, shuffle, tmp_path):
    values = np.random.default_rng(0).random(100)
    options = {"chunks": (50,), "compression": "gzip", "shuffle": shuffle}
    path = written(tmp_path / "a.h5", data=values, **options)
    spoilt(path, "x", change)
    with h5py.File(path) as file:
        array = H5Array(file["x"], "obs/size", "a.h5ad")
        refused(array, "obs/size: cannot be read from a.h5ad")


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize(("size", "mask"), [(80, 0), (392, 0), (80, 3), (392, 3), (408, 3)])
def test_chunks_of_a_wrong_size_are_refused(shuffle, size, mask, tmp_path):
    """HDF5 itself returns uninitialised memory for those that are too short."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (100,), "f8", chunks=(50,), compression="gzip", shuffle=shuffle)
        dataset[:50] = 1
        stored = bytes(size) if mask else zlib.compress(bytes(size))
        dataset.id.write_direct_chunk((50,), stored, mask if shuffle else mask & 1)
    with h5py.File(tmp_path / "a.h5") as file:
        refused(H5Array(file["x"], "x", "a.h5"), f"a chunk holds {size} bytes where 400 are needed")


def test_chunks_that_inflate_without_end_are_stopped(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (100,), "f8", chunks=(50,), compression="gzip")
        dataset[:50] = 1
        dataset.id.write_direct_chunk((50,), zlib.compress(bytes(1 << 26)))
    with h5py.File(tmp_path / "a.h5") as file:
        refused(H5Array(file["x"], "x", "a.h5"), "inflates to more than its size")


@pytest.mark.parametrize("options", [{}, {"chunks": (50,)}, {"chunks": (50,), "compression": "gzip"}])
def test_files_cut_while_they_are_read(options, tmp_path):
    values = np.random.default_rng(0).random(100)
    path = written(tmp_path / "a.h5", data=values, **options)
    with h5py.File(path) as file:
        array = H5Array(file["x"], "x", "a.h5")
        array[:10]
        end = file["x"].id.get_offset() or file["x"].id.get_chunk_info(1).byte_offset
        os.truncate(path, end + (480 if not options else 40))
        refused(array, "x: cannot be read from a.h5 (the file is truncated)")


def test_missing_chunks_hold_the_fill_value(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (10, 9), ">f4", chunks=(3, 4), compression="gzip", fillvalue=7)
        dataset[3:6, 4:8] = 1
    with h5py.File(tmp_path / "a.h5") as file:
        assert_slices(H5Array(file["x"]), file["x"][()])


def test_stored_partial_chunks_without_filters(tmp_path):
    """A chunk that skips every filter is as HDF5 reads it."""
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (9,), "i4", chunks=(6,), compression="gzip", shuffle=True)
        dataset.id.write_direct_chunk((6,), np.arange(6, dtype="i4").tobytes(), 3)
    with h5py.File(tmp_path / "a.h5") as file:
        assert_slices(H5Array(file["x"]), np.array([0] * 6 + [0, 1, 2], "i4"))


# Zarr


def zarr_array(tmp_path, kind, values, chunks, **options):
    if kind == "v2":
        group = zarr.open_group(str(tmp_path / "v2.zarr"), mode="w", **V2)
    elif kind == "v3":
        group = zarr.open_group(str(tmp_path / "v3.zarr"), mode="w", zarr_format=3)
    else:
        store = zarr.storage.ZipStore(str(tmp_path / "a.zip"), mode="w")
        group = zarr.open_group(store, mode="w", **V2)
    array = group.create_array("x", shape=values.shape, dtype=values.dtype, chunks=chunks, **options)
    array[...] = values
    if kind == "zip":
        store.close()
        group = zarr.open_group(zarr.storage.ZipStore(str(tmp_path / "a.zip"), mode="r"), mode="r")
    return group["x"]


needs_zarr_3 = pytest.mark.skipif(not V2, reason="zarr 2 has other functions")


@needs_zarr_3
@pytest.mark.parametrize("kind", ["v2", "v3", "zip"])
@pytest.mark.parametrize("dtype", ["?", "u1", ">i4", "<i8", "<f4", ">f8"])
@pytest.mark.parametrize(("shape", "chunks"), [((23,), (5,)), ((23, 7), (4, 3)), ((6, 5), (6, 5))])
@pytest.mark.parametrize("kept_bytes", [0, 1 << 20])
def test_slices_of_zarr_arrays(kind, dtype, shape, chunks, kept_bytes, tmp_path, monkeypatch):
    monkeypatch.setattr(zarrread, "_CALL_BYTES", 100)
    monkeypatch.setattr(zarrread, "_KEPT_BYTES", kept_bytes)
    values = np.random.default_rng(0).integers(0, 99, shape).astype(dtype)
    array = Node(zarr_array(tmp_path, kind, values, chunks), "a.zarr", "x").lazy()
    assert array.grain == chunks[0]
    assert_slices(array, values)


@needs_zarr_3
def test_slices_of_shards(tmp_path):
    values = np.random.default_rng(0).random((50, 8))
    array = Node(zarr_array(tmp_path, "v3", values, (5, 4), shards=(20, 8)), "a.zarr", "x").lazy()
    assert array.grain == 20
    assert array.overhead >= 2 * 20 * 8 * 8
    assert_slices(array, values)


@needs_zarr_3
def test_consecutive_slices_ask_zarr_for_each_chunk_once(tmp_path):
    asked = []

    class Watched:
        def __init__(self, array):
            self.shape, self.dtype, self.chunks, self._array = array.shape, array.dtype, array.chunks, array

        def __getitem__(self, key):
            asked.append((key[0].start, key[0].stop))
            return self._array[key]

    values = np.arange(1000)
    array = zarrread.ZarrArray(Watched(zarr_array(tmp_path, "v2", values, (64,))))
    for start in range(0, 1000, 37):
        np.testing.assert_array_equal(array[start : start + 37], values[start : start + 37])
    assert asked == [(top, top + 64) for top in range(0, 1000 - 64, 64)] + [(960, 1024)]
    assert array._kept.of_this_thread().block is None


@needs_zarr_3
def test_threads_read_zarr_at_once(tmp_path):
    values = np.random.default_rng(0).random(5000)
    array = Node(zarr_array(tmp_path, "v2", values, (300,)), "a.zarr", "x").lazy()
    starts = range(0, 5000, 70)
    with ThreadPoolExecutor(4) as pool:
        for start, block in zip(starts, pool.map(lambda i: array[i : i + 70], starts), strict=True):
            np.testing.assert_array_equal(block, values[start : start + 70])


@needs_zarr_3
@pytest.mark.parametrize("kind", ["v2", "v3"])
def test_damaged_and_missing_zarr_chunks(kind, tmp_path):
    raw = zarr_array(tmp_path, kind, np.arange(100.0) + 1, (50,), fill_value=5)
    array = Node(raw, "a.zarr", "x").lazy()
    chunk = tmp_path / "v2.zarr/x/1" if kind == "v2" else tmp_path / "v3.zarr/x/c/1"
    chunk.write_bytes(b"garbage")
    refused(array, "x: cannot be read from a.zarr")
    chunk.unlink()
    assert array[40:60].tolist() == [*range(41, 51), *[5] * 10]


# Mapped files


@pytest.fixture(params=["C", "F"])
def order(request):
    return request.param


def mapped(path, values, mode="r", order="C"):
    np.memmap(path, values.dtype, "w+", shape=values.shape, order=order)[...] = values
    return np.memmap(path, values.dtype, mode, shape=values.shape, order=order)


@pytest.mark.parametrize("mode", ["r", "r+", "c"])
@pytest.mark.parametrize("dtype", ["<f4", ">i8"])
def test_slices_of_mapped_files(mode, dtype, order, tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "_SPAN_BYTES", 1 << 13)
    values = np.random.default_rng(0).integers(0, 99, (3000, 9)).astype(dtype)
    array = mapped(tmp_path / "a.bin", values, mode, order)
    assert_slices(Mapped(array), values)
    assert_slices(Mapped(np.asarray(array)[100:, 2:]), values[100:, 2:])
    assert_slices(Mapped(array.T), values.T)
    assert_slices(Mapped(array[::-3, ::2]), values[::-3, ::2])
    assert_slices(Mapped(array[:, 3]), values[:, 3])
    assert Mapped(array).column_major == (order == "F")


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=2),
    st.booleans(),
    st.lists(st.sampled_from([1, 2, 3, -1, -2]), min_size=2, max_size=2),
    st.sampled_from([8, 64, 100, 1000]),
)
def test_pieces_lie_together_and_cover_all(shape, fortran, steps, span):
    whole = np.zeros([3 * size for size in shape], "f8", order="F" if fortran else "C")
    view = whole[tuple(slice(None, None, step) for step in steps[: len(shape)])]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lazy, "_SPAN_BYTES", span)
        seen = np.zeros(view.shape, int)
        for piece in lazy._pieces(view.shape, view.strides):
            seen[piece] += 1
            steps_ = zip(view[piece].shape, view[piece].strides, strict=True)
            assert sum((size - 1) * abs(stride) for size, stride in steps_) + 8 <= max(span, 8)
    assert (seen == 1).all()


def test_pages_of_private_maps_are_never_dropped(tmp_path):
    array = mapped(tmp_path / "a.bin", np.zeros(1 << 16), "c")
    array[5] = 7
    view = np.asarray(array)[2:]
    assert lazy._mapping(view) is None
    for _ in range(2):
        assert Mapped(view)[:10][3] == 7
    with (tmp_path / "a.bin").open("rb") as file:
        private = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        assert lazy._mapping(np.frombuffer(private)) is None
        shared = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        assert lazy._mapping(np.frombuffer(shared)[3:]) is shared
        assert_slices(Mapped(np.frombuffer(shared)[3:900]), np.zeros(897))


def test_what_was_written_to_a_shared_map_survives(tmp_path):
    array = mapped(tmp_path / "a.bin", np.zeros(1 << 16), "r+")
    array[:] = np.arange(1 << 16)
    for _ in range(2):
        np.testing.assert_array_equal(Mapped(array)[:], np.arange(1 << 16))
    assert array[77] == 77


def test_ordinary_arrays_are_not_mapped(tmp_path):
    np.save(tmp_path / "a.npy", np.eye(3))
    assert lazy.is_mapped(np.load(tmp_path / "a.npy", mmap_mode="r"))
    assert not lazy.is_mapped(np.load(tmp_path / "a.npy"))
    assert not lazy.is_mapped(np.frombuffer(b"abcd", "u1")[1:])


def test_threads_read_maps_at_once(tmp_path):
    values = np.random.default_rng(0).random((20_000, 8))
    array = Mapped(mapped(tmp_path / "a.bin", values, order="F"))
    starts = range(0, 20_000, 777)
    with ThreadPoolExecutor(8) as pool:
        for start, block in zip(starts, pool.map(lambda i: array[i : i + 777], starts), strict=True):
            np.testing.assert_array_equal(block, values[start : start + 777])


# Derived arrays


def stored(tmp_path, **arrays):
    """Arrays in an HDF5 file, as lazy ones."""
    path = tmp_path / "parts.h5"
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, chunks=True, compression="gzip")
    file = h5py.File(path)
    return [H5Array(file[name]) for name in arrays]


@pytest.mark.parametrize("piece", [1, 100, 1 << 20])
def test_derived_arrays(piece, tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "_PIECE_BYTES", piece)
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 9, 500), rng.random((500, 3)).astype("f4")
    parts_ = stored(tmp_path, a=a, b=b)
    sums = Derived(parts_, (500, 3), "f8", lambda x, y: x[:, None] + y.astype("f8"))
    assert_slices(sums, a[:, None] + b.astype("f8"))
    mixed = Derived([a, parts_[1]], (500,), "f4", lambda x, y: y[:, 0] * x)
    assert_slices(mixed, (b[:, 0] * a).astype("f4"))
    halves = lazy.converted(parts_[1], "f2")
    assert_slices(halves, b.astype("f2"))
    assert lazy.converted(parts_[1], "f4") is parts_[1]
    assert_slices(lazy.converted(Derived([a], (500,), "i8", lambda x: -x), "i4"), -a.astype("i4"))


@pytest.mark.parametrize("piece", [32, 1 << 20])
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4"])
def test_dense_rows(piece, dtype, tmp_path, monkeypatch):
    monkeypatch.setattr(lazy, "_PIECE_BYTES", piece)
    rng = np.random.default_rng(0)
    counts = rng.integers(0, 9, 60)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    indices, data = rng.integers(0, 5, counts.sum()), rng.integers(0, 9, counts.sum()).astype(dtype)
    expected = np.zeros((60, 5), dtype)
    np.add.at(expected, (np.repeat(np.arange(60), counts), indices), data)
    lazies = stored(tmp_path, indptr=indptr, indices=indices, data=data)
    for arrays in (lazies, (indptr, indices, data), (indptr, *lazies[1:])):
        assert_slices(DenseRows(Compressed((60, 5), *arrays, 0)), expected)


def test_dense_rows_look_at_lazy_indices(tmp_path):
    arrays = stored(tmp_path, indptr=np.array([0, 1, 2]), indices=np.array([0, 5]), data=np.ones(2))
    matrix = parts.compressed((2, 5), *arrays, axis=0, where="obsm['x']")
    array = DenseRows(matrix)
    assert array[:1].tolist() == [[1, 0, 0, 0, 0]]
    with pytest.raises(InputError, match=r"obsm\['x'\]: damaged sparse matrix: indices go from 5 to 5"):
        array[1:]
    with pytest.raises(ValueError, match="by row"):
        DenseRows(Compressed((5, 2), *arrays, 1))


# Sparse matrices


@pytest.mark.parametrize(
    ("indptr", "found"),
    [
        ([0, 1], "2 entries where 4"),
        ([0, 1, 1, 2], "indptr goes from 0 to 2 where 0 to 3"),
        ([1, 1, 2, 3], "indptr goes from 1 to 3"),
        ([0, 2, 1, 3], "indptr decreases"),
        ([0, -1, 1, 3], "indptr decreases"),
        ([0, 4, 3, 3], "indptr decreases"),
    ],
)
@pytest.mark.parametrize("block", [1, 1 << 20])
def test_offsets_that_lie(indptr, found, block, tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_BLOCK_BYTES", block)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["indptr"], file["indices"], file["data"] = np.array(indptr), np.zeros(3, int), np.ones(3)
    with h5py.File(tmp_path / "a.h5") as file:
        arrays = [H5Array(file[name]) for name in ("indptr", "indices", "data")]
        with pytest.raises(InputError, match=f"X: damaged sparse matrix: .*{found}"):
            parts.compressed((3, 5), *arrays, axis=0, where="X")


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i2", ">i4", "<i8"])
def test_lazy_indices_become_signed(dtype, tmp_path):
    arrays = stored(tmp_path, indptr=np.array([0, 1, 2], dtype), indices=np.array([0, 4], dtype), data=np.ones(2))
    matrix = parts.compressed((2, 5), *arrays, axis=0, where="X")
    for array, expected in ((matrix.indptr, [0, 1, 2]), (matrix.indices, [0, 4])):
        assert array.dtype in (np.int32, np.int64)
        assert array[:].tolist() == expected


def large_matrix(rng, rows=300, columns=50):
    return sp.random_array((rows, columns), density=0.3, format="csr", rng=rng, dtype="f4")


def assert_lazy_matrix(matrix, expected):
    assert isinstance(matrix, Compressed)
    assert not any(in_memory(part) for part in (matrix.indptr, matrix.indices, matrix.data))
    make = sp.csr_array if matrix.axis == 0 else sp.csc_array
    found = make((matrix.data[:], matrix.indices[:], matrix.indptr[:]), matrix.shape)
    np.testing.assert_array_equal(found.toarray(), expected)


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array])
def test_sparse_matrices_over_mapped_files(make, tmp_path, nothing_small):
    x = make(large_matrix(np.random.default_rng(0)))
    parts_ = [mapped(tmp_path / f"{name}.bin", getattr(x, name)) for name in ("data", "indices", "indptr")]
    matrix = matrix_of(make(tuple(parts_), shape=x.shape), "X")
    assert matrix.where == "X"
    assert_lazy_matrix(matrix, x.toarray())


# What users pass


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize(("dtype", "real"), [("<f4", "f4"), (">f8", "f8"), ("f2", "f4"), ("i2", "i2")])
def test_dense_things_that_are_not_in_memory(dtype, real, tmp_path):
    values = np.random.default_rng(0).integers(0, 99, (70, 8)).astype(dtype)
    with h5py.File(written(tmp_path / "a.h5", data=values)) as file:
        things = [file["x"], mapped(tmp_path / "a.bin", values), mapped(tmp_path / "f.bin", values, order="F")]
        things += [zarr.array(values, chunks=(9, 3))]
        np.save(tmp_path / "a.npy", values)
        things += [np.asarray(np.load(tmp_path / "a.npy", mmap_mode="r"))]
        for thing in things:
            for make in (matrix_of, dense_of):
                array = make(thing, "latent_space")
                assert not in_memory(array)
                assert_slices(array, values.astype(real))


def test_small_things_are_read_at_once(tmp_path):
    values = np.random.default_rng(0).random((70, 8))
    with h5py.File(written(tmp_path / "a.h5", data=values)) as file:
        for thing in (file["x"], zarr.array(values), mapped(tmp_path / "a.bin", values)):
            found = matrix_of(thing, "x")
            assert type(found) is np.ndarray
            np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize(
    ("values", "found"),
    [(np.ones(3), "1 dimension"), (np.ones((2, 2, 2)), "3 dimension"), (np.eye(2) * 1j, "not real")],
)
def test_stored_things_that_are_refused(values, found, tmp_path):
    with h5py.File(written(tmp_path / "a.h5", data=values)) as file:
        for thing in (file["x"], zarr.array(values)):
            with pytest.raises(InputError, match=f"x: .*{found}"):
                matrix_of(thing, "x")


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize("format_", ["csr", "csc"])
@pytest.mark.parametrize("store", ["h5", "zarr"])
def test_backed_sparse_datasets(format_, store, tmp_path):
    x = large_matrix(np.random.default_rng(0)).asformat(format_)
    if store == "h5":
        file = h5py.File(tmp_path / "a.h5", "w")
        anndata.io.write_elem(file, "x", x)
        file.close()
        group = h5py.File(tmp_path / "a.h5")
    else:
        group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", **V2)
        anndata.io.write_elem(group, "x", x)
    assert_lazy_matrix(matrix_of(anndata.io.sparse_dataset(group["x"]), "X"), x.toarray())


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csc_matrix, sp.csr_matrix.toarray])
def test_backed_anndata_stays_on_disk(make, tmp_path):
    x = make(sp.csr_matrix(large_matrix(np.random.default_rng(0))))
    adata = anndata.AnnData(x)
    adata.raw = adata.copy()
    adata.write_h5ad(tmp_path / "a.h5ad", compression="gzip")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    dense = x.toarray() if sp.issparse(x) else x
    matrices = [AnnDataSource(backed).expression(raw=raw) for raw in (False, True)]
    for matrix in matrices:
        if sp.issparse(x):
            assert_lazy_matrix(matrix, dense)
        else:
            assert_slices(matrix, dense)
    backed.file.close()


# Dask

dask_array = pytest.importorskip("dask.array")


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize("chunks", [(7, 3), (40, 8), ((5, 30, 5), (8,)), (1, 8)])
@pytest.mark.parametrize(("dtype", "real"), [(">f4", "f4"), ("f2", "f4"), ("u1", "u1")])
def test_dense_dask_arrays(chunks, dtype, real):
    values = np.random.default_rng(0).integers(0, 99, (40, 8)).astype(dtype)
    array = matrix_of(dask_array.from_array(values, chunks), "X")
    assert array.overhead > 0
    assert_slices(array, values.astype(real))


@pytest.mark.parametrize("format_", ["csr", "csc"])
@pytest.mark.parametrize("chunks", [(7, 9), (20, 4), ((5, 0, 15), (9,))])
def test_sparse_dask_arrays(format_, chunks):
    expected = np.random.default_rng(0).integers(0, 3, (20, 9)).astype("f4")
    x = dask_array.from_array(expected, chunks).map_blocks(lambda block: sp.csr_matrix(block).asformat(format_))
    matrix = matrix_of(x, "X")
    assert isinstance(matrix, daskread.SparseDask)
    assert (matrix.shape, matrix.dtype, matrix.where) == ((20, 9), np.float32, "X")
    assert matrix.starts[0] == 0
    assert matrix.starts[-1] == 20
    assert matrix.entries > 0
    for position, (start, stop) in enumerate(itertools.pairwise(matrix.starts)):
        chunk = matrix.chunk(position)
        assert chunk.axis == 0
        assert chunk.shape == (stop - start, 9)
        found = sp.csr_array((chunk.data, chunk.indices, chunk.indptr), chunk.shape).toarray()
        np.testing.assert_array_equal(found, expected[start:stop])


def test_entries_of_sparse_dask_arrays_are_estimated():
    x = dask_array.from_array(np.eye(100), (10, 100)).map_blocks(sp.csr_matrix)
    assert matrix_of(x, "X").entries == 100


def test_chunks_of_which_dask_does_not_know_that_they_are_sparse():
    x = dask_array.from_array(np.eye(4), 2).map_blocks(sp.csr_matrix, meta=np.empty((0, 0)))
    np.testing.assert_array_equal(load(matrix_of(x, "X")), np.eye(4))


def test_dask_chunks_that_are_not_what_was_said():
    x = dask_array.from_array(np.eye(4), 2).map_blocks(lambda block: sp.csr_matrix(block[:1]), chunks=((2, 2), (2, 2)))
    with pytest.raises(InputError, match="chunk 0 has the shape"):
        matrix_of(x, "X").chunk(0)


def test_dask_arrays_that_are_refused():
    x = dask_array.from_array(np.eye(4), 2)
    for wrong, found in ((x[:, 0], "1 dimension"), (x * 1j, "not real"), (x[x[:, 0] > 0], "unknown sizes")):
        with pytest.raises(InputError, match=f"X: .*{found}"):
            matrix_of(wrong, "X")


@pytest.mark.usefixtures("nothing_small")
def test_dask_arrays_where_small_dense_ones_are_wanted():
    x = dask_array.from_array(np.eye(4), 2)
    assert_slices(dense_of(x, "obsm['x']"), np.eye(4))
    assert_slices(dense_of(x.map_blocks(sp.csr_matrix), "obsm['x']"), np.eye(4))


def test_dask_is_not_imported_here():
    code = "import sys, atlaswriter.sources.open; print('dask' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"
    assert not daskread.is_dask(np.eye(2))


# Whole files


def atlas(rng, n=500):
    obs = pd.DataFrame(index=[f"c{i}" for i in range(n)])
    obs["text"] = [["b", "a", "ü", ""][i % 4] for i in range(n)]
    obs["many"] = [f"t{(i * 7) % 400}" for i in range(n)]
    obs["kind"] = pd.Categorical(obs["many"])
    obs["flag"] = np.arange(n) % 3 == 0
    obs["always"] = np.ones(n, bool)
    obs["never"] = np.zeros(n, bool)
    obs["maybe"] = pd.array([None, True, False, True] * (n // 4), "boolean")
    obs["true"] = pd.array([None, True] * (n // 2), "boolean")
    obs["gaps"] = pd.array([None, 1, 2, 3] * (n // 4), "Int16")
    obs["whole"] = pd.array(range(n), "UInt16")
    obs["half"] = rng.random(n).astype("f2")
    obs["size"] = rng.random(n)
    adata = anndata.AnnData(sp.csr_matrix(large_matrix(rng, n, 30)), obs)
    adata.layers["dense"] = rng.random((n, 30)).astype("f2")
    adata.layers["csc"] = adata.X.tocsc()
    adata.obsm["X_umap"] = rng.random((n, 2))
    adata.obsm["table"] = pd.DataFrame({"a": range(n), "b": pd.array([None, 1] * (n // 2), "Int8")}, index=obs.index)
    adata.obsm["sparse"] = sp.csr_matrix(large_matrix(rng, n, 4))
    adata.obsm["csc"] = sp.csc_matrix(large_matrix(rng, n, 4))
    adata.obsp["connectivities"] = sp.csr_matrix(large_matrix(rng, n, n))
    return adata


def write(adata, path):
    if path.suffix == ".h5ad":
        with h5py.File(path, "w") as file:
            anndata.io.write_elem(file, "/", adata, dataset_kwargs={"compression": "gzip"})
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            version = {"zarr_format": 3} if path.stem == "v3" else V2
            anndata.io.write_elem(zarr.open_group(str(path), mode="w", **version), "/", adata)
    return path


@pytest.mark.usefixtures("nothing_small")
@pytest.mark.parametrize("name", ["a.h5ad", "v2.zarr", *(["v3.zarr"] if V2 else [])])
def test_everything_is_lazy_and_equal(name, tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "_BLOCK", 64)
    monkeypatch.setattr(parts, "_BLOCK_BYTES", 300)
    adata = atlas(np.random.default_rng(0))
    expected, source = AnnDataSource(adata), open_source(write(adata, tmp_path / name))
    for column in source.obs_columns():
        found, wanted = source.obs(column), expected.obs(column)
        if isinstance(wanted, Categorical):
            assert found.categories == wanted.categories
            assert load(found.codes).tolist() == load(wanted.codes).tolist(), column
            assert found.codes.dtype.kind == "i"
            assert in_memory(found.codes) == (column in ("text", "many"))
            if column in ("text", "many"):
                assert found.codes.dtype == (np.int8 if column == "text" else np.int16)
        else:
            assert not in_memory(found.values)
            assert_slices(found.values, wanted.values)
    assert_slices(source.expression(layer="dense"), adata.layers["dense"].astype("f4"))
    assert_lazy_matrix(source.expression(), adata.X.toarray())
    assert_lazy_matrix(source.expression(layer="csc"), adata.X.toarray())
    assert_lazy_matrix(source.obsp_matrix("connectivities"), adata.obsp["connectivities"].toarray())
    assert_slices(source.obsm_array("X_umap"), adata.obsm["X_umap"])
    assert_slices(source.obsm_array("table"), adata.obsm["table"].to_numpy("f8", na_value=np.nan))
    assert_slices(source.obsm_array("sparse"), adata.obsm["sparse"].toarray())
    np.testing.assert_array_equal(source.obsm_array("csc"), adata.obsm["csc"].toarray())
    assert source.gene_names() == list(adata.var_names)
    source.close()


@pytest.mark.usefixtures("nothing_small")
def test_codes_are_checked_to_the_last(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "_BLOCK_BYTES", 16)
    path = write(atlas(np.random.default_rng(0)), tmp_path / "a.h5ad")
    for wrong in (400, -2):
        with h5py.File(path, "r+") as file:
            file["obs/kind/codes"][-1] = wrong
        with pytest.raises(InputError, match=rf"obs\['kind'\]: codes go from .*{wrong}"):
            open_source(path).obs("kind")


@pytest.mark.usefixtures("nothing_small")
def test_unsigned_codes_stay_lazy(tmp_path):
    path = write(atlas(np.random.default_rng(0)), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        codes = file["obs/kind/codes"][()]
        del file["obs/kind/codes"]
        file["obs/kind/codes"] = codes.astype("u2")
    column = open_source(path).obs("kind")
    assert not in_memory(column.codes)
    assert_slices(column.codes, codes)


def test_too_many_texts_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(texts, "_MOST_TEXTS", 399)
    path = write(atlas(np.random.default_rng(0)), tmp_path / "a.h5ad")
    assert len(open_source(path).obs("text").categories) == 4
    with pytest.raises(InputError, match=r"obs\['many'\]: has more than 399 different texts"):
        open_source(path).obs("many")


@pytest.mark.usefixtures("nothing_small")
def test_older_files_keep_x_on_disk(shared):
    for name in ("cellbrowser_pbmc_small.h5ad", "bpcells_mini_mat_v0.7.h5ad", "cellxgene_nan.h5ad"):
        path = shared / "data" / "h5ad" / name
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata = anndata.read_h5ad(path)
        source = open_source(path)
        for raw in {False, source.has_raw()}:
            matrix, x = source.expression(raw=raw), adata.raw.X if raw else adata.X
            if isinstance(matrix, Compressed):
                assert_lazy_matrix(matrix, x.toarray())
            else:
                assert_slices(matrix, x)
        source.close()
        matrix = matrix.data if isinstance(matrix, Compressed) else matrix
        with pytest.raises(InputError, match="closed"):
            matrix[:1]


# Memory

MEASURED = """
import sys, threading
import h5py, numpy as np
from atlaswriter.sources.h5read import H5Array
from atlaswriter.sources.lazy import Mapped
from atlaswriter.sources.base import row_blocks

kind, path = sys.argv[1:]

def resident():
    # Own memory and pages of the data file; pages of libraries come and go with the machine's cache.
    with open("/proc/self/smaps") as file:
        lines, total, counted = file.readlines(), 0, False
    for line in lines:
        words = line.split()
        if not words[0].endswith(":"):
            counted = len(words) < 6 or words[5] == path or words[5].startswith("[")
        elif words[0] == "Rss:" and counted:
            total += int(words[1]) << 10
    return total

def watch():
    global peak, samples
    while not done:
        peak, samples = max(peak, resident()), samples + 1

if kind.startswith("map"):
    array = Mapped(np.memmap(path, "f4", "r", shape=(2_500_000, 16), order=kind[-1]))
else:
    array = H5Array(h5py.File(path)[kind])
peak, samples, total, done = 0, 0, 0.0, False
before = resident()
thread = threading.Thread(target=watch)
thread.start()
rows = (1 << 20) // (array.dtype.itemsize * (array.shape[1] if len(array.shape) == 2 else 1)) - 5
for first, block in row_blocks(array, rows):
    total += float(block.sum(dtype=float))
    peak = max(peak, resident())
done = True
thread.join()
print(peak - before, total, array.overhead, samples)
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """40 million values (160 MB), in every layout."""
    path = tmp_path_factory.mktemp("big") / "a.h5"
    values = np.random.default_rng(0).integers(0, 9, 40_000_000, dtype="u1").astype("f4")
    with h5py.File(path, "w") as file:
        file["contiguous"] = values
        file.create_dataset("gzip", data=values, chunks=(250_000,), compression="gzip", compression_opts=1)
        file.create_dataset("wide", data=values.reshape(-1, 4000), chunks=(100, 100))
    values.reshape(-1, 16).tofile(path.with_name("mapC"))
    values.reshape(-1, 16).T.tofile(path.with_name("mapF"))
    yield path, float(values.sum(dtype=float))
    for name in ("a.h5", "mapC", "mapF"):
        path.with_name(name).unlink()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux")
@pytest.mark.parametrize("kind", ["contiguous", "gzip", "wide", "mapC", "mapF"])
def test_slicing_takes_little_memory(kind, big):
    path, total = big
    place = path.with_name(kind) if kind.startswith("map") else path
    run = [sys.executable, "-c", MEASURED, kind, str(place)]
    output = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
    assert float(output[1]) == total
    # Besides: two blocks of 1 MiB, and what measuring takes.
    assert int(output[0]) < int(output[2]) + 6 * MIB


def test_sizes():
    assert n_bytes(np.zeros((3, 4), "f4")) == 48
    assert overhead(np.zeros(3)) == 0
