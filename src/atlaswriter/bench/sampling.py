"""Random sparse matrices, some rows at a time, in time of what they store.

Every row (or part of a column) has random numbers of its own, so blocks and threads change nothing.

Which genes a cell expresses is a Poisson process: walk along all genes laid end to end, gene g taking
``-log(1 - density of g)``, in exponential steps, and take each gene that is hit. Hits come in order,
no gene twice, each with its own probability, and no gene without a hit costs anything.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from atlaswriter.kernels._jit import kernel, part

Array = NDArray[Any]

# SplitMix64 (Steele, Lea, Flood 2014).
_STEP, _FIRST, _SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31 = (np.uint64(bits) for bits in (11, 27, 30, 31))
_UNIT = 2.0**-53

_LEVELS, _SLOTS, _COUNTS = 4096, 2048, 16  # scales of cells; slots of the table of counts; largest count + 1
_LEVEL_MASK, _SLOT_MASK = np.uint64(_LEVELS - 1), np.uint64(_SLOTS - 1)
# Guides into the genes laid end to end, for each gene: the next gene is then about one step away.
_GUIDES = 4

# Cells whose graph is made together: partners are found by flipping bits within such a window.
WINDOW_BITS = 12
_WINDOW, _STRIDE = 1 << WINDOW_BITS, 1117  # the stride shares no factor with 4095


@dataclass(frozen=True)
class Genes:
    """How dense each gene is, and what values look like; see `Genes.of`.

    Attributes
    ----------
    hazards
        float64 (n_genes + 1,): where each gene begins among all laid end to end.
    guide
        int32: a gene at or before each of many equidistant points.
    values
        float32 (scales of cells, counts): log1p(count × scale).
    counts
        uint8: counts, each as often as it is likely.
    key
        Seed of everything.
    """

    hazards: Array
    guide: Array
    values: Array
    counts: Array
    key: np.uint64

    @classmethod
    def of(cls, n_genes: int, density: float, seed: int) -> Genes:
        """Log-normal densities around `density`, geometric counts, log-normal sizes of cells."""
        random = np.random.default_rng([seed, n_genes])
        shares = np.minimum(density * random.lognormal(-0.5, 1.0, n_genes), 0.9)
        shares = np.clip(shares * (density / max(shares.mean(), 1e-300)), 1e-12, 0.95) if n_genes else shares
        hazards = np.r_[0.0, np.cumsum(-np.log1p(-shares))]
        points = np.linspace(0, hazards[-1], _GUIDES * n_genes + 2) * (1 - 1e-12)
        guide = np.clip(np.searchsorted(hazards, points, side="right") - 1, 0, max(n_genes - 1, 0))
        counts = np.ceil(np.log1p(-(np.arange(_SLOTS) + 0.5) / _SLOTS) / np.log(0.4))
        scales = np.exp(0.7 + 0.4 * ndtri((np.arange(_LEVELS) + 0.5) / _LEVELS))
        values = np.log1p(scales[:, None] * np.arange(_COUNTS)).astype(np.float32)
        key = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
        return cls(hazards, guide.astype(np.int32), values, counts.astype(np.uint8), key)

    @property
    def per_cell(self) -> float:
        """Expected non-zeros of a cell."""
        return float(-np.expm1(-np.diff(self.hazards)).sum())

    def count(self, first: int, last: int) -> int:
        """Non-zeros of some cells, exactly."""
        nothing = np.empty(0, np.int32), np.empty(0, np.float32)
        return int(_fill_rows(first, last, *self._tables, np.empty(0, np.int64), *nothing))

    def rows(self, first: int, last: int, nonzeros: int) -> tuple[Array, Array, Array]:
        """Some cells in CSR: indptr from 0, int64; indices, int32; values, float32. `nonzeros` as `count` says."""
        indptr, indices = np.empty(last - first + 1, np.int64), np.empty(nonzeros, np.int32)
        values = np.empty(nonzeros, np.float32)
        _fill_rows(first, last, *self._tables, indptr, indices, values)
        return indptr, indices, values

    def column(self, gene: int, first: int, last: int) -> tuple[Array, Array]:
        """Cells `first` to `last` that have a gene, ascending, and its values.

        Another draw than `rows` of the same distribution; its ranges do matter.
        """
        hazard = self.hazards[gene + 1] - self.hazards[gene]
        expected = -np.expm1(-hazard) * (last - first)
        indices = np.empty(min(last - first, int(expected + 10 * np.sqrt(expected) + 20)), np.int32)
        values = np.empty(indices.size, np.float32)
        n = _fill_column(gene, hazard, first, last, self.values, self.counts, self.key, indices, values)
        return indices[:n], values[:n]

    @property
    def _tables(self) -> tuple[Any, ...]:
        return self.hazards, self.guide, self.values, self.counts, self.key


def graph_rows(first: int, last: int, n_cells: int, neighbors: int, key: np.uint64) -> tuple[Array, Array, Array]:
    """Some rows of a symmetric graph, as `Genes.rows`: `neighbors` others within 4096 of each cell, fewer at the end.

    `first` has to be the first cell of a window.
    """
    room = (last - first) * neighbors
    indptr, indices = np.empty(last - first + 1, np.int64), np.empty(room, np.int32)
    weights = np.empty(room, np.float32)
    n = _fill_graph(first, last, n_cells, neighbors, key, indptr, indices, weights)
    return indptr, indices[:n], weights[:n]


def _mix(state: Any) -> Any:
    state = (state ^ (state >> _S30)) * _FIRST
    state = (state ^ (state >> _S27)) * _SECOND
    return state ^ (state >> _S31)


_mixed = part(_mix)


def _cell_bits(key: Any, cell: int) -> Any:
    """Random bits of a cell: its scale, and where its numbers begin."""
    return _mixed(key + np.uint64(cell) * _STEP)


_cell = part(_cell_bits)


def _exponential_of(bits: Any) -> Any:
    return -np.log((np.float64(bits >> _S11) + 1.0) * _UNIT)


_exponential = part(_exponential_of)


@kernel("(i8, i8, f8[::1], i4[::1], f4[:, ::1], u1[::1], u8, i8[::1], i4[::1], f4[::1])")
def _fill_rows(
    first: int,
    last: int,
    hazards: Array,
    guide: Array,
    values: Array,
    counts: Array,
    key: np.uint64,
    indptr: Array,
    indices: Array,
    data: Array,
) -> int:
    """Fill CSR rows; only counts where `indptr` is empty."""
    end, scale = hazards[-1], (guide.size - 1) / max(hazards[-1], 1e-300)
    store, n = indptr.size > 0, 0
    for cell in range(first, last):
        if store:
            indptr[cell - first] = n
        state = _cell(key, cell)
        level = state & _LEVEL_MASK
        position = 0.0
        while True:
            state += _STEP
            bits = _mixed(state)
            position += _exponential(bits)
            if position >= end:
                break
            gene = guide[int(position * scale)]
            while hazards[gene + 1] <= position:
                gene += 1
            if store:
                indices[n] = gene
                data[n] = values[level, counts[bits & _SLOT_MASK]]
            n += 1
            position = hazards[gene + 1]
    if store:
        indptr[last - first] = n
    return n


@kernel("(i8, f8, i8, i8, f4[:, ::1], u1[::1], u8, i4[::1], f4[::1])")
def _fill_column(
    gene: int,
    hazard: float,
    first: int,
    last: int,
    values: Array,
    counts: Array,
    key: np.uint64,
    indices: Array,
    data: Array,
) -> int:
    state, n, cell = _mixed(_mixed(key ^ np.uint64(gene)) ^ np.uint64(first)), 0, first
    while n < indices.size:
        state += _STEP
        bits = _mixed(state)
        gap = _exponential(bits) / hazard
        if gap >= last - cell:
            break
        cell += int(gap)
        indices[n] = cell
        data[n] = values[_cell(key, cell) & _LEVEL_MASK, counts[bits & _SLOT_MASK]]
        n += 1
        cell += 1
    return n


@kernel("(i8, i8, i8, i8, u8, i8[::1], i4[::1], f4[::1])")
def _fill_graph(
    first: int, last: int, n_cells: int, neighbors: int, key: np.uint64, indptr: Array, indices: Array, weights: Array
) -> int:
    n = 0
    for cell in range(first, last):
        indptr[cell - first] = n
        bits = _mixed(key + np.uint64(cell >> WINDOW_BITS) * _FIRST)
        offset = int(bits >> _S11) % (_WINDOW - 1)
        begin = n
        for neighbor in range(neighbors):
            other = cell ^ (1 + (offset + neighbor * _STRIDE) % (_WINDOW - 1))
            if other >= n_cells:
                continue
            at = n
            while at > begin and indices[at - 1] > other:
                indices[at], weights[at] = indices[at - 1], weights[at - 1]
                at -= 1
            indices[at] = other
            pair = _mixed(_cell(key, min(cell, other)) ^ np.uint64(max(cell, other)))
            weights[at] = 0.1 + 0.9 * np.float64(pair >> _S11) * _UNIT
            n += 1
    indptr[last - first] = n
    return n
