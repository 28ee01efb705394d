"""Every file name and key of a Cellucid export folder (layout v1), and nothing else.

Written for the viewer that reads cellucid 0.0.9's exports; where it costs nothing also for the
stricter one that followed (``continuous`` fields first, exact key sets, no extra keys).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from atlaswriter.names import safe_name

IDENTITY = "dataset_identity.json"
DATASETS = "datasets.json"
VECTORS_DIR = "vectors"
IDENTITY_VERSION = 2
MANIFEST_FORMAT = "compact_v1"
EDGES_FORMAT = "edge_pairs"
LATENT_KEY = "latent_space"
DIMENSIONS = (1, 2, 3, 4)
# The viewer shows at most three dimensions.
SHOWN_DIMENSIONS = (1, 2, 3)

# Quantised codes run from 0 to TOP; the next one means "missing".
TOP = {8: 254, 16: 65534}
MISSING = {8: 255, 16: 65535}
EXTENSIONS = {None: "f32", 8: "u8", 16: "u16"}
DTYPES = {None: "float32", 8: "uint8", 16: "uint16"}
BITS_OF_DTYPE = {dtype: bits for bits, dtype in DTYPES.items() if bits is not None}

# Categories that fit below the missing code: 0.0.9 stops one short of the 255 that uint8 could hold.
MAX_CATEGORIES = {8: 254, 16: 65534}

INDEX_DTYPES = (("uint16", 2, 65_535), ("uint32", 4, 4_294_967_295), ("uint64", 8, 2**64 - 1))


@dataclass(frozen=True)
class Layout:
    """Names that `prepare` lets the caller change; the viewer finds the default ones."""

    obs_manifest: str = "obs_manifest.json"
    obs_dir: str = "obs"
    var_manifest: str = "var_manifest.json"
    var_dir: str = "var"
    connectivity_manifest: str = "connectivity_manifest.json"
    connectivity_dir: str = "connectivity"

    def manifests(self) -> tuple[str, ...]:
        """Names of the JSON files, identity last as it is written last."""
        return (self.obs_manifest, self.var_manifest, self.connectivity_manifest, IDENTITY)

    def entries(self) -> set[str]:
        """Every name that an export may have at its top level."""
        return {getattr(self, item.name) for item in fields(self)} | reserved_names()


def reserved_names() -> set[str]:
    """Top-level names that no `Layout` changes."""
    return {IDENTITY, VECTORS_DIR} | {points_file(dim, gz) for dim in DIMENSIONS for gz in (False, True)}


def gz_suffix(compressed: bool) -> str:
    """Ending of every payload of a compressed export."""
    return ".gz" if compressed else ""


def points_file(dim: int, compressed: bool) -> str:
    """Path of the points of one embedding: float32 (n_cells, dim), row-major."""
    return f"points_{dim}d.bin{gz_suffix(compressed)}"


def vectors_file(field_id: str, dim: int, compressed: bool) -> str:
    """Path of one vector field: float32 (n_cells, dim), row-major."""
    return f"{VECTORS_DIR}/{field_id}_{dim}d.bin{gz_suffix(compressed)}"


def values_pattern(directory: str, bits: int | None, compressed: bool) -> str:
    """Path pattern of continuous values, with ``{key}`` for the safe name."""
    return f"{directory}/{{key}}.values.{EXTENSIONS[bits]}{gz_suffix(compressed)}"


def codes_pattern(directory: str, compressed: bool) -> str:
    """Path pattern of categorical codes, with ``{key}`` and ``{ext}``."""
    return f"{directory}/{{key}}.codes.{{ext}}{gz_suffix(compressed)}"


def outliers_pattern(directory: str, bits: int | None, compressed: bool) -> str:
    """Path pattern of outlier quantiles, with ``{key}``."""
    return f"{directory}/{{key}}.outliers.{EXTENSIONS[bits]}{gz_suffix(compressed)}"


def edges_file(directory: str, end: str, compressed: bool) -> str:
    """Path of one end of the edges, ``end`` being ``"src"`` or ``"dst"``."""
    return f"{directory}/edges.{end}.bin{gz_suffix(compressed)}"


def resolve(pattern: str, key: str, ext: str = "") -> str:
    """Path that the viewer makes of a pattern: its safe-name rule, first placeholder only."""
    return pattern.replace("{key}", safe_name(key), 1).replace("{ext}", ext, 1)


def codes_bits(n_categories: int, dtype: str) -> int:
    """Width of categorical codes: as asked for, or for ``"auto"`` the smallest that holds them."""
    if dtype == "auto":
        return 8 if n_categories <= MAX_CATEGORIES[8] else 16
    return BITS_OF_DTYPE[dtype]


def index_dtype(n_cells: int) -> tuple[str, int]:
    """Dtype name and bytes of edge ends."""
    return next((name, size) for name, size, largest in INDEX_DTYPES if n_cells <= largest)


def default_dimension(dimensions: Sequence[int]) -> int:
    """The dimension that is shown first: 3, else 2, else 1."""
    shown = [dim for dim in dimensions if dim in SHOWN_DIMENSIONS]
    return max(shown or dimensions)


def _value_schema(directory: str, bits: int | None, compressed: bool) -> dict[str, Any]:
    schema: dict[str, Any] = {
        "pathPattern": values_pattern(directory, bits, compressed),
        "ext": EXTENSIONS[bits],
        "dtype": DTYPES[bits],
        "quantized": bits is not None,
    }
    if bits is not None:
        schema["quantizationBits"] = bits
    return schema


def obs_manifest(
    layout: Layout,
    *,
    n_cells: int,
    centroid_outlier_quantile: float | None,
    compression: int | None,
    bits: int | None,
    continuous: Sequence[Sequence[Any]],
    categorical: Sequence[Sequence[Any]],
) -> dict[str, Any]:
    """``obs_manifest.json``.

    `continuous` holds ``[key]`` or ``[key, min, max]``; `categorical` holds ``[key, categories,
    codes dtype, missing code, centroids by dimension]``, with ``outlier min, outlier max`` behind
    when `bits` is given.
    """
    compressed = compression is not None
    schemas: dict[str, Any] = {}
    if continuous:
        schemas["continuous"] = _value_schema(layout.obs_dir, bits, compressed)
    if categorical:
        schemas["categorical"] = {
            "codesPathPattern": codes_pattern(layout.obs_dir, compressed),
            "outlierPathPattern": outliers_pattern(layout.obs_dir, bits, compressed),
            "outlierExt": EXTENSIONS[bits],
            "outlierDtype": DTYPES[bits],
            "outlierQuantized": bits is not None,
        }
    return {
        "_format": MANIFEST_FORMAT,
        "n_points": n_cells,
        "centroid_outlier_quantile": centroid_outlier_quantile,
        "latent_key": LATENT_KEY,
        "compression": compression,
        "_obsSchemas": schemas,
        "_continuousFields": list(continuous),
        "_categoricalFields": list(categorical),
    }


def var_manifest(
    layout: Layout,
    *,
    n_cells: int,
    gene_id_column: str | None,
    compression: int | None,
    bits: int | None,
    genes: Sequence[Sequence[Any]],
) -> dict[str, Any]:
    """``var_manifest.json``; `genes` holds ``[gene]`` or ``[gene, min, max]``."""
    return {
        "_format": MANIFEST_FORMAT,
        "n_points": n_cells,
        "var_gene_id_column": gene_id_column,
        "compression": compression,
        "quantization": bits,
        "_varSchema": {"kind": "continuous", **_value_schema(layout.var_dir, bits, compression is not None)},
        "fields": list(genes),
    }


def connectivity_manifest(
    layout: Layout, *, n_cells: int, n_edges: int, max_neighbors: int, compression: int | None
) -> dict[str, Any]:
    """``connectivity_manifest.json``; `max_neighbors` is the largest degree, self-loops not counted."""
    dtype, size = index_dtype(n_cells)
    return {
        "format": EDGES_FORMAT,
        "n_cells": n_cells,
        "n_edges": n_edges,
        "max_neighbors": max_neighbors,
        "index_bytes": size,
        "index_dtype": dtype,
        "sourcesPath": edges_file(layout.connectivity_dir, "src", compression is not None),
        "destinationsPath": edges_file(layout.connectivity_dir, "dst", compression is not None),
        "compression": compression,
    }


def vector_field(field_id: str, dimensions: Sequence[int], compressed: bool) -> dict[str, Any]:
    """One entry of the identity's ``vector_fields.fields``."""
    basis = field_id.removesuffix("_umap") if field_id.endswith("_umap") else field_id
    words = basis.replace("_", " ").strip()
    title = words[:1].upper() + words[1:] if words else field_id
    return {
        "label": f"{title} (UMAP)" if field_id.endswith("_umap") else title,
        "available_dimensions": list(dimensions),
        "default_dimension": max(dimensions),
        "files": {f"{dim}d": vectors_file(field_id, dim, compressed) for dim in dimensions},
        # 0.0.9 leaves the basis out of other fields; the strict viewer wants it, and points are the UMAP's.
        "basis": "umap",
    }


