"""Outlines of cells: rows of vertices in tables, and the arrays of Xenium's Zarr stores."""

import itertools
import json
import zipfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.sources import outlines, tables
from atlaswriter.sources.outlines import VertexOutlines, ZarrOutlines
from atlaswriter.sources.tables import open_table
from atlaswriter.sources.zarrzip import ZarrZip


def rings_of(source):
    """Name and vertices of every ring, in order."""
    found = []
    for batch in source.batches():
        assert batch.offsets.dtype == np.int64
        assert (batch.offsets[0], batch.offsets[-1]) == (0, batch.x.size)
        assert len(batch.names) == len(batch.offsets) - 1
        assert batch.x.dtype == batch.y.dtype == np.float64
        assert batch.names.type == pa.string()
        for k, name in enumerate(batch.names.to_pylist()):
            part = slice(batch.offsets[k], batch.offsets[k + 1])
            found.append((name, list(zip(batch.x[part].tolist(), batch.y[part].tolist(), strict=True))))
    return found


def write_zarr(path, arrays, attributes=None):
    """Arrays of Zarr 2, one chunk each, in a zip file, with the attributes of groups and arrays."""
    groups = {str(parent) for name in arrays for parent in Path(name).parents}
    plain = {"compressor": None, "filters": None, "fill_value": 0, "order": "C", "zarr_format": 2}
    with zipfile.ZipFile(path, "w") as file:
        for group in groups:
            file.writestr(f"{group}/.zgroup".removeprefix("./"), '{"zarr_format": 2}')
        for name, content in (attributes or {}).items():
            file.writestr(f"{name}/.zattrs", json.dumps(content))
        for name, array in arrays.items():
            described = plain | {"shape": array.shape, "chunks": array.shape, "dtype": array.dtype.str}
            file.writestr(f"{name}/.zarray", json.dumps(described))
            file.writestr(f"{name}/{'.'.join('0' * array.ndim)}", array.tobytes())


def vertex_table(path, cells, row_group=1000, name_type=None):
    place = np.arange(len(cells), dtype=np.float32)
    table = pa.table({"y": -place, "cell_id": pa.array(cells, name_type), "x": place})
    pq.write_table(table, path, row_group_size=row_group)
    expected = []
    for name, rows in itertools.groupby(range(len(cells)), key=lambda k: cells[k]):
        expected.append((str(name), [(float(k), -float(k)) for k in rows]))
    return expected


@given(
    lengths=st.lists(st.tuples(st.sampled_from("abcß"), st.integers(1, 9)), min_size=1, max_size=30),
    batch=st.integers(1, 20),
    row_group=st.integers(1, 40),
)
def test_rings_are_stretches_of_rows(tmp_path_factory, lengths, batch, row_group):
    path = tmp_path_factory.mktemp("outlines") / "a.parquet"
    cells = [name for name, n in lengths for _ in range(n)]
    expected = vertex_table(path, cells, row_group)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "BATCH_ROWS", batch)
        assert rings_of(VertexOutlines(open_table(path), "cell_id", "x", "y")) == expected


def test_a_cell_that_comes_again_has_a_second_ring(tmp_path):
    vertex_table(tmp_path / "a", ["a", "a", "b", "a"])
    found = rings_of(VertexOutlines(open_table(tmp_path / "a"), "cell_id", "x", "y"))
    assert [name for name, _ in found] == ["a", "b", "a"]


@pytest.mark.parametrize("kind", [pa.int64(), pa.int32(), pa.float64(), pa.uint64()])
def test_cells_that_are_numbers(tmp_path, kind):
    expected = vertex_table(tmp_path / "a", [7, 7, 7, 12, 12, 3], name_type=kind)
    assert rings_of(VertexOutlines(open_table(tmp_path / "a"), "cell_id", "x", "y")) == expected


