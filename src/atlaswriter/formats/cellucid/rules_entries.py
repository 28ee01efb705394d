"""What the entries of the manifests mean: the viewer's rules, and the R package's shapes.

Each function takes parsed JSON of any shape and returns a plain value or raises `ReadError`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.findings import ReadError
from atlaswriter.formats.cellucid import layout as names
from atlaswriter.formats.cellucid.rules_files import Payload
from atlaswriter.sources.untrusted import count, number, shown, text

_LATER = "open it with the cellucid version that wrote it, or export again with this layout"


@dataclass(frozen=True)
class Schema:
    """How one kind of values is stored: path pattern, dtype, and bits when quantised."""

    pattern: str
    dtype: str

    @property
    def bits(self) -> int | None:
        """8 or 16, or None for float32."""
        return names.BITS_OF_DTYPE.get(self.dtype)


@dataclass(frozen=True)
class Values:
    """One value per cell: a continuous field, a gene, or outlier quantiles.

    Attributes
    ----------
    payload
        File and dtype: float32, or the uint8 or uint16 codes.
    bounds
        Smallest and largest value, when quantised.
    """

    payload: Payload
    bounds: tuple[float, float] | None

    @property
    def step(self) -> float:
        """Difference between neighbouring codes; 0 when not quantised."""
        if self.bounds is None:
            return 0.0
        return (self.bounds[1] - self.bounds[0]) / names.TOP[names.BITS_OF_DTYPE[self.payload.dtype]]


@dataclass(frozen=True)
class Category:
    """A categorical field.

    Attributes
    ----------
    categories
        Labels; the position is the code.
    codes
        File of the codes.
    missing
        Code of cells without a category.
    centroids
        By dimension, a list of ``{category, position, n_points}``, not yet verified.
    outliers
        Outlier quantiles.
    """

    categories: list[str]
    codes: Payload
    missing: int
    centroids: dict[str, Any]
    outliers: Values


@dataclass(frozen=True)
class Centroid:
    """Where the viewer puts one category's label: position in the points' coordinates."""

    category: str
    position: tuple[float, ...]
    n_points: int


@dataclass(frozen=True)
class Edges:
    """The neighbour graph: files of both ends, and of the weights where a later writer gave them."""

    sources: Payload
    destinations: Payload
    weights: Payload | None
    max_neighbors: int


def as_list(value: Any) -> list[Any]:
    """A list as it is, null and empty objects as no elements, anything else as one element."""
    if isinstance(value, list):
        return value
    return [] if value is None or value == {} else [value]


def as_dict(value: Any, what: str, where: str) -> dict[str, Any]:
    """A JSON object; R writes an empty one as ``[]``, and null means none."""
    if isinstance(value, dict):
        return value
    if value is None or value == []:
        return {}
    raise ReadError("json.shape", where, f"{what} is not an object")


def require_version(identity: Mapping[str, Any]) -> None:
    """Refuse an identity of another version than the viewer of this layout asks for."""
    version = identity.get("version")
    if isinstance(version, bool) or version != names.IDENTITY_VERSION:
        found = f"version is {shown(version)}, this layout has {names.IDENTITY_VERSION}"
        raise ReadError("identity.version", names.IDENTITY, found, _LATER)


def require_format(manifest: Mapping[str, Any], key: str, wanted: str, where: str) -> None:
    """Refuse a manifest of another format."""
    if manifest.get(key) != wanted:
        raise ReadError("manifest.format", where, f"{key} is {shown(manifest.get(key))}, not {wanted!r}", _LATER)


def key_text(key: Any, where: str) -> str:
    """Name of a field as the viewer's JavaScript would turn it into text."""
    if isinstance(key, str):
        return key
    value = number(key, "a name", where)
    return str(int(value)) if value == int(value) else repr(value)