def identity(
    *,
    dataset: Mapping[str, str],
    created_at: str,
    writer: str,
    n_cells: int,
    n_genes: int,
    obs_fields: Sequence[Mapping[str, Any]],
    n_edges: int | None,
    dimensions: Sequence[int],
    settings: Mapping[str, Any],
    source: Mapping[str, str],
    vectors: Mapping[str, Sequence[int]],
) -> dict[str, Any]:
    """``dataset_identity.json``.

    `dataset` has id, name and description; `obs_fields` are ``{key, kind[, n_categories]}`` with
    the continuous ones first; `vectors` maps field ids to their dimensions.
    """
    n_categorical = sum(entry["kind"] == "category" for entry in obs_fields)
    compressed = settings["compression"] is not None
    result: dict[str, Any] = {
        "version": IDENTITY_VERSION,
        **dataset,
        "created_at": created_at,
        "cellucid_data_version": writer,
        "stats": {
            "n_cells": n_cells,
            "n_genes": n_genes,
            "n_obs_fields": len(obs_fields),
            "n_categorical_fields": n_categorical,
            "n_continuous_fields": len(obs_fields) - n_categorical,
            "has_connectivity": n_edges is not None,
            "n_edges": n_edges,
        },
        "embeddings": {
            "available_dimensions": list(dimensions),
            "default_dimension": default_dimension(dimensions),
            "files": {f"{dim}d": points_file(dim, compressed) for dim in dimensions},
        },
        "obs_fields": list(obs_fields),
        "export_settings": dict(settings),
    }
    if source:
        result["source"] = dict(source)
    if vectors:
        default = "velocity_umap" if "velocity_umap" in vectors else min(vectors)
        entries = {name: vector_field(name, dims, compressed) for name, dims in vectors.items()}
        result["vector_fields"] = {"default_field": default, "fields": entries}
    return result
