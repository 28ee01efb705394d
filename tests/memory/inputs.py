"""Inputs of any size, written block by block."""

import sys
import warnings
from itertools import pairwise
from pathlib import Path

import anndata
import h5py
import numpy as np
import zarr

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import big

# Cells of a graph's block of rows.
_BLOCK = 1 << 16


def h5ad(path, **recipe):
    """What `benchmarks.big` makes of a recipe."""
    big.generate(path, big.Recipe(**recipe))


def one_way(path, *, cells, neighbors, **recipe):
    """An atlas whose graph is not symmetric: neighbours of a cell are any of the 4,096 cells after it, or around 0."""
    big.generate(path, big.Recipe(cells=cells, **recipe))
    starts = np.arange(cells + 1, dtype=np.int32) * neighbors
    with h5py.File(path, "r+") as file:
        group = file["obsp"].create_group("connectivities")
        group.attrs.update({"encoding-type": "csr_matrix", "encoding-version": "0.1.0", "shape": (cells, cells)})
        group["indptr"] = starts
        indices = group.create_dataset("indices", (cells * neighbors,), np.int32)
        weights = group.create_dataset("data", (cells * neighbors,), np.float32)
        for first, last in pairwise([*range(0, cells, _BLOCK), cells]):
            random = np.random.default_rng(first)
            steps = np.cumsum(random.integers(1, 4096 // neighbors, (last - first, neighbors)), axis=1)
            rows = np.sort((np.arange(first, last)[:, None] + steps) % cells, axis=1)
            block = slice(first * neighbors, last * neighbors)
            indices[block], weights[block] = rows.ravel(), random.random(rows.size, np.float32)


def store(path, *, zarr_format=None, **recipe):
    """The same as a Zarr store; X is copied block by block."""
    source = path.with_suffix(".h5ad")
    big.generate(source, big.Recipe(**recipe))
    options = {} if zarr.__version__.startswith("2.") else {"zarr_format": zarr_format or 3}
    with h5py.File(source) as file:
        group = zarr.open_group(str(path), mode="w", **options)
        group.attrs.update({key: file.attrs[key] for key in ("encoding-type", "encoding-version")})
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what zarr will do by default in future
            for name in ("obs", "var", "obsm", "obsp"):
                anndata.io.write_elem(group, name, anndata.io.read_elem(file[name]))
        matrix = group.create_group("X")
        matrix.attrs.update({key: file["X"].attrs[key] for key in ("encoding-type", "encoding-version")})
        matrix.attrs["shape"] = file["X"].attrs["shape"].tolist()
        for name in list(file["X"]):  # iterating would hold the lock of h5py, which threads of zarr may wait for
            _copied(file["X"][name], matrix, name)
    source.unlink()


def _copied(array, group, name, step=1 << 20):
    create = getattr(group, "create_array", group.create_dataset)
    out = create(name, shape=array.shape, chunks=(min(array.size, step // 4),), dtype=array.dtype)
    for first in range(0, array.size, step):
        out[first : first + step] = array[first : first + step]
