"""Categories: where their centre lies in each embedding, and how far out each cell is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.cellucid import ranks
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.kernels import groups
from atlaswriter.kernels._jit import Kernel, readable
from atlaswriter.sources.base import AnyArray, Array, overhead, row_blocks

# Bytes of coordinates that are looked at at a time, at least the rows that are read together.
BLOCK_BYTES = 1 << 20

# Bins of a category's distances, the smallest number and the largest, as powers of two.
_FEWEST_BINS, _MOST_BINS = 4, 12
_KEY_BYTES, _BIN_BYTES = 8, 4
# Bytes of bins and of distances kept of one category at least, of each half.
_LEAST_SEARCH = 2 * _BIN_BYTES << _FEWEST_BINS
# Where all distances have room they are kept at once: 20 ns a cell, else 30 (4 million cells, 3 axes, 30 categories).
# Beyond some room that is not worth its memory.
_SEARCH_ROOM = 64 << 20
# Bytes per category of its counts, table lines, searches and what is computed from them, beside coordinates.
_LINE_BYTES = 320


class Rooms(NamedTuple):
    """Bytes that a function can do with, and bytes beyond which more are of no use."""

    least: int
    whole: int

    def within(self, free: int) -> int:
        """As much of it as `free` bytes allow."""
        return max(self.least, min(self.whole, free))


def coords_dtype(dtype: np.dtype) -> np.dtype:
    """Dtype that kernels take coordinates in: their own if it is float32 or float64, else float64."""
    return dtype if dtype in (np.float32, np.float64) and dtype.isnative else np.dtype(np.float64)


def kernel_coords(array: Array) -> Array:
    """Coordinates in a layout and dtype that kernels take; the array itself where it is one already."""
    return readable(np.ascontiguousarray(array, dtype=coords_dtype(array.dtype)))


def _as_is(coords: AnyArray) -> bool:
    """Whether kernels take slices of it without a copy."""
    return isinstance(coords, np.ndarray) and coords.flags.c_contiguous and coords.dtype == coords_dtype(coords.dtype)


def _block_rows(coords: AnyArray) -> int:
    row_bytes = max(coords.shape[1] * coords_dtype(coords.dtype).itemsize, 1)
    grain = 1 if isinstance(coords, np.ndarray) else max(coords.grain, 1)
    return max(min(max(BLOCK_BYTES // row_bytes // grain, 1) * grain, coords.shape[0]), 1)


def _block_bytes(coords: AnyArray) -> int:
    """Memory of blocks: of the one at work and the one being read, as read and converted."""
    if _as_is(coords):
        return 0
    return 4 * _block_rows(coords) * coords.shape[1] * coords_dtype(coords.dtype).itemsize + overhead(coords)


@dataclass(frozen=True)
class _Cells:
    """Cells with their category and coordinates, which are read some rows at a time."""

    coords: AnyArray
    codes: Array
    center: NDArray[np.float64]
    scale: float

    def blocks(self, first: int = 0, last: int | None = None) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """First row of each block, and the arguments that every kernel takes first."""
        for start, raw in row_blocks(self.coords, _block_rows(self.coords), first, last):
            block = kernel_coords(raw)
            yield start, (block, self.codes[start : start + len(block)], self.center, self.scale)

    def sums(self, squares: NDArray[np.float64], n_categories: int) -> NDArray[np.float64]:
        """Sums of the coordinates of each category."""
        sums = np.zeros((n_categories, self.center.size))
        for _, block in self.blocks():
            groups.add(*block, sums, squares)
        return sums


# ---------------------------------------------------------------- centroids


def centroids(
    coords: AnyArray,
    frame: Frame,
    codes: Array,
    counts: NDArray[np.int64],
    categories: list[str],
    *,
    quantile: float,
    min_points: int,
    room: int,
) -> list[dict[str, Any]]:
    """Centre of each category with enough cells, without its outlying ones.

    The mean; if there are more than `min_points` cells, their distances to it; those beyond the
    linearly interpolated `quantile` are dropped, and if at least `min_points` remain their mean is
    taken instead. (Rule: cellucid 0.0.9; float64 throughout, which it is not there.)

    Distances are never held all at once: the quantile is searched for, and found exactly, by passes
    over the coordinates, with those for the means three where all have room, else four as a rule.

    Parameters
    ----------
    coords
        Any real dtype (n_cells, d), raw.
    frame
        How they are normalised.
    codes
        uint8 or uint16 (n_cells,).
    counts
        Cells of each category.
    room
        Bytes this may take beside its arguments and result; the result does not depend on it. See `centroid_rooms`.

    Returns
    -------
    list
        ``{category, position, n_points}`` in category order, as the manifest stores them.
    """
    free = room - centroid_rooms(coords, counts.size).least
    if free < 0:
        raise ValueError(f"centroids of {counts.size} categories do not fit in {room} bytes")
    cells = _Cells(coords, codes, frame.center, frame.scale)
    squares = np.zeros(counts.size)
    sums = cells.sums(squares, counts.size)
    means = sums / np.maximum(counts, 1)[:, None]
    wanted = counts > min_points
    spreads = _spreads(squares, means, counts)
    reach = _reach(cells, means, wanted, counts, spreads, quantile, free + counts.size * _LEAST_SEARCH)
    near_counts, near_sums = np.zeros_like(counts), np.zeros_like(sums)
    for _, block in cells.blocks():
        groups.add_near(*block, means, reach, near_counts, near_sums)
    replaced = wanted & (near_counts >= min_points)
    used = np.where(replaced, near_counts, counts)
    np.copyto(sums, near_sums, where=replaced[:, None])
    sums /= np.maximum(used, 1)[:, None]
    return [
        {"category": label, "position": sums[code].tolist(), "n_points": int(used[code])}
        for code, label in enumerate(categories)
        if counts[code] >= min_points
    ]


def centroid_rooms(coords: AnyArray, n_categories: int) -> Rooms:
    """What `centroids` needs: some MiB to read, and for each category some 450 bytes and 24 for each axis."""
    each = _LINE_BYTES + 3 * 8 * coords.shape[1] + _LEAST_SEARCH
    least = _block_bytes(coords) + n_categories * each + (64 << 10)
    return Rooms(least, least + min(_SEARCH_ROOM, _KEY_BYTES * coords.shape[0]))


def _spreads(squares: Array, means: Array, counts: Array) -> NDArray[np.float64]:
    """Standard deviations of categories, not exactly."""
    with np.errstate(all="ignore"):
        spreads: NDArray[np.float64] = np.sqrt(np.maximum(squares / counts - np.einsum("ca,ca->c", means, means), 0))
    return spreads


def _reach(
    cells: _Cells, means: Array, wanted: Array, counts: Array, spreads: Array, quantile: float, free: int
) -> NDArray[np.float64]:
    """The quantile of the distances of each wanted category as `numpy.quantile` has it; -1 for the others."""
    places = (counts - 1) * quantile
    last = np.maximum(counts - 1, 0)
    floors = np.clip(np.floor(places), 0, last).astype(np.int64)
    found = _order_statistics(cells, means, wanted, counts, floors, spreads, free)
    low, high = found[:, 0].view(np.float64), np.where(floors < last, found[:, 1], found[:, 0]).view(np.float64)
    share = places - floors
    with np.errstate(invalid="ignore"):
        step = high - low
        reach = np.where(share >= 0.5, high - step * (1 - share), low + step * share)
    return np.where(wanted, reach, -1.0)


def _order_statistics(
    cells: _Cells, means: Array, wanted: Array, counts: Array, places: Array, spreads: Array, free: int
) -> NDArray[np.int64]:
    """Keys of the distances at a place in the order of each wanted category, and of the next."""
    searches = np.zeros((counts.size, groups.SEARCH_COLUMNS), np.int64)
    searches[:, groups.TO], searches[:, groups.SIZE], searches[:, groups.RANK] = groups.TOP_KEY, counts, places
    found = np.zeros((counts.size, 2), np.int64)
    open_ = wanted.copy()
    guess: NDArray[np.int64] | None = _guess(spreads)
    while open_.any():
        table, n_bins, n_kept = _probe_table(searches, open_, guess, free)
        bins, kept = np.zeros(n_bins, np.uint32), np.empty(n_kept, np.int64)
        for _, block in cells.blocks():
            groups.probe(*block, means, table, bins, kept)
        groups.narrow(table, bins, searches)
        groups.select(table, kept, searches, found)
        open_ &= table[:, groups.SHIFT] >= 0
        guess = None
        del bins, kept
    return found


def _guess(spreads: NDArray[np.float64]) -> NDArray[np.int64]:
    """Keys between which the searched distances may be: some octaves around the standard deviation."""
    known = np.isfinite(spreads) & (spreads > 0)
    bounds = np.where(known[:, None], spreads[:, None] * [2.0**-5, 2.0**3], [0.0, np.inf])
    return np.ascontiguousarray(bounds).view(np.int64)


def _probe_table(
    searches: NDArray[np.int64], open_: Array, guess: NDArray[np.int64] | None, free: int
) -> tuple[NDArray[np.int64], int, int]:
    """What the next pass does for each category, how many bins it needs, and how many distances it keeps."""
    table = np.zeros((open_.size, groups.PROBE_COLUMNS), np.int64)
    low, high, sizes = searches[:, groups.FROM], searches[:, groups.TO], searches[:, groups.SIZE]
    table[:, groups.LOW], table[:, groups.HIGH] = low, high
    table[:, groups.ABOVE] = groups.TOP_KEY
    shifts = table[:, groups.SHIFT]
    shifts[:] = np.where(open_, groups.LOOK_ABOVE, groups.SKIP)
    several = np.flatnonzero(open_ & (low < high))
    several = several[np.argsort(sizes[several], kind="stable")]
    ends = np.cumsum(sizes[several])
    fits = bool(several.size) and ends[-1] * _KEY_BYTES <= free
    n_small = several.size if fits else int(np.searchsorted(ends, free // 2 // _KEY_BYTES, side="right"))
    small, large = several[:n_small], several[n_small:]
    shifts[small] = groups.KEEP
    table[small, groups.AT] = ends[:n_small] - sizes[small]
    bits = max(min((free // 2 // _BIN_BYTES // max(large.size, 1)).bit_length() - 1, _MOST_BINS), 1)
    if guess is not None:
        table[large, groups.LOW : groups.HIGH + 1] = guess[large]
    spans = table[large, groups.HIGH] - table[large, groups.LOW]
    shifts[large] = np.maximum(np.frexp(spans.astype(np.float64))[1] - bits, 0)
    table[large, groups.AT] = np.arange(large.size) << bits
    return table, large.size << bits, int(ends[n_small - 1]) if n_small else 0


# ---------------------------------------------------------------- outlier quantiles


def outlier_quantiles(
    latent: AnyArray,
    codes: Array,
    counts: NDArray[np.int64],
    *,
    min_points: int,
    room: int,
    spill: Callable[[], Path],
) -> NDArray[np.float32]:
    """How far out each cell is in its category: the share of its cells as near to the mean or nearer.

    Distances in the latent space (n_cells, d), all of it in float64. NaN for cells of categories
    below `min_points` and without category.

    Parameters
    ----------
    latent
        Any real dtype (n_cells, d).
    codes
        uint8 or uint16 (n_cells,).
    counts
        Cells of each category.
    room
        Bytes this may take beside its arguments and result; the result does not depend on it. See `outlier_rooms`.
    spill
        Says in which folder temporary files may be; called where room is short. 12 bytes per cell
        are written, and gone at the end, also after an error (`OSError` where the disk is full).
    """
    free = room - _outlier_fixed(latent, counts.size)
    n_entries = free // ranks.ENTRY_BYTES
    if n_entries < _least_entries(latent):
        raise ValueError(f"outlier quantiles of {counts.size} categories do not fit in {room} bytes")
    cells = _Cells(latent, codes, np.zeros(latent.shape[1]), 1.0)
    means = cells.sums(np.empty(0), counts.size)
    means /= np.maximum(counts, 1)[:, None]

    def fill(first: int, last: int, cursor: NDArray[np.int64], entries: ranks.Entries) -> None:
        for start, block in cells.blocks(first, last):
            groups.distances(*block, means, cursor, entries.keys, entries.cells, start)

    quantiles = np.full(codes.size, np.nan, np.float32)
    sizes = np.where(counts >= min_points, counts, 0)
    starts = np.zeros(counts.size + 1, np.int64)
    np.cumsum(sizes, out=starts[1:])
    if starts[-1] <= n_entries:
        entries = ranks.Entries.empty(int(starts[-1]))
        fill(0, codes.size, np.where(sizes > 0, starts[:-1], -1), entries)
        groups.ranks(entries.keys, entries.cells, starts, quantiles)
    else:
        rows = _block_rows(latent)
        by_runs = ranks.ByRuns(codes, sizes, ranks.Entries.empty(n_entries), n_entries // rows * rows, quantiles)
        by_runs.rank(fill, spill())
    return quantiles


def outlier_rooms(latent: AnyArray, n_categories: int) -> Rooms:
    """What `outlier_quantiles` needs.

    The least: some MiB to read, for each category 100 bytes and 8 for each axis, 12 bytes for each row
    of a block and 768 for the square root of the number of cells, and a 256th byte per cell. With the
    whole, nothing is written to disk.
    """
    fixed = _outlier_fixed(latent, n_categories)
    return Rooms(*(fixed + ranks.ENTRY_BYTES * n for n in (_least_entries(latent), latent.shape[0])))


def _least_entries(latent: AnyArray) -> int:
    return max(_block_rows(latent), ranks.least_entries(latent.shape[0]))


def _outlier_fixed(latent: AnyArray, n_categories: int) -> int:
    each = 96 + 8 * latent.shape[1]
    return _block_bytes(latent) + n_categories * each + ranks.extra_bytes(latent.shape[0])


# ---------------------------------------------------------------- kernels


def wanted_kernels(dtype: np.dtype, codes: np.dtype) -> Iterator[tuple[Kernel, str]]:
    """Every kernel and signature that is called here for coordinates of this dtype, and codes."""
    value, code = (f"{one.kind}{one.itemsize}" for one in (coords_dtype(dtype), codes))
    cells = f"({value}[:, ::1], {code}[::1], f8[::1], f8, f8[:, ::1]"
    yield groups.add, f"{cells}, f8[::1])"
    yield groups.add_near, f"{cells}, f8[::1], i8[::1], f8[:, ::1])"
    yield groups.probe, f"{cells}, i8[:, ::1], u4[::1], i8[::1])"
    yield groups.narrow, "(i8[:, ::1], u4[::1], i8[:, ::1])"
    yield groups.select, "(i8[:, ::1], i8[::1], i8[:, ::1], i8[:, ::1])"
    yield groups.distances, f"{cells}, i8[::1], i8[::1], u4[::1], i8)"
    yield from ranks.kernels(code)
