"""What every source offers: a header, and the parts of an AnnData one at a time.

A source is read-only and lazy. Its matrices are cells × genes (or cells × cells for graphs), and
its arrays are read when they are sliced, some rows at a time; arrays in memory are one case of that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeGuard, cast

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Lazy(Protocol):
    """An array outside of memory, read when it is sliced.

    Slicing raises `InputError` where the content is damaged. It may be done by several threads at once.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """As of NumPy arrays."""

    @property
    def dtype(self) -> np.dtype:
        """As of NumPy arrays, in the byte order of this machine."""

    @property
    def grain(self) -> int:
        """Rows that are read together (those of a chunk); 1 where any rows cost only themselves."""

    @property
    def overhead(self) -> int:
        """Bytes that one thread holds while it reads, beside what it asked for: chunks, as stored and decoded."""

    @property
    def speed(self) -> float:
        """Bytes of content that one core reads a second, about: what plans are made with."""

    def __getitem__(self, key: slice | tuple[slice, slice]) -> Array:
        """Some rows, or some rows of some columns (steps of 1), C-contiguous, in native byte order."""


AnyArray = Array | Lazy


def in_memory(array: AnyArray) -> bool:
    """Whether slicing it costs nothing."""
    return isinstance(array, np.ndarray)


def n_bytes(array: AnyArray) -> int:
    """Bytes of the content."""
    return int(np.prod(array.shape, dtype=np.int64)) * array.dtype.itemsize


def overhead(array: AnyArray) -> int:
    """Bytes that a thread holds beside a block that it reads."""
    return 0 if isinstance(array, np.ndarray) else array.overhead


def row_blocks(array: AnyArray, rows: int, first: int = 0, last: int | None = None) -> Iterator[tuple[int, Array]]:
    """Rows `first` to `last` in blocks of `rows`; first row and content of each."""
    last = array.shape[0] if last is None else last
    for start in range(first, last, rows):
        yield start, array[start : min(start + rows, last)]


@dataclass(frozen=True)
class Compressed:
    """A sparse matrix in compressed form.

    Attributes
    ----------
    shape
        ``(rows, columns)``.
    indptr
        int32 or int64, ``(n_major + 1,)``; rises from 0 to the number of entries.
    indices
        int32 or int64, ``(nnz,)``; may be unsorted or repeat within one major slice
        (repeated entries add up, as in scipy). In memory they are known to lie inside the matrix;
        whoever reads lazy ones has to look.
    data
        Any real numeric dtype, ``(nnz,)``.
    axis
        0: compressed by row (CSR); 1: compressed by column (CSC).
    where
        Its name in messages.
    """

    shape: tuple[int, int]
    indptr: AnyArray
    indices: AnyArray
    data: AnyArray
    axis: int
    where: str = "matrix"

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return int(self.indices.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return n_bytes(self.indptr) + n_bytes(self.indices) + n_bytes(self.data)


class RowChunks(Protocol):
    """A matrix that is made some rows at a time by somebody else, such as a sparse dask array."""

    @property
    def shape(self) -> tuple[int, int]:
        """``(rows, columns)``."""

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the values, in native byte order."""

    @property
    def entries(self) -> int:
        """Stored entries, estimated from a few chunks."""

    @property
    def starts(self) -> list[int]:
        """First row of each chunk, and the number of rows."""

    @property
    def where(self) -> str:
        """Its name in messages."""

    def chunk(self, position: int) -> Compressed:
        """The rows of one chunk as CSR, in memory."""


Matrix = Compressed | AnyArray | RowChunks


def is_dense(matrix: Matrix) -> TypeGuard[AnyArray]:
    """Whether every value is stored."""
    return not isinstance(matrix, Compressed) and not hasattr(matrix, "chunk")


def is_sparse(matrix: Matrix) -> TypeGuard[Compressed | RowChunks]:
    """Whether only some values are stored."""
    return not is_dense(matrix)


def matrix_bytes(matrix: Matrix) -> int:
    """Bytes of the content of a matrix; estimated where it is made some rows at a time."""
    if is_dense(matrix):
        return n_bytes(matrix)
    if isinstance(matrix, Compressed):
        return matrix.nbytes
    chunks = cast("RowChunks", matrix)
    return chunks.entries * (4 + chunks.dtype.itemsize)


@dataclass(frozen=True)
class Continuous:
    """A numeric obs column: ``values`` (n_cells,), any real dtype, NaN where missing."""

    values: AnyArray


@dataclass(frozen=True)
class Categorical:
    """A categorical obs column.

    Attributes
    ----------
    codes
        Signed integers (n_cells,), position in `categories`, -1 where missing.
    categories
        Labels as text, in code order; unused ones are kept.
    """

    codes: AnyArray
    categories: list[str]


Column = Continuous | Categorical


class Source(Protocol):
    """One AnnData, wherever it lives.

    All methods raise `InputError` when the key does not exist (the message lists those that
    do) or the part cannot be read or has an unsupported type.
    """

    @property
    def location(self) -> str:
        """Where the data is, for messages: a path or ``"AnnData"``."""

    @property
    def n_cells(self) -> int:
        """Number of cells (obs rows)."""

    def obs_columns(self) -> list[str]:
        """Names of the obs columns, in order, as text."""

    def obs(self, column: str) -> Column:
        """One obs column."""

    def var_columns(self, *, raw: bool = False) -> list[str]:
        """Names of the var columns (of ``raw.var``)."""

    def gene_names(self, column: str | None = None, *, raw: bool = False) -> list[str]:
        """Gene identifiers as text: the var index, or a var column."""

    def layers(self) -> list[str]:
        """Names of the layers."""

    def has_raw(self) -> bool:
        """Whether there is a ``raw`` with an X of its own."""

    def expression(self, *, layer: str | None = None, raw: bool = False) -> Matrix | None:
        """X, a layer or ``raw.X``, cells × genes; None when the source has no such matrix (X absent)."""

    def obsm(self) -> Mapping[str, tuple[int, ...]]:
        """Names and shapes of the obsm entries that are numeric arrays, in order."""

    def obsm_array(self, key: str) -> AnyArray:
        """One obsm entry, (n_cells, d), dense."""

    def obsp(self) -> list[str]:
        """Names of the obsp entries."""

    def obsp_matrix(self, key: str) -> Matrix:
        """One obsp entry, cells × cells."""

    def close(self) -> None:
        """Release files; the source is not used afterwards."""


def as_text(labels: Array) -> list[str]:
    """Labels of any dtype as text, by `str`, with bytes decoded as UTF-8."""
    return [
        item.decode("utf-8", "replace") if isinstance(item, bytes) else str(item)
        for item in np.asarray(labels).tolist()
    ]


def as_native(array: Array) -> Array:
    """The array in the byte order of this machine; the array itself when it is so already."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
