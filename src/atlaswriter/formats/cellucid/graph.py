"""The neighbour graph as sorted pairs of cells, block by block, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple, cast
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.rows import block_bytes, kernel_indices, row_cuts
from atlaswriter.errors import BudgetError, InputError, Problem
from atlaswriter.formats.cellucid import layout
from atlaswriter.kernels import edges
from atlaswriter.kernels._jit import Kernel, readable
from atlaswriter.sources.base import AnyArray, Array, Compressed, Lazy, Matrix, RowChunks, in_memory, is_dense
from atlaswriter.sources.lazy import check_inside

# Entries read together, and edges handed on together. Symmetric graph of 30 million entries in memory, ns per entry:
# 6.5 with 2¹⁴, 5.7 with 2¹⁶, 5.5 with 2¹⁸, 5.4 with 2²⁰.
_BLOCK_ENTRIES = 1 << 18
_BLOCK_EDGES = 1 << 18
# Row pointers looked at together.
_WINDOW_ROWS = 1 << 16
# Cells are uint32 inside.
_MOST_CELLS = (1 << 32) - 1
_CELL_BYTES = 4
_MOST_INT32 = 2**31 - 1
# Kernels that take a block of rows.
_BY_INDEX = (
    edges.survey,
    edges.take_upper,
    edges.rows_ascend,
    edges.sort_rows,
    edges.count_below,
    edges.place_below,
    edges.merge,
)
# What the entries of a block take beside the stored ones: which are kept, and positions.
_WORK_BYTES = 9
# Arrays of int64 that go with row pointers.
_ROW_BYTES = 5 * 8
# Entries of the longest row of each stored matrix, by its row pointers.
_LONGEST: WeakKeyDictionary[Lazy, int] = WeakKeyDictionary()


class EdgeStream:
    """Undirected edges of a cells × cells matrix, sorted by (source, destination), each once, source < destination.

    A pair is an edge when the entry in either direction is not zero; weights are not looked at otherwise, so none
    can overflow or cancel. The diagonal is left out. The edges, and how they are cut into blocks, do not depend on
    the room.

    A first pass finds out whether the matrix is symmetric, as neighbour graphs are; its upper half then are the edges,
    and a second pass hands them on. Otherwise the lower half is counted, and brought into the order of columns, as
    many columns at a time as there is room for.

    Parameters
    ----------
    matrix
        Any weights; need not be symmetric; rows may be unsorted and repeat entries.
    room
        Bytes that buffers may take, beside what reading holds (`sources.base.overhead`) and the blocks that
        the caller keeps; at least `least_room`.

    Attributes
    ----------
    n_edges, max_neighbors
        Number of edges, and the most of one cell; known once all were handed on.

    Raises
    ------
    BudgetError
        The room is too small.
    InputError
        While iterating: the matrix is damaged.
    """

    def __init__(self, matrix: Matrix, room: int) -> None:
        self._rows = _rows_of(matrix)
        self._n_cells = int(matrix.shape[0])
        if self._n_cells > _MOST_CELLS:
            raise InputError(Problem(_where(matrix), f"more than {_MOST_CELLS:,} cells", "export a part of them"))
        fixed, least, _ = _bytes_of(matrix)
        if room < least:
            raise BudgetError(f"the neighbour graph needs {least:,} bytes, and has {room:,}")
        self._below_room = min((room - fixed) // _CELL_BYTES, _MOST_CELLS)
        self.n_edges = 0
        self.max_neighbors = 0

    def __iter__(self) -> Iterator[tuple[Array, Array]]:
        sums = self._survey()
        n_below, n_above = int(sums[edges.BELOW]), int(sums[edges.ABOVE])
        output = _Output(self._n_cells, n_below + n_above)
        mirrored = _is_mirrored(sums)
        if mirrored:
            yield from self._upper_half(output)
            self.max_neighbors = int(sums[edges.LARGEST_ROW])
        else:
            yield from self._merged(output, has_below=n_below > 0)
            self.max_neighbors = int(output.state[edges.MOST])
        self.n_edges = output.n_edges
        if not max(n_below, n_above) <= self.n_edges <= (n_above if mirrored else n_below + n_above):
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(Problem(self._rows.where, "changed while it was read", "export it again"))

    def _survey(self) -> Array:
        sums = np.zeros(edges.SUMS, np.uint64)
        for block in self._rows.blocks(0, self._n_cells):
            if not edges.survey(*block, sums):
                self._rows.ascend = False
                edges.survey(*_in_order(block), sums)
        self._rows.surveyed = True
        return sums

    def _upper_half(self, output: _Output) -> Iterator[tuple[Array, Array]]:
        for block in self._rows.blocks(0, self._n_cells):
            yield from output.run(edges.take_upper, *block)
        yield from output.rest()

    def _merged(self, output: _Output, *, has_below: bool) -> Iterator[tuple[Array, Array]]:
        rows, n_cells = self._rows, self._n_cells
        counts, extra = np.zeros(n_cells, np.uint32), np.zeros(n_cells, np.uint32)
        for block in rows.blocks(0, n_cells) if has_below else ():
            edges.count_below(*block, counts)
        base = 0
        while base < n_cells:
            stop, size = edges.make_starts(counts, base, self._below_room)
            if stop == base:
                raise self._changed()
            below = np.zeros(size, np.uint32)
            for block in rows.blocks(base + 1, n_cells) if size else ():
                edges.place_below(*block, base, stop, counts, below)
            for block in rows.blocks(base, stop):
                yield from output.run(edges.merge, *block, base, counts, below, extra)
            del below
            base = stop
        yield from output.rest()


def least_room(matrix: Matrix) -> int:
    """Bytes of the smallest room that `EdgeStream` works with; row pointers are read for it."""
    return _bytes_of(matrix)[1]


def whole_room(matrix: Matrix) -> int:
    """Bytes of the room with which every entry is read as few times as possible.

    That is twice if the matrix is symmetric, for which `least_room` is enough (and not used up); else at most four
    times.
    """
    return _bytes_of(matrix)[2]


def wanted_kernels(matrix: Matrix, n_cells: int) -> Iterator[tuple[Kernel, str]]:
    """Every kernel and signature that the edges of a matrix may need."""
    wide = matrix.indices.dtype != np.int32 if isinstance(matrix, Compressed) else n_cells > _MOST_INT32
    indices = "i8[::1]" if wide else "i4[::1]"
    either = not isinstance(matrix, Compressed) and not is_dense(matrix)  # chunks bring their own dtype
    for one in _BY_INDEX:
        for signature in one.signatures:
            if either or signature.startswith(f"(i8[::1], {indices}"):
                yield one, signature
    yield edges.make_starts, edges.make_starts.signatures[0]


def _is_mirrored(sums: Array) -> bool:
    return sums[edges.BELOW] == sums[edges.ABOVE] and not sums[edges.HASH] and not sums[edges.OTHER_HASH]


class _Output:
    """Edges that kernels write, handed on in blocks of one size."""

    def __init__(self, n_cells: int, n_entries: int) -> None:
        self._dtype = layout.index_dtype(n_cells)[0]
        self._size = max(1, min(n_entries, _BLOCK_EDGES))
        self.state = np.zeros(edges.STATE, np.int64)
        self.n_edges = 0
        self._renew()

    def _renew(self) -> None:
        self._sources, self._destinations = np.empty(self._size, np.uint32), np.empty(self._size, np.uint32)
        self.state[edges.WRITTEN] = 0

    def run(self, kernel: Kernel, *block: object) -> Iterator[tuple[Array, Array]]:
        """Let a kernel go through a block; blocks of edges that became full."""
        self.state[edges.ROW], self.state[edges.ENTRY] = 0, -1
        while not kernel(*block, self.state, self._sources, self._destinations):
            yield self._taken()
            self._renew()

    def rest(self) -> Iterator[tuple[Array, Array]]:
        """What is left at the end."""
        if self.state[edges.WRITTEN]:
            yield self._taken()

    def _taken(self) -> tuple[Array, Array]:
        count = int(self.state[edges.WRITTEN])
        self.n_edges += count
        pair = (
            self._sources[:count].astype(self._dtype, copy=False),
            self._destinations[:count].astype(self._dtype, copy=False),
        )
        del self._sources, self._destinations
        return pair


class _Block(NamedTuple):
    """Whole rows as kernels take them: see `kernels.edges`."""

    indptr: NDArray[np.int64]
    indices: Array
    first: int


class _Rows:
    """Rows of a pattern, block by block, as often as needed.

    Attributes
    ----------
    ascend
        Whether no row was found to be unsorted; if one was, blocks are sorted.
    surveyed
        Whether all rows were gone through once, so that it is known whether zeros are stored.
    where
        Name of the matrix in messages.
    """

    def __init__(self, matrix: Matrix) -> None:
        self._n_cells = int(matrix.shape[0])
        self.where = _where(matrix)
        self.ascend = True
        self.surveyed = False

    def blocks(self, first: int, last: int) -> Iterator[_Block]:
        """Rows `first` to `last`; blocks of about `_BLOCK_ENTRIES` entries, or a single row."""
        for block in self._stored(first, last):
            if self.ascend or edges.rows_ascend(block.indptr, block.indices):
                yield block
            else:
                yield _in_order(block)

    def _stored(self, first: int, last: int) -> Iterator[_Block]:
        raise NotImplementedError


class _SparseRows(_Rows):
    """Rows of a CSR matrix, or columns of a CSC one: the pattern of ``A + Aᵀ`` is that of its transpose."""

    def __init__(self, matrix: Compressed) -> None:
        super().__init__(matrix)
        self._matrix = matrix
        self._has_zeros = False

    def _stored(self, first: int, last: int) -> Iterator[_Block]:
        for start in range(first, last, _WINDOW_ROWS):
            stop = min(start + _WINDOW_ROWS, last)
            indptr = self._window(start, stop)
            for row, end in row_cuts(indptr, _BLOCK_ENTRIES):
                yield self._block(indptr[row : end + 1], start + row)

    def _window(self, first: int, last: int) -> NDArray[np.int64]:
        stored = self._matrix.indptr
        indptr = readable(np.ascontiguousarray(stored[first : last + 1], dtype=np.int64))
        if not in_memory(stored):
            _check_pointers(indptr, first, self._matrix)
        return indptr

    def _block(self, indptr: NDArray[np.int64], first: int) -> _Block:
        entries = slice(int(indptr[0]), int(indptr[-1]))
        indptr, indices = indptr - indptr[0], self._matrix.indices[entries]
        if not in_memory(self._matrix.indices):
            check_inside(indices, self._matrix)
        if not self.surveyed or self._has_zeros:
            kept = self._matrix.data[entries] != 0
            if not kept.all():
                self._has_zeros = True
                indices = indices[kept]
                indptr = _counted(kept)[indptr]
        return _Block(indptr, kernel_indices(indices), first)


class _DenseRows(_Rows):
    """Rows of a dense matrix."""

    def __init__(self, matrix: AnyArray) -> None:
        super().__init__(matrix)
        self._array = matrix

    def _stored(self, first: int, last: int) -> Iterator[_Block]:
        step = _dense_rows(self._array)
        for start in range(first, last, step):
            some = self._array[start : min(start + step, last)] != 0
            indptr = np.r_[0, np.cumsum(np.count_nonzero(some, axis=1))]
            dtype = np.int32 if self._n_cells <= _MOST_INT32 else np.int64
            yield _Block(indptr, np.nonzero(some)[1].astype(dtype), start)


class _MadeRows(_Rows):
    """Rows of a matrix that somebody else makes, chunk by chunk, anew each time."""

    def __init__(self, matrix: RowChunks) -> None:
        super().__init__(matrix)
        self._chunks = matrix

    def _stored(self, first: int, last: int) -> Iterator[_Block]:
        for position, (start, stop) in enumerate(pairwise(self._chunks.starts)):
            begin, end = max(first, start), min(last, stop)
            if begin < end:
                rows = _SparseRows(self._chunks.chunk(position))
                for block in rows.blocks(begin - start, end - start):
                    yield block._replace(first=block.first + start)


def _rows_of(matrix: Matrix) -> _Rows:
    if isinstance(matrix, Compressed):
        return _SparseRows(matrix)
    return _DenseRows(matrix) if is_dense(matrix) else _MadeRows(cast("RowChunks", matrix))


def _where(matrix: Matrix) -> str:
    return str(getattr(matrix, "where", "the neighbour graph"))


def _damaged(where: str, found: str) -> InputError:
    return InputError(Problem(where, f"damaged sparse matrix: {found}", "write it again from its source"))


def _check_pointers(indptr: NDArray[np.int64], first: int, matrix: Compressed) -> None:
    """`InputError` unless the row pointers from row `first` on rise, from 0 to the number of entries."""
    begin, end = int(indptr[0]), int(indptr[-1])
    is_last = first + indptr.size == matrix.indptr.shape[0]
    if begin < 0 or end > matrix.nnz or (first == 0 and begin > 0) or (is_last and end < matrix.nnz):
        raise _damaged(matrix.where, f"indptr does not go from 0 to {matrix.nnz}")
    if not np.all(indptr[1:] >= indptr[:-1]):
        raise _damaged(matrix.where, "indptr decreases")


def _counted(kept: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many are kept before each position."""
    before = np.empty(kept.size + 1, np.int64)
    before[0] = 0
    np.cumsum(kept, out=before[1:])
    return before


