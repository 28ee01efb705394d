"""Outlines of cells: GeoParquet, nested lists, GeoJSON, vertices; which of them a file is; and what is refused."""

import gzip
import json
import struct

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from atlaswriter.errors import InputError
from atlaswriter.sources import geojson
from atlaswriter.sources.geometry import GeoParquet, Moved, cells_of, names_of, open_outlines
from atlaswriter.sources.shapes import affine, circles, moments, of_nested, read_affine

SQUARE = [(0, 0), (4, 0), (4, 4), (0, 4), (0, 0)]
HOLE = [(1, 1), (2, 1), (2, 2), (1, 1)]
SMALL = [(10, 10), (11, 10), (11, 11), (10, 10)]
TRIANGLE = [(0, 0), (3, 0), (0, 3), (0, 0)]


def wkb(*polygons):
    """A polygon, or several as a multipolygon; a point for a pair of numbers."""
    if isinstance(polygons[0], tuple):
        return struct.pack("<BI2d", 1, 1, *polygons[0])
    bodies = []
    for rings in polygons:
        body = struct.pack("<BII", 1, 3, len(rings))
        for ring in rings:
            body += struct.pack("<I", len(ring)) + np.array(ring, "<f8").tobytes()
        bodies.append(body)
    return bodies[0] if len(bodies) == 1 else struct.pack("<BII", 1, 6, len(bodies)) + b"".join(bodies)


def of(outlines):
    """Everything that outlines give, by cell, and what they dropped."""
    found, dropped = {}, 0
    for rings in outlines.batches():
        dropped += rings.n_dropped
        for number, name in enumerate(rings.names.to_pylist()):
            part = slice(rings.offsets[number], rings.offsets[number + 1])
            found.setdefault(name, []).append(list(zip(rings.x[part], rings.y[part], strict=True)))
    return found, dropped


@pytest.fixture
def geoparquet(tmp_path):
    def write(columns, **options):
        path = tmp_path / "polygons.parquet"
        pq.write_table(pa.table(columns), path, **options)
        return path

    return write


GEOMETRIES = [wkb([SQUARE, HOLE]), wkb([SMALL], [SQUARE]), None, wkb([TRIANGLE]), wkb([])]


def test_geoparquet_gives_the_exterior_of_the_largest_part(geoparquet):
    path = geoparquet({"cell_id": ["a", "b", "c", "d", "e"], "geometry": GEOMETRIES}, row_group_size=2)
    outlines = open_outlines(path)
    assert isinstance(outlines, GeoParquet)
    # The hole of a, the small part of b, and c and e, which have nothing.
    assert of(outlines) == ({"a": [SQUARE], "b": [SQUARE], "d": [TRIANGLE]}, 4)
    assert outlines.n_bytes == path.stat().st_size
    assert outlines.room > 0


def test_integers_name_cells_exactly(geoparquet):
    names = [2**62 + 1, 2**62 + 2]
    found, _ = of(open_outlines(geoparquet({"EntityID": names, "Geometry": GEOMETRIES[:2]})))
    assert list(found) == [str(2**62 + 1), str(2**62 + 2)]


def test_rows_of_one_value_are_chosen(geoparquet):
    path = geoparquet({"EntityID": [7, 7, 8], "ZIndex": [0, 1, 1], "Geometry": [GEOMETRIES[0], *GEOMETRIES[3:]]})
    found = of(GeoParquet(path, only=("ZIndex", 1)))
    assert found == ({"7": [TRIANGLE]}, 1)


@pytest.mark.parametrize("index", [["a", "b"], [5, 6], None])
def test_the_index_of_pandas_names_cells(tmp_path, index):
    pd = pytest.importorskip("pandas")
    path = tmp_path / "shapes.parquet"
    pd.DataFrame({"geometry": GEOMETRIES[:2]}, index=index).to_parquet(path)
    found, _ = of(GeoParquet(path, by_index=True))
    assert list(found) == ([str(each) for each in index] if index else ["0", "1"])


