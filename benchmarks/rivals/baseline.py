"""What a good Python programmer writes in an afternoon for Cellucid's export folder: anndata, scipy, numpy and gzip.

    python benchmarks/rivals/baseline.py ATLAS.h5ad OUT [--bits 8|16|none] [--compression 6]

Everything in memory, no step in a loop over cells, one thread: the matrix to CSC, then gene after gene through numpy
and ``gzip.compress``. The result is a valid export; ``atlaswriter diff`` finds it equal to ours within one step. See
`adapter` for what is printed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import scipy.sparse as sp
from adapter import BITS, export_arguments, inputs, run

PACKAGES = ("anndata", "numpy", "pandas", "scipy")
ENDINGS = {None: "f32", 8: "u8", 16: "u16"}
DTYPES = {None: "float32", 8: "uint8", 16: "uint16"}
QUANTILE, MIN_POINTS = 0.95, 10


class Folder:
    """Files of an export, compressed."""

    def __init__(self, path: Path, level: int) -> None:
        self.path, self.level = path, level
        for name in ("obs", "var", "connectivity"):
            (path / name).mkdir(parents=True)

    def array(self, name: str, values: np.ndarray) -> None:
        """Write an array, gzipped."""
        content = gzip.compress(values.tobytes(), self.level, mtime=0)
        (self.path / f"{name}.gz").write_bytes(content)

    def json(self, name: str, content: dict[str, Any]) -> None:
        """Write a manifest."""
        (self.path / name).write_text(json.dumps(content, allow_nan=False))


def safe(key: str) -> str:
    """The viewer's rule for file names."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", key).strip("._") or "field"


def quantised(values: np.ndarray, bits: int | None) -> tuple[np.ndarray, list[float]]:
    """Codes of a column and the values of the lowest and the highest; float32 as it is."""
    values = np.asarray(values, np.float32)
    if bits is None:
        return values, []
    top, finite = (1 << bits) - 2, np.isfinite(values)
    known = values[finite].astype(np.float64)
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 1.0)
    high = high if high > low else low + 1
    codes = np.full(values.size, top + 1, DTYPES[bits])
    codes[finite] = np.rint((known - low) * (top / (high - low)))
    return codes, [low, high]


def schema(folder: str, bits: int | None) -> dict[str, Any]:
    """How values are stored, for a manifest."""
    ending, more = ENDINGS[bits], {"quantizationBits": bits} if bits else {}
    path = f"{folder}/{{key}}.values.{ending}.gz"
    return {"pathPattern": path, "ext": ending, "dtype": DTYPES[bits], "quantized": bits is not None, **more}


def normalised(points: np.ndarray) -> np.ndarray:
    """Points in a box of width 2 around the origin."""
    points = points.astype(np.float64)
    low, high = points.min(axis=0), points.max(axis=0)
    widest = (high - low).max()
    return (points - (low + high) / 2) * (2 / (widest if widest >= 1e-8 else 1))


def centroids(points: np.ndarray, codes: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Mean of each category, without its farthest cells."""
    found = []
    for code, label in enumerate(labels):
        mine = points[codes == code]
        if len(mine) < MIN_POINTS:
            continue
        if len(mine) > MIN_POINTS:
            distances = np.linalg.norm(mine - mine.mean(axis=0), axis=1)
            near = mine[distances <= np.quantile(distances, QUANTILE)]
            mine = near if len(near) >= MIN_POINTS else mine
        found.append({"category": label, "position": mine.mean(axis=0).tolist(), "n_points": len(mine)})
    return found


def outliers(latent: np.ndarray, codes: np.ndarray, n_categories: int) -> np.ndarray:
    """Share of a category's cells that are as near to its mean as this one, or nearer."""
    shares = np.full(len(codes), np.nan, np.float32)
    for code in range(n_categories):
        cells = np.flatnonzero(codes == code)
        if len(cells) >= MIN_POINTS:
            mine = latent[cells].astype(np.float64)
            distances = np.linalg.norm(mine - mine.mean(axis=0), axis=1)
            shares[cells] = np.searchsorted(np.sort(distances), distances, side="right") / len(cells)
    return shares


def write_obs(folder: Folder, obs: pd.DataFrame, points: dict[int, np.ndarray], latent: Any, bits: int | None) -> Any:
    """Columns of obs, and their manifest's entries: continuous and categorical ones."""
    continuous: list[list[Any]] = []
    categorical: list[list[Any]] = []
    for key, column in obs.items():
        name = str(key)
        if pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column):
            values, bounds = quantised(column.to_numpy(), bits)
            folder.array(f"obs/{safe(name)}.values.{ENDINGS[bits]}", values)
            continuous.append([name, *bounds])
            continue
        groups = column.astype("category").cat
        labels, width = [str(label) for label in groups.categories], 8 if len(groups.categories) <= 254 else 16
        codes, missing = groups.codes.to_numpy(), (1 << width) - 1
        stored = np.where(codes < 0, missing, codes).astype(DTYPES[width])
        folder.array(f"obs/{safe(name)}.codes.{ENDINGS[width]}", stored)
        values, bounds = quantised(outliers(latent, codes, len(labels)), bits)
        folder.array(f"obs/{safe(name)}.outliers.{ENDINGS[bits]}", values)
        middles = {str(dim): centroids(array, codes, labels) for dim, array in points.items()}
        categorical.append([name, labels, DTYPES[width], missing, middles, *bounds])
    return continuous, categorical


