"""Outlines of cells in GeoJSON (RFC 7946), read feature by feature."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.geometry import CELL_COLUMNS
from atlaswriter.sources.shapes import Shapes, exteriors
from atlaswriter.sources.spatial import Rings

_GZIP_SIGNATURE = b"\x1f\x8b"

# Characters read at once, and of the largest feature (or other member of the file) that is read.
_PIECE, _LONGEST = 1 << 18, 1 << 22

# Features of a batch; it ends earlier when they have this many vertices.
_FEATURES, _VERTICES = 8192, 1 << 18

# Lists of features: those of a FeatureCollection, and of Baysor's GeometryCollection, whose geometries have names.
_LISTS = ("features", "geometries")

_SPACE = " \t\r\n"


def is_json(path: Path) -> bool:
    """Whether a file, or what is gzip-compressed in it, begins like JSON; `InputError` if there is none."""
    with translated_damage(str(path), "disk"), _opened(path) as file:
        return file.read(64).lstrip().startswith(("{", "["))


@contextmanager
def _opened(path: Path) -> Iterator[IO[str]]:
    with path.open("rb") as raw:
        packed = raw.read(2) == _GZIP_SIGNATURE
    opener: Any = gzip.open if packed else open
    with opener(path, "rt", encoding="utf-8-sig", errors="surrogateescape") as file:
        yield file


class GeoJson:
    """Polygons and multipolygons of GeoJSON: `Outlines`.

    Parameters
    ----------
    path
        A FeatureCollection, a list of features, or a GeometryCollection whose geometries have the name of a cell
        beside them; may be gzip-compressed.
    cell
        Property of the cells' names; by default the id of a feature, or a property of a usual name.
    where
        What messages call it.
    """

    # Text, once more while it grows, and what it is parsed to; a batch as Python's numbers, as arrays, and as rings.
    room = 8 * (_PIECE + _LONGEST) + _VERTICES * 2 * (8 + 24 + 3 * 8)

    def __init__(self, path: str | os.PathLike[str], cell: str | None = None, where: str | None = None) -> None:
        self._path, self._cell, self.location = Path(path), cell, where or str(path)
        with translated_damage(self.location, "disk"):
            self.n_bytes = self._path.stat().st_size

    def batches(self) -> Iterator[Rings]:
        """All rings."""
        batch = _Batch(self.location)
        with translated_damage(self.location, "disk"), _opened(self._path) as file:
            for number, feature in enumerate(_features(_Text(file))):
                where = f"{self.location}, feature {number:,}"
                batch.add(self._name(feature, where), _geometry(feature), where)
                if batch.is_full:
                    yield batch.rings()
                    batch = _Batch(self.location)
        yield batch.rings()

    def _name(self, feature: Any, where: str) -> str:
        known: dict[str, Any] = {}
        if isinstance(feature, dict):
            properties = feature.get("properties")
            known = {**feature, **(properties if isinstance(properties, dict) else {})}
        order = [self._cell] if self._cell is not None else ["id", *CELL_COLUMNS]
        name = next((known[key] for key in order if key in known), None)
        if isinstance(name, str | int) and not isinstance(name, bool):
            return str(name)
        wanted = f"property {self._cell!r}" if self._cell is not None else "id"
        remedy = f"name the property of the cells; there are {listed(known)}"
        raise InputError(Problem(where, f"has no {wanted} that is text or an integer", remedy))


def _geometry(feature: dict[str, Any]) -> Any:
    return feature.get("geometry") if "geometry" in feature or feature.get("type") == "Feature" else feature


class _Batch:
    """Features on their way into arrays."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._names: list[str] = []
        self._parts, self._rings, self._vertices = [0], [0], [0]
        self._x: list[float] = []
        self._y: list[float] = []

    @property
    def is_full(self) -> bool:
        return len(self._names) >= _FEATURES or len(self._x) >= _VERTICES

    def add(self, name: str, geometry: Any, where: str) -> None:
        """One feature; a geometry that is null has no parts."""
        try:
            for polygon in _polygons(geometry):
                for ring in polygon:
                    self._x.extend(float(vertex[0]) for vertex in ring)
                    self._y.extend(float(vertex[1]) for vertex in ring)
                    self._vertices.append(len(self._x))
                self._rings.append(len(self._vertices) - 1)
        except (TypeError, ValueError, LookupError, OverflowError):
            remedy = "write polygons as lists of rings of [x, y]"
            raise InputError(Problem(where, "is no polygon or multipolygon of GeoJSON", remedy)) from None
        self._names.append(name)
        self._parts.append(len(self._rings) - 1)

    def rings(self) -> Rings:
        """What was added."""
        parts, rings, vertices = (np.array(each, np.int64) for each in (self._parts, self._rings, self._vertices))
        names = pa.array(self._names, pa.string())
        shapes = Shapes(parts, rings, vertices, np.array(self._x, np.float64), np.array(self._y, np.float64))
        outer = exteriors(shapes, self._where)
        return Rings(names.take(outer.owners), outer.offsets, outer.x, outer.y, outer.n_dropped)


def _polygons(geometry: Any) -> list[Any]:
    if geometry is None:
        return []
    kind, coordinates = geometry["type"], geometry["coordinates"]
    if kind not in ("Polygon", "MultiPolygon"):
        raise ValueError(kind)
    return [coordinates] if kind == "Polygon" else list(coordinates)


class _Text:
    """Text of a file that is looked at value by value."""

    def __init__(self, file: IO[str]) -> None:
        self._file, self._text, self._at = file, "", 0
        self._decode = json.JSONDecoder().raw_decode

    def mark(self, wanted: str) -> str:
        """Go behind the next character, which must be one of those wanted."""
        found = self._next()
        if found not in wanted:
            raise ValueError(f"{found!r} where one of {wanted!r} is needed")
        self._at += 1
        return found

    def is_next(self, wanted: str) -> bool:
        """Whether this is the next character."""
        return self._next() == wanted

    def _next(self) -> str:
        """The next character that is no space."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more(_PIECE):
                raise ValueError("it ends too early")

    def value(self) -> Any:
        """Read the value that begins here, behind any space."""
        size = _PIECE
        self._next()
        while True:
            try:
                found, end = self._decode(self._text, self._at)
            except json.JSONDecodeError:
                end = len(self._text)
            # A number may go on behind the end of the piece.
            if end < len(self._text):
                self._at = end
                return found
            if len(self._text) - self._at > _LONGEST:
                raise ValueError(f"no value ends within {_LONGEST:,} characters")
            if not self._more(size):
                raise ValueError("it ends in the middle of a value, or is no JSON")
            size *= 2

    def _more(self, size: int) -> bool:
        piece = self._file.read(size)
        self._text, self._at = self._text[self._at :] + piece, 0
        return bool(piece)


def _features(text: _Text) -> Iterator[Any]:
    """Features of a collection or of a bare list."""
    if text.mark("{[") == "[":
        yield from _items(text)
        return
    found, ends = False, ","
    while ends == ",":
        key = text.value()
        text.mark(":")
        if key in _LISTS:
            found = True
            text.mark("[")
            yield from _items(text)
        else:
            text.value()
        ends = text.mark(",}")
    if not found:
        raise ValueError("there is no list of features")


def _items(text: _Text) -> Iterator[Any]:
    """Values of a list behind its bracket."""
    if text.is_next("]"):
        text.mark("]")
        return
    yield text.value()
    while text.mark(",]") == ",":
        yield text.value()
