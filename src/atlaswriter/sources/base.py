"""What every source offers: a header, and the parts of an AnnData one at a time.

A source is read-only and lazy. Its matrices are cells × genes (or cells × cells for graphs).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True)
class Compressed:
    """A sparse matrix in compressed form.

    Attributes
    ----------
    shape
        ``(rows, columns)``.
    indptr
        int32 or int64, ``(n_major + 1,)``.
    indices
        int32 or int64, ``(nnz,)``; may be unsorted or repeat within one major slice
        (repeated entries add up, as in scipy).
    data
        Any real numeric dtype, ``(nnz,)``.
    axis
        0: compressed by row (CSR); 1: compressed by column (CSC).
    """

    shape: tuple[int, int]
    indptr: Array
    indices: Array
    data: Array
    axis: int

    @property
    def nnz(self) -> int:
        """Number of stored entries."""
        return int(self.indices.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return int(self.indptr.nbytes + self.indices.nbytes + self.data.nbytes)


Matrix = Compressed | Array


@dataclass(frozen=True)
class Continuous:
    """A numeric obs column: ``values`` (n_cells,), any real dtype, NaN where missing."""

    values: Array


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

    codes: Array
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

    def obsm_array(self, key: str) -> Array:
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