def _in_order(block: _Block) -> _Block:
    """The block with every row sorted."""
    indices = block.indices.copy()
    edges.sort_rows(block.indptr, indices)
    return block._replace(indices=indices)


def _dense_rows(array: AnyArray) -> int:
    """Rows of a dense matrix that are read together: whole chunks."""
    grain = 1 if isinstance(array, np.ndarray) else array.grain
    wanted = max(1, min(array.shape[0], _BLOCK_ENTRIES // max(1, array.shape[1])))
    return -(-wanted // grain) * grain


def _longest_row(matrix: Compressed) -> int:
    """Entries of the longest row; found once for row pointers that have to be read."""
    if isinstance(matrix.indptr, np.ndarray):
        return _measured(matrix)
    if matrix.indptr not in _LONGEST:
        _LONGEST[matrix.indptr] = _measured(matrix)
    return _LONGEST[matrix.indptr]


def _measured(matrix: Compressed) -> int:
    longest = 0
    for first in range(0, matrix.indptr.shape[0] - 1, _WINDOW_ROWS):
        window = matrix.indptr[first : first + _WINDOW_ROWS + 1]
        longest = max(longest, int(np.subtract(window[1:], window[:-1], dtype=np.int64).max()))
    return longest


def _block_room(matrix: Matrix) -> int:
    """Bytes that one block of rows takes, with the one before it."""
    if isinstance(matrix, Compressed):
        stored, width = matrix.indices.dtype.itemsize, 4 if matrix.indices.dtype == np.int32 else 8
        read = (0 if in_memory(matrix.indices) else 2 * stored) + (
            0 if in_memory(matrix.data) else matrix.data.dtype.itemsize
        )
        entries = max(min(_BLOCK_ENTRIES, matrix.nnz), _longest_row(matrix))
        rows = min(_WINDOW_ROWS, matrix.shape[0]) + 1
        return entries * (read + 4 * width + _WORK_BYTES) + rows * (matrix.indptr.dtype.itemsize + _ROW_BYTES)
    if is_dense(matrix):
        rows = min(_dense_rows(matrix), matrix.shape[0])
        read = 0 if in_memory(matrix) else matrix.dtype.itemsize
        return rows * (matrix.shape[1] * (read + 4 * 8 + _WORK_BYTES) + _ROW_BYTES)
    rows = min(_WINDOW_ROWS, matrix.shape[0]) + 1
    chunk = block_bytes(cast("RowChunks", matrix))  # estimated
    return chunk + _BLOCK_ENTRIES * (4 * 8 + _WORK_BYTES) + rows * _ROW_BYTES


def _bytes_of(matrix: Matrix) -> tuple[int, int, int]:
    """Bytes beside the lists of the lower half, those of `least_room`, and those of `whole_room`."""
    n_cells = int(matrix.shape[0])
    if isinstance(matrix, Compressed):
        entries = matrix.nnz
    elif is_dense(matrix):
        entries = n_cells * n_cells
    else:
        entries = cast("RowChunks", matrix).entries  # estimated
    blocks_of_edges = 3 * 2 * _CELL_BYTES * max(1, min(_BLOCK_EDGES, entries))
    fixed = 2 * _CELL_BYTES * n_cells + _block_room(matrix) + blocks_of_edges
    # The entries of one column have to be held at once; repeated ones are left out before.
    return fixed, fixed + _CELL_BYTES * min(n_cells, entries), fixed + _CELL_BYTES * max(n_cells, entries)
