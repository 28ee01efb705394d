"""What sources of every kind make parts with: real numbers, compressed matrices, tables side by side."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.base import AnyArray, Array, Column, Compressed, Continuous, n_bytes, row_blocks
from atlaswriter.sources.lazy import SMALL_BYTES, DenseRows, Derived, as_lazy, check_inside, converted, load

# Kinds of dtype that are real numbers: boolean, integers, floats.
REAL_KINDS = "biuf"

_WRITE_AGAIN = "write it again from its source"

# Bytes of a block where an array is streamed for a check.
_BLOCK_BYTES = 1 << 20


def settled(array: AnyArray, workers: int = 1) -> AnyArray:
    """A small array in memory, any other as it is."""
    return load(array, workers) if n_bytes(array) <= SMALL_BYTES else array


def blocks(array: AnyArray) -> Iterable[Array]:
    """The array in blocks of about 1 MiB, whole chunks where there are any."""
    if isinstance(array, np.ndarray):
        step = array.shape[0]
    else:
        row = max(1, n_bytes(array) // max(1, array.shape[0]))
        step = max(1, _BLOCK_BYTES // (row * array.grain)) * array.grain
    return (block for _, block in row_blocks(array, max(1, step)))


def check_real(dtype: np.dtype[Any], where: str) -> np.dtype[Any]:
    """The dtype that kernels know for real numbers of a dtype, or `InputError`."""
    if dtype.kind not in REAL_KINDS:
        remedy = "convert it to real numbers, for example with .astype('float32')"
        raise InputError(Problem(where, f"values of dtype {dtype} are not real numbers", remedy))
    if dtype.kind == "f" and dtype.itemsize not in (4, 8):
        return np.dtype(np.float32 if dtype.itemsize < 4 else np.float64)
    return dtype.newbyteorder("=")


def as_real(array: AnyArray, where: str) -> AnyArray:
    """An array of real numbers in a dtype that kernels know, or `InputError`; lazy ones stay so."""
    return converted(array, check_real(array.dtype, where))


def check_dimensions(ndim: int, where: str) -> None:
    """Refuse anything but matrices."""
    if ndim != 2:
        raise InputError(Problem(where, f"has {ndim} dimension(s)", "give a matrix with 2 dimensions"))


def no_such_key(where: str, keys: Iterable[str]) -> InputError:
    """The error for a key that does not exist, with those that do."""
    known = listed(keys)
    return InputError(Problem(where, "does not exist", f"choose one of {known}" if known else "there are none"))


def compressed(
    shape: Iterable[int], indptr: AnyArray, indices: AnyArray, data: AnyArray, *, axis: int, where: str
) -> Compressed:
    """A `Compressed` whose parts are known to fit each other.

    Kernels index with `indptr` and `indices` unchecked, so this is where they are proved safe;
    `indices` that are lazy are left to whoever reads their blocks.

    Raises
    ------
    InputError
        `indptr` has the wrong length or does not rise from 0 to the number of entries, `indices`
        leave the matrix, or `data` and `indices` differ in length.
    """
    rows, columns = (int(size) for size in shape)
    major = rows if axis == 0 else columns
    indptr, indices = _as_index(indptr, where, "indptr"), _as_index(indices, where, "indices")
    found = ""
    if indptr.shape[0] != major + 1:
        found = f"indptr has {indptr.shape[0]} entries where {major + 1} are needed"
    elif len(data.shape) != 1:
        found = f"the values have {len(data.shape)} dimensions"
    elif data.shape[0] != indices.shape[0]:
        found = f"there are {data.shape[0]} values but {indices.shape[0]} indices"
    else:
        found = _wrong_offsets(indptr, indices.shape[0])
    if found:
        raise InputError(Problem(where, f"damaged sparse matrix: {found}", _WRITE_AGAIN))
    matrix = Compressed((rows, columns), indptr, indices, data, axis, where)
    if isinstance(indices, np.ndarray):
        check_inside(indices, matrix)
    return matrix


def _wrong_offsets(indptr: AnyArray, nnz: int) -> str:
    """What is wrong with offsets that should rise from 0 to `nnz`."""
    first, last = int(indptr[:1][0]), int(indptr[indptr.shape[0] - 1 :][0])
    if (first, last) != (0, nnz):
        return f"indptr goes from {first} to {last} where 0 to {nnz} is needed"
    previous = 0
    for block in blocks(indptr):
        if block[0] < previous or not np.all(block[1:] >= block[:-1]):
            return "indptr decreases"
        previous = block[-1]
    return ""


def _as_index(values: AnyArray, where: str, part: str) -> AnyArray:
    if len(values.shape) != 1 or values.dtype.kind not in "iu":
        found = f"damaged sparse matrix: {part} is {len(values.shape)}-dimensional {values.dtype}"
        raise InputError(Problem(where, found, _WRITE_AGAIN))
    if values.dtype.kind == "i" and values.dtype.itemsize >= 4:
        return converted(values, values.dtype.newbyteorder("="))
    # AnnData may store indices in the smallest unsigned dtype.
    if isinstance(values, np.ndarray):
        limit = np.iinfo(np.int32).max
        return values.astype(np.int32 if not values.size or values.max() <= limit else np.int64)
    return converted(values, np.int32 if values.dtype.itemsize < 4 else np.int64)


def of_scipy(x: Any, where: str) -> Compressed:
    """A SciPy matrix of any format; CSR and CSC share their memory."""
    check_dimensions(x.ndim, where)
    if x.format not in {"csr", "csc"}:
        return _from_coo(x.tocoo(copy=False), where, 1)
    # SciPy allows spare room after the last entry.
    nnz = int(x.indptr[-1])
    indptr, indices, data = (as_lazy(part) for part in (x.indptr, x.indices[:nnz], x.data[:nnz]))
    return compressed(x.shape, indptr, indices, as_real(data, where), axis=int(x.format == "csc"), where=where)


def compressed_rows(x: Any, where: str) -> Compressed:
    """A SciPy matrix of any format, or an array, by row."""
    from scipy import sparse

    if not sparse.issparse(x):
        x = sparse.csr_array(np.asarray(x))
    check_dimensions(x.ndim, where)
    return of_scipy(x, where) if x.format == "csr" else _from_coo(x.tocoo(copy=False), where, 0)


def _from_coo(x: Any, where: str, axis: int) -> Compressed:
    """Entries by row or column; repeated ones stay, so that they add up in float64 and not in their own dtype."""
    major, minor = (x.row, x.col) if axis == 0 else (x.col, x.row)
    order = np.argsort(major, kind="stable")
    indptr = np.zeros(x.shape[axis] + 1, np.int64)
    np.cumsum(np.bincount(major, minlength=x.shape[axis]), out=indptr[1:])
    return compressed(x.shape, indptr, minor[order], load(as_real(x.data, where))[order], axis=axis, where=where)


def dense_rows(matrix: Compressed) -> AnyArray:
    """A compressed matrix as a dense array; repeated entries add up. Those by row are made dense block by block."""
    if matrix.axis == 0:
        return settled(DenseRows(matrix))
    from scipy import sparse

    indices = load(matrix.indices)
    check_inside(indices, matrix)
    dense: Array = sparse.csc_array((load(matrix.data), indices, load(matrix.indptr)), shape=matrix.shape).toarray()
    return dense


def stacked(columns: Sequence[Column], where: str) -> AnyArray:
    """Numeric columns of a table side by side; `InputError` if one is not numeric."""
    numbers = [column.values for column in columns if isinstance(column, Continuous)]
    if len(numbers) < len(columns) or not columns:
        raise InputError(Problem(where, "is a table with columns that are not numbers", "keep its numeric columns"))
    if all(isinstance(column, np.ndarray) for column in numbers):
        return as_real(np.column_stack([load(column) for column in numbers]), where)
    dtype = check_real(np.result_type(*(column.dtype for column in numbers)), where)
    shape = (numbers[0].shape[0], len(numbers))
    return Derived(numbers, shape, dtype, lambda *parts: np.column_stack(parts))


def texts_of(column: Column, where: str) -> list[str]:
    """The values of a column as text; `InputError` if some are missing."""
    if isinstance(column, Continuous):
        values = load(column.values)
        missing = np.isnan(values)
        texts = [str(value) for value in values.tolist()]
    else:
        codes = load(column.codes)
        missing = codes < 0
        texts = [column.categories[code] for code in codes] if not missing.any() else []
    if missing.any():
        found = f"{int(missing.sum())} of {missing.size} values are missing"
        raise InputError(Problem(where, found, "fill them in, or use another column or the index"))
    return texts