def value_schema(manifest: Mapping[str, Any], where: str, *, prefix: str = "") -> Schema:
    """Schema of continuous values, or with ``prefix="outlier"`` of outlier quantiles."""

    def key(name: str) -> str:
        return f"{prefix}{name[0].upper()}{name[1:]}" if prefix else name

    pattern = placeholder(manifest.get(key("pathPattern")), key("pathPattern"), where)
    schema = Schema(pattern, text(manifest.get(key("dtype")), key("dtype"), where))
    if schema.dtype not in names.DTYPES.values():
        raise ReadError("schema.dtype", where, f"{key('dtype')} {shown(schema.dtype)} is none of this layout")
    quantised = manifest.get(key("quantized"))
    bits = manifest.get("quantizationBits", schema.bits) if not prefix else schema.bits
    if quantised is not (schema.bits is not None) or bits != schema.bits:
        found = f"dtype {schema.dtype}, quantized {shown(quantised)} and {shown(bits)} bits contradict each other"
        raise ReadError("schema.quantised", where, found)
    return schema


def placeholder(pattern: Any, what: str, where: str) -> str:
    """A path pattern, which must leave room for the field's name."""
    result = text(pattern, what, where)
    if "{key}" not in result:
        remedy = _LATER if "{index}" in result else "export again"
        raise ReadError("schema.pattern", where, f"{what} {shown(result)} has no {{key}}", remedy)
    return result


def bounds(low: Any, high: Any, what: str, where: str) -> tuple[float, float]:
    """Bounds of quantised values: finite as float32, the lower one first."""
    try:
        result = number(low, "minimum", where), number(high, "maximum", where)
    except ReadError as error:
        raise ReadError("bounds", where, f"{what}: {error.problem.found}") from None
    with np.errstate(over="ignore"):
        representable = bool(np.isfinite(np.asarray(result).astype(np.float32)).all())
    if not representable or result[0] >= result[1]:
        raise ReadError("bounds", where, f"{what}: {result[0]:g} to {result[1]:g} is not a range of float32")
    return result


def _values(key: str, schema: Schema, limits: list[Any], n_cells: int, where: str) -> Values:
    if len(limits) != (0 if schema.bits is None else 2):
        found = f"{key!a} has {len(limits)} bounds, but the schema says {schema.dtype}"
        raise ReadError("entry.length", where, found)
    payload = Payload(names.resolve(schema.pattern, key), schema.dtype, (n_cells,))
    return Values(payload, bounds(limits[0], limits[1], ascii(key), where) if limits else None)


def value_entry(entry: Any, schema: Schema, n_cells: int, where: str) -> tuple[str, Values]:
    """A continuous field or gene, ``[key]`` or ``[key, min, max]``: its name and values."""
    parts = as_list(entry)
    if not parts:
        raise ReadError("entry.length", where, "an entry is empty")
    key = key_text(parts[0], where)
    return key, _values(key, schema, parts[1:], n_cells, where)


def category_entry(entry: Any, schemas: Mapping[str, Any], n_cells: int, where: str) -> tuple[str, Category]:
    """A categorical field, ``[key, categories, dtype, missing, centroids(, min, max)]``."""
    parts = as_list(entry)
    if len(parts) not in (5, 7):
        raise ReadError("entry.length", where, f"a categorical entry has {len(parts)} parts, not 5 or 7")
    key = key_text(parts[0], where)
    labels = as_list(parts[1])
    if not all(isinstance(label, str) for label in labels):
        raise ReadError("categories.text", where, f"{key!a} has categories that are not text")
    dtype = text(parts[2], "codes dtype", where)
    if dtype not in names.BITS_OF_DTYPE:
        raise ReadError("codes.dtype", where, f"{key!a} has codes of dtype {shown(dtype)}")
    pattern = placeholder(schemas.get("codesPathPattern"), "codesPathPattern", where)
    path = names.resolve(pattern, key, names.EXTENSIONS[names.BITS_OF_DTYPE[dtype]])
    if isinstance(parts[4], list) and parts[4]:
        raise ReadError("centroids.shape", where, f"{key!a} has centroids of an older format", "export again")
    category = Category(
        categories=labels,
        codes=Payload(path, dtype, (n_cells,)),
        missing=count(parts[3], "missing code", where),
        centroids=as_dict(parts[4], f"centroids of {key!a}", where),
        outliers=_values(key, value_schema(schemas, where, prefix="outlier"), parts[5:], n_cells, where),
    )
    return key, category


