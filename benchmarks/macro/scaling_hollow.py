"""An .h5ad with the header of a huge atlas, most of whose data was never written: to plan with, not to export."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np

_TEXT = h5py.string_dtype()
_ROWS = 1 << 20


def hollow_atlas(path: Path, n_cells: int, n_genes: int, density: float, n_latent: int = 10) -> None:
    """Write the header, and of the data only row pointers (8 bytes a cell) and names of genes; all else reads as 0."""
    per_cell = int(n_genes * density)
    with h5py.File(path, "w") as file:
        _encoded(file, "anndata", "0.1.0")
        matrix = _encoded(file.create_group("X"), "csr_matrix", "0.1.0")
        matrix.attrs["shape"] = [n_cells, n_genes]
        indptr = matrix.create_dataset("indptr", (n_cells + 1,), np.int64)
        for first in range(0, n_cells + 1, _ROWS):
            last = min(first + _ROWS, n_cells + 1)
            indptr[first:last] = np.arange(first, last) * per_cell
        matrix.create_dataset("indices", (n_cells * per_cell,), np.int32)
        matrix.create_dataset("data", (n_cells * per_cell,), np.float32)
        for name, axis in (("obs", n_cells), ("var", n_genes)):
            _table(file.create_group(name), axis)
        obsm = _encoded(file.create_group("obsm"), "dict", "0.1.0")
        for key, width in (("X_umap_2d", 2), ("X_umap_3d", 3), ("X_pca", n_latent)):
            _encoded(obsm.create_dataset(key, (n_cells, width), np.float32), "array", "0.2.0")


def _encoded(thing: h5py.Group | h5py.Dataset, kind: str, version: str) -> h5py.Group | h5py.Dataset:
    thing.attrs["encoding-type"], thing.attrs["encoding-version"] = kind, version
    return thing


def _table(group: h5py.Group, n_rows: int) -> None:
    _encoded(group, "dataframe", "0.2.0")
    group.attrs["_index"] = "_index"
    if group.name == "/var":
        names = np.array([f"gene{number:06d}" for number in range(n_rows)], object)
        _encoded(group.create_dataset("_index", data=names, dtype=_TEXT), "string-array", "0.2.0")
        group.attrs["column-order"] = np.array([], object).astype(_TEXT)
        return
    _encoded(group.create_dataset("_index", (n_rows,), "S12"), "string-array", "0.2.0")
    _encoded(group.create_dataset("score", (n_rows,), np.float32), "array", "0.2.0")
    kind = _encoded(group.create_group("cell_type"), "categorical", "0.2.0")
    kind.attrs["ordered"] = False
    _encoded(kind.create_dataset("codes", (n_rows,), np.int8), "array", "0.2.0")
    labels = np.array([f"type {number}" for number in range(30)], object)
    _encoded(kind.create_dataset("categories", data=labels, dtype=_TEXT), "string-array", "0.2.0")
    group.attrs["column-order"] = np.array(["score", "cell_type"], object).astype(_TEXT)
