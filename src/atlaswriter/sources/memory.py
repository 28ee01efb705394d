"""Data that is in memory: an AnnData object, and the matrices users pass."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import AnyArray, Column, Compressed, Matrix
from atlaswriter.sources.columns import column_from_pandas
from atlaswriter.sources.daskread import SparseDask, is_dask, of_dask
from atlaswriter.sources.lazy import as_lazy
from atlaswriter.sources.parts import (
    REAL_KINDS,
    as_real,
    check_dimensions,
    dense_rows,
    no_such_key,
    of_scipy,
    settled,
    stacked,
    texts_of,
)

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from atlaswriter.sources.tree import Node


def matrix_of(x: Any, where: str, *, workers: int = 1) -> Compressed | AnyArray | SparseDask:
    """A matrix that users pass, in one of the forms the engine works on.

    Parameters
    ----------
    x
        A SciPy sparse matrix or array of any format, a NumPy array in any order, one of these over
        a mapped file (`numpy.memmap`), an HDF5 dataset, a Zarr array, the matrix of a backed
        AnnData, a dask array of dense or sparse chunks, or an object that makes one of them.
    where
        Its name in messages, such as ``gene_expression``.
    workers
        Threads for reading what is small enough to be read at once.

    Returns
    -------
    Compressed, AnyArray or SparseDask
        Shares memory with `x` wherever its format and dtype allow; `x` is not modified.
        Native byte order; float16 is widened to float32 and longer floats are cut to float64.
        What is not in memory stays where it is until it is sliced.

    Raises
    ------
    InputError
        Not two-dimensional, not real numbers, masked, or an inconsistent sparse matrix.
    """
    if is_dask(x):
        matrix = of_dask(x, where)
        return matrix if isinstance(matrix, SparseDask) else settled(as_real(matrix, where))
    stored = _stored(x, where, workers)
    if stored is not None:
        return stored
    for method in ("to_memory", "compute"):
        if hasattr(x, method):
            x = getattr(x, method)()
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(Problem(where, "masked arrays are not supported", "fill it first, with .filled(value)"))
    if not isinstance(x, np.ndarray):
        from scipy import sparse

        if sparse.issparse(x):
            return of_scipy(x, where)
    array = np.asarray(x)
    check_dimensions(array.ndim, where)
    return as_real(as_lazy(array), where)


def _stored(x: Any, where: str, workers: int) -> Compressed | AnyArray | None:
    """A matrix in an open file or store; None for anything else."""
    library = type(x).__module__.partition(".")[0]
    if library not in {"h5py", "zarr", "anndata"}:
        return None
    from atlaswriter.sources.store import dense_matrix, sparse_matrix

    if library != "anndata" and hasattr(x, "chunks"):
        check_dimensions(x.ndim, where)
        return dense_matrix(_node(x, workers), where)
    group = getattr(x, "group", None)
    if group is not None and hasattr(x, "backend"):
        return sparse_matrix(_node(group, workers), tuple(x.shape), int(x.format == "csc"), where)
    return None


def _node(x: Any, workers: int) -> Node:
    from atlaswriter.sources.tree import Node

    location = x.file.filename if hasattr(x, "file") else x.store
    return Node(x, str(location), str(x.name or "").lstrip("/"), workers)


def dense_of(x: Any, where: str) -> AnyArray:
    """A matrix (cells × dimensions) as a dense array: from anything `matrix_of` takes, or a table."""
    if hasattr(x, "columns"):
        return _dense_table(x, where)
    matrix = matrix_of(x, where)
    if isinstance(matrix, Compressed):
        return dense_rows(matrix)
    return dense_of(x.compute(), where) if isinstance(matrix, SparseDask) else matrix


def _dense_table(table: pd.DataFrame, where: str) -> AnyArray:
    names = [f"{where}[{name!r}]" for name in table.columns]
    return stacked([column_from_pandas(table.iloc[:, i], name) for i, name in enumerate(names)], where)


class AnnDataSource:
    """A `Source` on an AnnData object, which may be a view or backed by a file.

    Parameters
    ----------
    adata
        The object; it is not modified.
    location
        What messages call it.
    close
        Releases the file, where it is not the caller's.
    workers
        Threads for reading from the file that backs it.
    """

    def __init__(
        self,
        adata: AnnData,
        location: str = "AnnData",
        *,
        close: Callable[[], None] = lambda: None,
        workers: int = 1,
    ) -> None:
        self._adata, self._workers = adata, workers
        self.location = location
        self.close = close

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return int(self._adata.n_obs)

    def obs_columns(self) -> list[str]:
        """Names of the obs columns, as text."""
        return [str(name) for name in self._adata.obs.columns]

    def obs(self, column: str) -> Column:
        """One obs column."""
        return _table_column(self._adata.obs, column, "obs")

    def var_columns(self, *, raw: bool = False) -> list[str]:
        """Names of the var columns, as text."""
        return [str(name) for name in self._var(raw).columns]

    def gene_names(self, column: str | None = None, *, raw: bool = False) -> list[str]:
        """Gene identifiers: the var index, or a var column."""
        table = self._var(raw)
        if column is None:
            return [str(name) for name in table.index]
        label = "raw.var" if raw else "var"
        return texts_of(_table_column(table, column, label), f"{label}['{column}']")

    def layers(self) -> list[str]:
        """Names of the layers."""
        return list(self._adata.layers)

    def has_raw(self) -> bool:
        """Whether there is a raw matrix."""
        return self._adata.raw is not None

    def expression(self, *, layer: str | None = None, raw: bool = False) -> Matrix | None:
        """X, a layer or raw.X."""
        if layer is not None:
            entry = _entry(self._adata.layers, layer, "layers")
            return matrix_of(entry, f"layers['{layer}']", workers=self._workers)
        x = self._raw().X if raw else self._adata.X
        return None if x is None else matrix_of(x, "raw.X" if raw else "X", workers=self._workers)

    def obsm(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the numeric obsm entries."""
        return {key: tuple(value.shape) for key, value in self._adata.obsm.items() if _is_numeric(value)}

    def obsm_array(self, key: str) -> AnyArray:
        """One obsm entry, dense."""
        return dense_of(_entry(self._adata.obsm, key, "obsm"), f"obsm['{key}']")

    def obsp(self) -> list[str]:
        """Names of the obsp entries."""
        return list(self._adata.obsp)

    def obsp_matrix(self, key: str) -> Matrix:
        """One obsp entry."""
        return matrix_of(_entry(self._adata.obsp, key, "obsp"), f"obsp['{key}']")

    def _raw(self) -> Any:
        if self._adata.raw is None:
            raise InputError(Problem("raw", f"{self.location} has no raw", "use X or a layer"))
        return self._adata.raw

    def _var(self, raw: bool) -> pd.DataFrame:
        table: pd.DataFrame = self._raw().var if raw else self._adata.var
        return table


def _is_numeric(x: Any) -> bool:
    if hasattr(x, "columns"):
        return all(dtype.kind in "iuf" for dtype in x.dtypes)
    return getattr(x, "ndim", 0) == 2 and getattr(getattr(x, "dtype", None), "kind", "O") in REAL_KINDS


def _table_column(table: pd.DataFrame, name: str, label: str) -> Column:
    where = f"{label}['{name}']"
    # Column labels need not be text, and may repeat.
    positions = [i for i, known in enumerate(table.columns) if str(known) == name]
    if not positions:
        raise no_such_key(where, table.columns)
    if len(positions) > 1:
        raise InputError(Problem(where, f"{len(positions)} columns have this name", "rename them"))
    return column_from_pandas(table.iloc[:, positions[0]], where)


def _entry(entries: Mapping[str, Any], key: str, label: str) -> Any:
    if key not in entries:
        raise no_such_key(f"{label}['{key}']", entries)
    return entries[key]