def centroid_entries(raw: Any, dim: int, key: str, where: str) -> list[Centroid]:
    """Centroids of one field in one dimension."""
    result = []
    for item in as_list(raw):
        what = f"a {dim}d centroid of {key!a}"
        centroid = as_dict(item, what, where)
        position = tuple(number(x, f"a coordinate of {what}", where) for x in as_list(centroid.get("position")))
        if len(position) != dim:
            raise ReadError("centroids.shape", where, f"{what} has {len(position)} coordinates")
        label = text(centroid.get("category"), f"the category of {what}", where)
        result.append(Centroid(label, position, count(centroid.get("n_points"), f"n_points of {what}", where)))
    return result


def edges_entry(manifest: Mapping[str, Any], where: str) -> Edges:
    """Files of the neighbour graph."""
    require_format(manifest, "format", names.EDGES_FORMAT, where)
    dtype = text(manifest.get("index_dtype"), "index_dtype", where)
    sizes = {name: size for name, size, _ in names.INDEX_DTYPES}
    if manifest.get("index_bytes") != sizes.get(dtype, -1):
        found = f"index_dtype {shown(dtype)} and index_bytes {shown(manifest.get('index_bytes'))} do not fit"
        raise ReadError("edges.dtype", where, found)
    shape = (count(manifest.get("n_edges"), "n_edges", where),)

    def payload(key: str, dtype: str) -> Payload:
        return Payload(text(manifest.get(key), key, where), dtype, shape)

    weights = payload("weightsPath", "float64") if "weightsPath" in manifest else None
    max_neighbors = count(manifest.get("max_neighbors"), "max_neighbors", where)
    return Edges(payload("sourcesPath", dtype), payload("destinationsPath", dtype), weights, max_neighbors)


def dimensions(entry: Mapping[str, Any], where: str) -> list[int]:
    """``available_dimensions`` of embeddings or of a vector field."""
    found = as_list(entry.get("available_dimensions"))
    result = [count(dim, "a dimension", where) for dim in found]
    if not result or sorted(set(result)) != result or not set(result) <= set(names.DIMENSIONS):
        raise ReadError("dimensions", where, f"available_dimensions are {listed(result)}, not a rising list of 1 to 4")
    return result


def points_payload(embeddings: Mapping[str, Any], dim: int, n_cells: int) -> Payload:
    """Points of one embedding: the path named, or the one that the viewer falls back to."""
    files = as_dict(embeddings.get("files"), "embeddings.files", names.IDENTITY)
    path = files.get(f"{dim}d", names.points_file(dim, False))
    return Payload(text(path, f"path of {dim}d points", names.IDENTITY), "float32", (n_cells, dim))


def vectors_payload(field_id: str, entry: Mapping[str, Any], dim: int, n_cells: int) -> Payload:
    """One vector field in one dimension."""
    files = as_dict(entry.get("files"), f"files of vector field {field_id!a}", names.IDENTITY)
    what = f"{dim}d path of vector field {field_id!a}"
    return Payload(text(files.get(f"{dim}d"), what, names.IDENTITY), "float32", (n_cells, dim))


def vector_entries(identity: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Vector fields of the identity by id."""
    outer = as_dict(identity.get("vector_fields"), "vector_fields", names.IDENTITY)
    fields = as_dict(outer.get("fields"), "vector_fields.fields", names.IDENTITY)
    return {key: as_dict(entry, f"vector field {key!a}", names.IDENTITY) for key, entry in fields.items()}
