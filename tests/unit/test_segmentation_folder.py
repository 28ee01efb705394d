"""Celldega's folder of a further segmentation, and wide tables of counts."""

import json
import struct

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from atlaswriter.errors import InputError
from atlaswriter.sources import wide
from atlaswriter.sources.custom_segmentation import open_segmentation

TO_PX = np.array([[4.0, 0, 10], [0, 5, 20], [0, 0, 1]])


def point(x, y):
    return struct.pack("<BI2d", 1, 1, x, y)


def triangle(x, y):
    ring = np.array([(x, y), (x + 8, y), (x, y + 5), (x, y)], "<f8")
    return struct.pack("<BIII", 1, 3, 1, len(ring)) + ring.tobytes()


def geoparquet(frame, path, primary):
    """As geopandas writes it."""
    table = pa.Table.from_pandas(frame)
    geo = {"primary_column": primary, "version": "1.0.0", "columns": {primary: {"encoding": "WKB"}}}
    pq.write_table(table.replace_schema_metadata({**table.schema.metadata, b"geo": json.dumps(geo)}), path)


@pytest.fixture
def folder(tmp_path):
    names = pd.Index(["c-1", "c-2"], name="cell_index")
    (tmp_path / "segmentation_parameters.json").write_text(
        json.dumps({"technology": "custom", "segmentation_approach": "proseg", "dataset_name": "d"})
    )
    counts = pd.DataFrame({"A": [0, 2], "nan": [0, 0], "B": [70000, 1]}, index=names[::-1])
    counts.to_parquet(tmp_path / "cell_by_gene_matrix.parquet")
    cells = pd.DataFrame({"area": [1.0, 2.0], "centroid": [point(1, 2), point(3, 4)]}, index=names)
    geoparquet(cells, tmp_path / "cell_metadata_micron_space.parquet", "centroid")
    polygons = pd.DataFrame(
        {
            "geometry": [triangle(0, 0), triangle(1, 1)],
            "geometry_image_space": [triangle(10, 20), triangle(18, 30)],
            "technology": "custom",
        },
        index=names,
    )
    geoparquet(polygons, tmp_path / "cell_polygons.parquet", "geometry")
    return tmp_path


def test_a_segmentation(folder):
    name, found = open_segmentation(folder, TO_PX)
    assert name == "proseg"
    assert found.cells.names.to_pylist() == ["c-1", "c-2"]
    assert (found.cells.x.tolist(), found.cells.y.tolist()) == ([1, 3], [2, 4])
    assert found.counts.cells.to_pylist() == ["c-2", "c-1"]
    assert found.counts.features == ["A", "nan", "B"]
    matrix = found.counts.matrix
    assert (matrix.shape, matrix.axis, matrix.indptr.tolist()) == ((2, 3), 1, [0, 1, 1, 3])
    assert (matrix.indices.tolist(), matrix.data.tolist()) == ([1, 0, 1], [2, 70000, 1])
    assert found.clusters is None


def test_polygons_come_back_from_pixels(folder):
    (rings,) = open_segmentation(folder, TO_PX)[1].outlines.batches()
    assert rings.names.to_pylist() == ["c-1", "c-2"]
    np.testing.assert_allclose(rings.x, [0, 2, 0, 0, 2, 4, 2, 2])
    np.testing.assert_allclose(rings.y, [0, 0, 1, 0, 2, 2, 3, 2])


def test_polygons_in_microns_stay(folder):
    path = folder / "cell_polygons.parquet"
    pq.write_table(pq.read_table(path).drop_columns("geometry_image_space"), path)
    (rings,) = open_segmentation(folder, TO_PX)[1].outlines.batches()
    assert rings.x[:3].tolist() == [0, 8, 0]


def test_columns_are_read_some_at_a_time(folder, monkeypatch):
    whole = open_segmentation(folder, TO_PX)[1].counts.matrix
    monkeypatch.setattr(wide, "_COLUMNS", 1)
    some = open_segmentation(folder, TO_PX)[1].counts.matrix
    assert np.array_equal(whole.data, some.data)
    assert np.array_equal(whole.indices, some.indices)


def test_values_that_float32_would_spoil_stay(folder):
    path = folder / "cell_by_gene_matrix.parquet"
    pd.DataFrame({"A": [2**24 + 1, 0.5]}, index=["a", "b"]).to_parquet(path)
    counts = wide.parquet_counts(path, "counts")
    assert (counts.matrix.data.tolist(), counts.matrix.data.dtype) == ([2**24 + 1, 0.5], np.float64)


def test_everything_missing_is_named(tmp_path):
    with pytest.raises(InputError) as caught:
        open_segmentation(tmp_path, TO_PX)
    for name in ("segmentation_parameters.json", "cell_by_gene_matrix.parquet", "cell_metadata_micron_space.parquet",
                 "cell_polygons.parquet"):  # fmt: skip
        assert name in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"segmentation_approach": 3}', "\xff"])
def test_bad_parameters_are_refused(folder, text):
    (folder / "segmentation_parameters.json").write_text(text, "latin-1")
    with pytest.raises(InputError, match=r"segmentation_parameters\.json"):
        open_segmentation(folder, TO_PX)


BAD = {
    "cell_by_gene_matrix.parquet": [
        (pd.DataFrame({"A": ["x", "y"]}, index=["a", "b"]), "column 'A' holds text"),
        (pd.DataFrame({"A": [1.0, np.nan]}, index=["a", "b"]), "'A' has values that are missing"),
        (pd.DataFrame({"A": [1, 2]}), "has no index of cells"),
    ],
    "cell_metadata_micron_space.parquet": [
        (pd.DataFrame({"geometry": [point(1, 2)] * 2}, index=["a", "a"]), "1 names belong to several cells"),
        (pd.DataFrame({"geometry": [point(1, np.nan), None]}, index=["a", "b"]), "NaN or infinite"),
        (pd.DataFrame({"geometry": [point(1, 2), None]}, index=["a", "b"]), "1 of 2 cells have no finite position"),
        (pd.DataFrame({"x": [1, 2]}, index=["a", "b"]), "no column for geometries"),
    ],
}


@pytest.mark.parametrize(("name", "frame", "message"), [(name, *case) for name, cases in BAD.items() for case in cases])
def test_bad_tables_are_refused(folder, name, frame, message):
    frame.to_parquet(folder / name)
    with pytest.raises(InputError, match=message):
        open_segmentation(folder, TO_PX)