def write_genes(folder: Folder, matrix: Any, names: list[str], bits: int | None) -> list[list[Any]]:
    """Gene after gene, and their manifest's entries."""
    genes, fields = sp.csc_matrix(matrix), []
    for gene, name in enumerate(names):
        mine, column = slice(genes.indptr[gene], genes.indptr[gene + 1]), np.zeros(genes.shape[0], np.float32)
        column[genes.indices[mine]] = genes.data[mine]
        values, bounds = quantised(column, bits)
        folder.array(f"var/{safe(name)}.values.{ENDINGS[bits]}", values)
        fields.append([name, *bounds])
    return fields


def write_graph(folder: Folder, graph: Any) -> dict[str, Any]:
    """Every pair of neighbours once, and its manifest."""
    graph = sp.csr_matrix(graph)
    graph = (graph + graph.T).tocsr()
    graph.setdiag(0)
    graph.eliminate_zeros()
    upper = sp.triu(graph, format="csr")
    upper.sort_indices()
    edges, n_cells = upper.tocoo(), graph.shape[0]
    dtype = "uint16" if n_cells <= 65_535 else "uint32"
    for end, cells in (("src", edges.row), ("dst", edges.col)):
        folder.array(f"connectivity/edges.{end}.bin", cells.astype(dtype))
    return {
        "format": "edge_pairs",
        "n_cells": n_cells,
        "n_edges": int(upper.nnz),
        "max_neighbors": int(np.diff(graph.indptr).max(initial=0)),
        "index_bytes": np.dtype(dtype).itemsize,
        "index_dtype": dtype,
        "sourcesPath": "connectivity/edges.src.bin.gz",
        "destinationsPath": "connectivity/edges.dst.bin.gz",
        "compression": folder.level,
    }


def identity(
    name: str, folder: Folder, bits: int | None, dimensions: list[int], n_cells: int, n_genes: int, n_edges: int,
    continuous: list[list[Any]], categorical: list[list[Any]],
) -> dict[str, Any]:  # fmt: skip
    """What the viewer opens first."""
    fields = [{"key": field[0], "kind": "continuous"} for field in continuous]
    fields += [{"key": field[0], "kind": "category", "n_categories": len(field[1])} for field in categorical]
    return {
        "version": 2,
        "id": safe(name),
        "name": name,
        "description": "",
        "created_at": "2026-01-01T00:00:00Z",
        "cellucid_data_version": "baseline",
        "stats": {
            "n_cells": n_cells,
            "n_genes": n_genes,
            "n_obs_fields": len(fields),
            "n_categorical_fields": len(categorical),
            "n_continuous_fields": len(continuous),
            "has_connectivity": True,
            "n_edges": n_edges,
        },
        "embeddings": {
            "available_dimensions": dimensions,
            "default_dimension": max(dimensions),
            "files": {f"{dim}d": f"points_{dim}d.bin.gz" for dim in dimensions},
        },
        "obs_fields": fields,
        "export_settings": {
            "compression": folder.level,
            "var_quantization": bits,
            "obs_continuous_quantization": bits,
            "obs_categorical_dtype": "auto",
        },
    }


def export(options: argparse.Namespace) -> None:
    """Read everything, write everything."""
    bits, given = BITS[options.bits], inputs(anndata.read_h5ad(options.source))
    folder, obs = Folder(options.out, options.compression), given["obs"]
    points = {dim: normalised(given[key]) for dim in (1, 2, 3) if (key := f"X_umap_{dim}d") in given}
    for dim, array in points.items():
        folder.array(f"points_{dim}d.bin", array.astype(np.float32))
    continuous, categorical = write_obs(folder, obs, points, given["latent_space"], bits)
    genes = write_genes(folder, given["gene_expression"], list(given["var"].index), bits)
    graph = write_graph(folder, given["connectivities"])
    common = {"_format": "compact_v1", "n_points": len(obs), "compression": options.compression}
    schemas: dict[str, Any] = {}
    if continuous:
        schemas["continuous"] = schema("obs", bits)
    if categorical:
        schemas["categorical"] = {
            "codesPathPattern": "obs/{key}.codes.{ext}.gz",
            "outlierPathPattern": f"obs/{{key}}.outliers.{ENDINGS[bits]}.gz",
            "outlierExt": ENDINGS[bits],
            "outlierDtype": DTYPES[bits],
            "outlierQuantized": bits is not None,
        }
    fields = {"_obsSchemas": schemas, "_continuousFields": continuous, "_categoricalFields": categorical}
    folder.json(
        "obs_manifest.json",
        {**common, "centroid_outlier_quantile": QUANTILE, "latent_key": "latent_space", **fields},
    )
    value_schema = {"kind": "continuous", **schema("var", bits)}
    folder.json(
        "var_manifest.json",
        {**common, "var_gene_id_column": "index", "quantization": bits, "_varSchema": value_schema, "fields": genes},
    )
    folder.json("connectivity_manifest.json", graph)
    sizes = len(obs), len(genes), graph["n_edges"]
    name = options.out.name
    folder.json("dataset_identity.json", identity(name, folder, bits, [*points], *sizes, continuous, categorical))


if __name__ == "__main__":
    run(export_arguments(__doc__).parse_args(), PACKAGES, export)