def test_circles_become_polygons_of_the_same_area(geoparquet):
    path = geoparquet({"cell_id": [1, 2], "geometry": [wkb((5, 6)), wkb((7, 8))], "radius": [1.0, 2.0]})
    (rings,) = GeoParquet(path).batches()
    area, x, y = moments(rings.offsets, rings.x, rings.y)
    np.testing.assert_allclose(np.diff(rings.offsets), 32)
    np.testing.assert_allclose(area, [np.pi, 4 * np.pi])
    np.testing.assert_allclose([x, y], [[5, 7], [6, 8]])
    names, x, y = GeoParquet(path).centers()
    assert (names.to_pylist(), x.tolist(), y.tolist()) == (["1", "2"], [5, 7], [6, 8])


def test_circles_that_are_null_or_nowhere(geoparquet):
    columns = {"cell_id": [1, 2, 3], "geometry": [wkb((5, 6)), None, wkb((7, 8))], "radius": [1.0, 1.0, 2.0]}
    found, dropped = of(GeoParquet(geoparquet(columns)))
    assert (list(found), dropped) == (["1", "3"], 1)
    with pytest.raises(InputError, match="NaN or infinite"):
        of(GeoParquet(geoparquet({**columns, "radius": [1.0, 1.0, np.nan]})))


def test_centers_are_those_of_the_area(geoparquet):
    names, x, y = GeoParquet(geoparquet({"cell": ["a", "b", "c"], "geometry": GEOMETRIES[1:4]})).centers()
    assert names.to_pylist() == ["a", "b", "c"]
    np.testing.assert_allclose([x, y], [[2, np.nan, 1], [2, np.nan, 1]])


def test_rings_without_area_have_the_mean_of_their_vertices():
    x = np.array([0.0, 2, 4, 7, 1e9, 1e9 + 1, 1e9])
    y = np.array([1.0, 1, 1, 7, 0, 0, 1])
    area, cx, cy = moments(np.array([0, 3, 3, 4, 7]), x, y)
    np.testing.assert_allclose(area, [0, 0, 0, 0.5])
    np.testing.assert_allclose(cx, [2, np.nan, 7, 1e9 + 1 / 3])
    np.testing.assert_allclose(cy, [1, np.nan, 7, 1 / 3])


PAIRS = pa.list_(pa.float64())
COORDINATES = {
    "lists": (PAIRS, list),
    "fixed": (pa.list_(pa.float32(), 2), list),
    "struct": (pa.struct([("x", pa.float64()), ("y", pa.float64())]), lambda pair: dict(zip("xy", pair, strict=True))),
}


@pytest.mark.parametrize("kind", COORDINATES)
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_nested_lists(geoparquet, kind, depth):
    coordinate, made = COORDINATES[kind]
    squares = [
        [[[made(pair) for pair in ring] for ring in part] for part in cell] for cell in ([[SQUARE, HOLE]], [[SMALL]])
    ]
    values = [cell if depth == 3 else cell[0] if depth == 2 else cell[0][0] for cell in squares]
    nested = coordinate
    for _ in range(depth):
        nested = pa.list_(nested)
    path = geoparquet({"name": [1, 2, 3], "GEOMETRY": pa.array([values[0], None, values[1]], nested)})
    assert of(open_outlines(path)) == ({"1": [SQUARE], "3": [SMALL]}, 1 if depth == 1 else 2)


def test_nested_lists_may_begin_anywhere():
    values = pa.array([[[[9.0, 9.0]]], [[[*pair] for pair in SQUARE]]], pa.list_(pa.list_(PAIRS)))[1:]
    assert of_nested(values, "here").x.tolist() == [pair[0] for pair in SQUARE]


@pytest.mark.parametrize("vertex", [[1.0], None])
def test_vertices_without_y_are_refused(vertex):
    with pytest.raises(InputError, match=r"less than two coordinates|vertices are null"):
        of_nested(pa.array([[[[0.0, 1.0], vertex]]], pa.list_(pa.list_(PAIRS))), "here")


BAD_PARQUET = {
    "no geometries": ({"cell_id": ["a"], "area": [1.0]}, "no column for x of vertices"),
    "no cells": ({"geometry": GEOMETRIES[:1], "area": [1.0]}, "has no column for the cell"),
    "cut short": ({"cell_id": ["a"], "geometry": [GEOMETRIES[0][:-1]]}, "from row 0.*cut short"),
    "no polygon": ({"cell_id": ["a"], "geometry": [b"\1\2\0\0\0\0\0\0\0"]}, "is no point, polygon"),
    "not a number": ({"cell_id": ["a"], "geometry": [wkb([[(0, np.nan), (1, 1), (2, 0)]])]}, "NaN or infinite"),
    "nameless": ({"cell_id": ["a", None], "geometry": GEOMETRIES[:2]}, "1 of 2 identifiers are missing"),
    "inexact": ({"cell_id": [1.5], "geometry": GEOMETRIES[:1]}, "type double are not exact"),
}


