"""Count matrices as 10x Genomics writes them: HDF5, Zarr in a zip, Matrix Market."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import pyarrow as pa

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.base import Array
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.lazy import load
from atlaswriter.sources.parts import as_real, compressed
from atlaswriter.sources.spatial import Counts
from atlaswriter.sources.tree import Node

_FROM_SOURCE = "write the file again from its source"


def open_h5(path: Path, where: str = "", workers: int = 1) -> tuple[Counts, Callable[[], None]]:
    """Counts of a ``cell_feature_matrix.h5``, the entries of which stay in the file, and what closes it.

    Raises
    ------
    InputError
        It is damaged, or not such a file.
    """
    where = where or str(path)
    with translated_damage(where, "disk"):
        file = h5py.File(path, "r")
    try:
        return _h5_counts(Node(file, where, workers=workers), where), file.close
    except BaseException:
        file.close()
        raise


def _h5_counts(root: Node, where: str) -> Counts:
    if "matrix" not in root.names():
        found = f"has no group 'matrix'; it holds {listed(root.names()) or 'nothing'}"
        raise InputError(Problem(where, found, "give a cell_feature_matrix.h5 of Cell Ranger 3 or Xenium"))
    matrix = root.child("matrix")
    shape = matrix.child("shape").read()
    features = matrix.child("features")
    names, types = features.child("name").texts(), features.child("feature_type").texts()
    cells = strings(matrix.child("barcodes").read(), where)
    if tuple(shape) != (len(names), len(cells)):
        found = f"is {' × '.join(map(str, shape))}, with {len(names)} features and {len(cells)} barcodes"
        raise InputError(Problem(where, f"damaged matrix: it {found}", _FROM_SOURCE))
    indptr, indices, data = (matrix.child(name).lazy() for name in ("indptr", "indices", "data"))
    entries = compressed(
        (len(cells), len(names)), load(indptr), indices, as_real(data, where), axis=0, where=where
    )
    return Counts(entries, cells, names, types, where)


def strings(values: Array, where: str) -> pa.StringArray:
    """Fixed-width or variable text of HDF5 as strings; `InputError` where it is not UTF-8."""
    with translated_damage(where, "disk"):
        found = pa.array(values, pa.binary() if values.dtype.kind == "S" else None)
        return found.cast(pa.string())