def test_no_vertices(tmp_path):
    vertex_table(tmp_path / "a", [], name_type=pa.string())
    source = VertexOutlines(open_table(tmp_path / "a", "here"), "cell_id", "x", "y")
    assert rings_of(source) == []
    assert source.location == "here"
    assert source.room > 0
    assert source.n_bytes == (tmp_path / "a").stat().st_size


def test_vertices_without_a_cell(tmp_path):
    vertex_table(tmp_path / "a", ["a", None, "b"])
    with pytest.raises(InputError, match="here: 1 vertices have no cell_id"):
        rings_of(VertexOutlines(open_table(tmp_path / "a", "here"), "cell_id", "x", "y"))


def test_columns_that_are_missing_or_text(tmp_path):
    vertex_table(tmp_path / "a", ["a", "b"])
    with pytest.raises(InputError, match="no column 'vertex_x'; it has 'y', 'cell_id', 'x'"):
        rings_of(VertexOutlines(open_table(tmp_path / "a"), "cell_id", "vertex_x", "y"))
    with pytest.raises(InputError, match="'cell_id' holds text"):
        rings_of(VertexOutlines(open_table(tmp_path / "a"), "cell_id", "cell_id", "y"))


def test_an_outline_that_does_not_end(tmp_path, monkeypatch):
    monkeypatch.setattr(outlines, "_MOST_VERTICES", 100)
    monkeypatch.setattr(tables, "BATCH_ROWS", 30)
    vertex_table(tmp_path / "a", ["b"] + ["a"] * 500)
    with pytest.raises(InputError, match="cell a has more than 100"):
        rings_of(VertexOutlines(open_table(tmp_path / "a"), "cell_id", "x", "y"))


SIZES = np.array([3, 0, 5, 4], np.int32)
CELLS = np.array([2, 0, 1, 2], np.uint32)


def zarr_store(path, sizes=SIZES, cells=CELLS, vertices=None):
    vertices = np.arange(40, dtype=np.float32).reshape(4, 10) if vertices is None else vertices
    group = {"num_vertices": sizes, "cell_index": cells, "vertices": vertices}
    write_zarr(path, {f"polygon_sets/1/{name}": values for name, values in group.items()})
    return ZarrZip(path, "cells.zarr.zip")


def zarr_outlines(store):
    return ZarrOutlines(store, "polygon_sets/1", pa.array(["a", "b", "c"]))


@pytest.mark.parametrize("numbers", [1, 20, 1000])
def test_arrays_of_xenium(tmp_path, numbers, monkeypatch):
    monkeypatch.setattr(outlines, "_BLOCK_NUMBERS", numbers)
    with zarr_store(tmp_path / "a.zip") as store:
        found = rings_of(zarr_outlines(store))
    vertices = [[(10.0 * k + 2 * v, 10.0 * k + 2 * v + 1) for v in range(n)] for k, n in enumerate(SIZES)]
    assert found == list(zip(["c", "a", "b", "c"], vertices, strict=True))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"sizes": np.array([3, 0, 6, 4], np.int32)}, "6 vertices"),
        ({"sizes": np.array([3, -1, 5, 4], np.int32)}, "less than none"),
        ({"sizes": SIZES[:3]}, "shape"),
        ({"cells": np.array([2, 0, 3, 2], np.uint32)}, "cell 3 of 3"),
        ({"cells": CELLS[:2]}, "shape"),
        ({"vertices": np.zeros(40, np.float32)}, "2 dimension"),
        ({"vertices": np.zeros((4, 10), "M8[s]")}, "vertices"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, wrong, said):
    with zarr_store(tmp_path / "a.zip", **wrong) as store, pytest.raises(InputError, match=said):
        zarr_outlines(store)


def test_arrays_that_are_missing(tmp_path):
    write_zarr(tmp_path / "a.zip", {"polygon_sets/1/num_vertices": SIZES})
    with ZarrZip(tmp_path / "a.zip", "here") as store, pytest.raises(InputError, match="cell_index"):
        zarr_outlines(store)