@pytest.mark.parametrize("what", BAD_PARQUET)
def test_bad_geoparquet_is_refused(geoparquet, what):
    columns, message = BAD_PARQUET[what]
    with pytest.raises(InputError, match=message):
        of(open_outlines(geoparquet(columns)))


def test_damaged_parquet_is_refused(geoparquet):
    path = geoparquet({"cell_id": ["a"] * 9000, "geometry": GEOMETRIES[:1] * 9000})
    content = path.read_bytes()
    for broken in (content[:-9], content[:40] + bytes(200) + content[240:], b"PAR1"):
        path.write_bytes(broken)
        with pytest.raises(InputError, match=r"polygons\.parquet"):
            of(open_outlines(path))


def test_names_that_are_not_utf8_are_refused():
    with pytest.raises(InputError, match="here"):
        names_of(pa.array([b"\xff"], pa.binary()), "here")


def feature(number, coordinates, kind="Polygon", **more):
    geometry = None if coordinates is None else {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "id": number, "properties": {"cell": f"c{number}"}, "geometry": geometry, **more}


FEATURES = [
    feature(1, [SQUARE, HOLE]),
    feature(2, [[SMALL], [SQUARE]], "MultiPolygon"),
    feature(3, None),
    feature(4, [[(*pair, 9.5) for pair in TRIANGLE]]),
]
GEOJSON = {
    "collection": {"type": "FeatureCollection", "crs": {"a": [1]}, "features": FEATURES, "bbox": [0, 0, 1, 1]},
    "list": FEATURES,
    "baysor": {
        "geometries": [{**(each["geometry"] or {}), "cell": each["id"]} for each in FEATURES if each["geometry"]],
        "type": "GeometryCollection",
    },
}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("form", GEOJSON)
@pytest.mark.parametrize("piece", [1, 50, 1 << 18])
def test_geojson(tmp_path, monkeypatch, form, indent, piece):
    monkeypatch.setattr(geojson, "_PIECE", piece)
    path = tmp_path / "cells.geojson.gz"
    path.write_bytes(gzip.compress(json.dumps(GEOJSON[form], indent=indent).encode()))
    assert of(open_outlines(path)) == ({"1": [SQUARE], "2": [SQUARE], "4": [TRIANGLE]}, 2 + (form != "baysor"))


def test_a_property_names_the_cells_of_geojson(tmp_path):
    path = tmp_path / "cells.json"
    path.write_text("\ufeff" + json.dumps(GEOJSON["collection"]), "utf-8")
    assert list(of(open_outlines(path, "cell"))[0]) == ["c1", "c2", "c4"]
    with pytest.raises(InputError, match=r"feature 0: has no property 'area'.*there are 'type', 'id'"):
        of(open_outlines(path, "area"))


def test_geojson_comes_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(geojson, "_FEATURES", 2)
    path = tmp_path / "cells.json"
    path.write_text(json.dumps(FEATURES))
    assert [len(rings.names) for rings in open_outlines(path).batches()] == [2, 1, 0]


@pytest.mark.parametrize("text", ["[]", '{"features": []}', "[ ]"])
def test_empty_geojson(tmp_path, text):
    path = tmp_path / "cells.json"
    path.write_text(text)
    assert of(open_outlines(path)) == ({}, 0)


BAD_GEOJSON = {
    "cut short": (json.dumps(GEOJSON["collection"])[:-200], "ends in the middle|too early"),
    "no JSON": ("{features: 1}", "is no JSON"),
    "no features": ('{"type": "Topology"}', "no list of features"),
    "empty": ("{}", "no JSON"),
    "no list": ('{"features": {}}', "where one of"),
    "a number": ("[1]", "has no id"),
    "a point": (json.dumps([feature(1, [1, 2], "Point")]), "feature 0: is no polygon"),
    "flat": (json.dumps([feature(1, [1, 2])]), "feature 0: is no polygon"),
    "text": (json.dumps([feature(1, [[["a", "b"]] * 3])]), "feature 0: is no polygon"),
    "huge": (json.dumps([feature(1, [[[10**400, 1]] * 3])]), "feature 0: is no polygon"),
    "not a number": (json.dumps([feature(1, [[[float("nan"), 1]] * 3])]), "NaN or infinite"),
    "no name": (json.dumps([feature(None, [SQUARE], properties=None)]), "feature 0: has no id"),
    "deep": ("[" * 100000, "damaged"),
}


