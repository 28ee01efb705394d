"""Data that is in memory: an AnnData object, and the matrices users pass."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.base import Array, Column, Compressed, Continuous, Matrix, as_native
from atlaswriter.sources.columns import column_from_pandas

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

# Kinds of dtype that are real numbers: boolean, integers, floats.
REAL_KINDS = "biuf"


def matrix_of(x: Any, where: str) -> Matrix:
    """A matrix that users pass, in one of the two forms the engine works on.

    Parameters
    ----------
    x
        A SciPy sparse matrix or array of any format, a NumPy array in any order, or an object
        that makes one of them (a dask array, a backed AnnData matrix, an HDF5 dataset).
    where
        Its name in messages, such as ``gene_expression``.

    Returns
    -------
    Matrix
        Shares memory with `x` wherever its format and dtype allow; `x` is not modified.
        Native byte order; float16 is widened to float32 and longer floats are cut to float64.

    Raises
    ------
    InputError
        Not two-dimensional, not real numbers, masked, or an inconsistent sparse matrix.
    """
    for method in ("to_memory", "compute"):
        if hasattr(x, method):
            x = getattr(x, method)()
    if isinstance(x, np.ma.MaskedArray):
        raise InputError(Problem(where, "masked arrays are not supported", "fill it first, with .filled(value)"))
    if not isinstance(x, np.ndarray):
        from scipy import sparse

        if sparse.issparse(x):
            return _from_scipy(x, where)
    array = np.asarray(x)
    _check_dimensions(array.ndim, where)
    return as_real(array, where)


def _from_scipy(x: Any, where: str) -> Compressed:
    _check_dimensions(x.ndim, where)
    if x.format not in {"csr", "csc"}:
        return _from_coo(x.tocoo(copy=False), where)
    values = as_real(x.data, where)
    # SciPy allows spare room after the last entry.
    nnz = int(x.indptr[-1])
    return compressed(x.shape, x.indptr, x.indices[:nnz], values[:nnz], axis=int(x.format == "csc"), where=where)


def _from_coo(x: Any, where: str) -> Compressed:
    """Entries by column; repeated ones stay, so that they add up in float64 and not in their own dtype."""
    order = np.argsort(x.col, kind="stable")
    indptr = np.zeros(x.shape[1] + 1, np.int64)
    np.cumsum(np.bincount(x.col, minlength=x.shape[1]), out=indptr[1:])
    return compressed(x.shape, indptr, x.row[order], as_real(x.data, where)[order], axis=1, where=where)


def compressed(
    shape: Iterable[int], indptr: Array, indices: Array, data: Array, *, axis: int, where: str
) -> Compressed:
    """A `Compressed` whose parts are known to fit each other.

    Kernels index with `indptr` and `indices` unchecked, so this is where they are proved safe.

    Raises
    ------
    InputError
        `indptr` has the wrong length or does not rise from 0 to the number of entries, `indices`
        leave the matrix, or `data` and `indices` differ in length.
    """
    rows, columns = (int(size) for size in shape)
    major, minor = (rows, columns) if axis == 0 else (columns, rows)
    indptr, indices = _as_index(indptr, where, "indptr"), _as_index(indices, where, "indices")
    found = ""
    if indptr.shape[0] != major + 1:
        found = f"indptr has {indptr.shape[0]} entries where {major + 1} are needed"
    elif data.ndim != 1:
        found = f"the values have {data.ndim} dimensions"
    elif data.shape[0] != indices.shape[0]:
        found = f"there are {data.shape[0]} values but {indices.shape[0]} indices"
    elif indptr[0] != 0 or indptr[-1] != indices.shape[0]:
        found = f"indptr goes from {indptr[0]} to {indptr[-1]} where 0 to {indices.shape[0]} is needed"
    elif not np.all(indptr[1:] >= indptr[:-1]):
        found = "indptr decreases"
    elif indices.size and int(indices.view(f"u{indices.itemsize}").max()) >= minor:  # negative ones are huge
        found = f"indices go from {indices.min()} to {indices.max()} in a matrix of {rows} × {columns}"
    if found:
        raise InputError(Problem(where, f"damaged sparse matrix: {found}", "write it again from its source"))
    return Compressed((rows, columns), indptr, indices, data, axis)


def _as_index(values: Array, where: str, part: str) -> Array:
    if values.ndim != 1 or values.dtype.kind not in "iu":
        found = f"damaged sparse matrix: {part} is {values.ndim}-dimensional {values.dtype}"
        raise InputError(Problem(where, found, "write it again from its source"))
    if values.dtype.kind == "i" and values.dtype.itemsize >= 4:
        return as_native(values)
    # AnnData may store indices in the smallest unsigned dtype.
    limit = np.iinfo(np.int32).max
    return values.astype(np.int32 if not values.size or values.max() <= limit else np.int64)


def as_real(array: Array, where: str) -> Array:
    """An array of real numbers in a dtype that kernels know, or `InputError`."""
    if array.dtype.kind not in REAL_KINDS:
        remedy = "convert it to real numbers, for example with .astype('float32')"
        raise InputError(Problem(where, f"values of dtype {array.dtype} are not real numbers", remedy))
    if array.dtype.kind == "f" and array.dtype.itemsize not in (4, 8):
        return array.astype(np.float32 if array.dtype.itemsize < 4 else np.float64)
    return as_native(array)


def _check_dimensions(ndim: int, where: str) -> None:
    if ndim != 2:
        raise InputError(Problem(where, f"has {ndim} dimension(s)", "give a matrix with 2 dimensions"))


def no_such_key(where: str, keys: Iterable[str]) -> InputError:
    """The error for a key that does not exist, with those that do."""
    known = listed(keys)
    return InputError(Problem(where, "does not exist", f"choose one of {known}" if known else "there are none"))


def texts_of(column: Column, where: str) -> list[str]:
    """The values of a column as text; `InputError` if some are missing."""
    if isinstance(column, Continuous):
        missing, values = np.isnan(column.values), column.values.tolist()
        texts = [str(value) for value in values]
    else:
        missing = column.codes < 0
        texts = [column.categories[code] for code in column.codes] if not missing.any() else []
    if missing.any():
        found = f"{int(missing.sum())} of {missing.size} values are missing"
        raise InputError(Problem(where, found, "fill them in, or use another column or the index"))
    return texts


class AnnDataSource:
    """A `Source` on an AnnData object, which may be a view or backed by a file.

    Parameters
    ----------
    adata
        The object; it is not modified.
    location
        What messages call it.
    """

    def __init__(self, adata: AnnData, location: str = "AnnData") -> None:
        self._adata = adata
        self.location = location

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
            return matrix_of(_entry(self._adata.layers, layer, "layers"), f"layers['{layer}']")
        if raw:
            return matrix_of(self._raw().X, "raw.X")
        return None if self._adata.X is None else matrix_of(self._adata.X, "X")

    def obsm(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the numeric obsm entries."""
        return {key: tuple(value.shape) for key, value in self._adata.obsm.items() if _is_numeric(value)}

    def obsm_array(self, key: str) -> Array:
        """One obsm entry, dense."""
        return dense_of(_entry(self._adata.obsm, key, "obsm"), f"obsm['{key}']")

    def obsp(self) -> list[str]:
        """Names of the obsp entries."""
        return list(self._adata.obsp)

    def obsp_matrix(self, key: str) -> Matrix:
        """One obsp entry."""
        return matrix_of(_entry(self._adata.obsp, key, "obsp"), f"obsp['{key}']")

    def close(self) -> None:
        """Do nothing: the object belongs to the caller."""

    def _raw(self) -> Any:
        if self._adata.raw is None:
            raise InputError(Problem("raw", f"{self.location} has no raw", "use X or a layer"))
        return self._adata.raw

    def _var(self, raw: bool) -> pd.DataFrame:
        table: pd.DataFrame = self._raw().var if raw else self._adata.var
        return table


def dense_of(x: Any, where: str) -> Array:
    """A small matrix (cells × dimensions) as a dense array: from anything `matrix_of` takes, or a table."""
    if hasattr(x, "columns"):
        return _dense_table(x, where)
    matrix = matrix_of(x, where)
    return densified(matrix) if isinstance(matrix, Compressed) else matrix


def densified(matrix: Compressed) -> Array:
    """A compressed matrix as a dense array; repeated entries add up."""
    from scipy import sparse

    make = sparse.csr_array if matrix.axis == 0 else sparse.csc_array
    dense: Array = make((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape).toarray()
    return dense


def _dense_table(table: pd.DataFrame, where: str) -> Array:
    names = [f"{where}[{name!r}]" for name in table.columns]
    return stacked([column_from_pandas(table.iloc[:, i], name) for i, name in enumerate(names)], where)


def stacked(columns: Sequence[Column], where: str) -> Array:
    """Numeric columns of a table side by side; `InputError` if one is not numeric."""
    numbers = [column.values for column in columns if isinstance(column, Continuous)]
    if len(numbers) < len(columns) or not columns:
        raise InputError(Problem(where, "is a table with columns that are not numbers", "keep its numeric columns"))
    return as_real(np.column_stack(numbers), where)


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