@pytest.mark.parametrize("what", BAD_GEOJSON)
def test_bad_geojson_is_refused(tmp_path, what):
    text, message = BAD_GEOJSON[what]
    path = tmp_path / "cells.geojson"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        of(open_outlines(path))


def test_a_feature_without_end_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(geojson, "_LONGEST", 1000)
    monkeypatch.setattr(geojson, "_PIECE", 100)
    path = tmp_path / "cells.json"
    path.write_text('[{"a": "' + "b" * 5000 + '"}]')
    with pytest.raises(InputError, match="no value ends within"):
        of(open_outlines(path))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_tables_of_vertices(tmp_path, suffix):
    path = tmp_path / f"vertices.{suffix}"
    x, y = zip(*SQUARE, *TRIANGLE, strict=True)
    cells = [11] * len(SQUARE) + [12] * len(TRIANGLE)
    table = pa.table({"fov": cells, "cell": cells, "x_global_px": x, "y_global_px": y})
    pq.write_table(table, path) if suffix == "parquet" else pyarrow.csv.write_csv(table, path)
    assert of(open_outlines(path))[0] == {"11": [SQUARE], "12": [TRIANGLE]}
    assert of(open_outlines(path, "fov", "x_global_px", "y_global_px"))[0] == {"11": [SQUARE], "12": [TRIANGLE]}
    with pytest.raises(InputError, match=r"has no column 'z' → name one of its columns: 'fov', 'cell'"):
        open_outlines(path, x="z")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.parquet"):
        open_outlines(tmp_path / "gone.parquet")


def test_moved_outlines(geoparquet):
    path = geoparquet({"cell_id": ["d"], "geometry": [wkb([TRIANGLE])]})
    outlines = Moved(GeoParquet(path), np.array([[0, 2, 1], [1, 0, 5], [0, 0, 1.0]]))
    assert of(outlines)[0] == {"d": [[(1, 5), (1, 8), (7, 5), (1, 5)]]}
    assert outlines.n_bytes == path.stat().st_size


def test_circles_of_no_cells():
    offsets, x, _ = circles(*np.empty((3, 0)))
    assert (offsets.tolist(), x.size) == ([0], 0)


def test_cells_are_named_once_and_somewhere():
    names = pa.array(["a", "b", "a", "c"])
    with pytest.raises(
        InputError, match=r"(?s)1 names belong to several cells, such as 'a'.*1 of 4 cells have no finite"
    ):
        cells_of(names, np.array([0, 1, 2, np.inf]), np.zeros(4), "cells")
    assert cells_of(names[1:], np.zeros(3), np.zeros(3), "cells").where == "cells"


@pytest.mark.parametrize(
    "text", ["9.2 0 -5\n0 9.2 7\n0 0 1\n", "9.2,0,-5\r\n0,9.2,7\r\n0,0,1", "9.2\t0\t-5\n0\t9.2\t7\n0\t0\t1\n\n"]
)
def test_matrices_in_text(tmp_path, text):
    path = tmp_path / "transform.csv"
    path.write_text(text)
    assert read_affine(path).tolist() == [[9.2, 0, -5], [0, 9.2, 7], [0, 0, 1]]


@pytest.mark.parametrize(
    "matrix",
    [[[1, 0], [0, 1]], [[0, 0, 1], [0, 0, 1], [0, 0, 1]], [[1, 0, 0], [0, 1, 0], [0, 1, 1]], "abc", [[1, 2], [3]],
     [[1, 0, np.nan], [0, 1, 0], [0, 0, 1]]],
)  # fmt: skip
def test_other_matrices_are_refused(matrix):
    with pytest.raises(InputError, match="transform: is no invertible affine matrix"):
        affine(matrix, "transform")
