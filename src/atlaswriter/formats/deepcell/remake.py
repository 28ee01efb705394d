"""Labels made anew, as an export does it: a pixel stores its cell, or a code above all cells where they overlap.

The rule is that of the format's page. Codes are shared by the features of a frame, so that a value means the same in
all of them, whatever other programs do with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.formats.deepcell.cells import Cells, repeated, validate_range
from atlaswriter.formats.deepcell.values import LARGEST, Present, Table, Values


@dataclass(frozen=True)
class Remade:
    """How labels are made anew.

    Attributes
    ----------
    cells
        The new rows: by frame, then feature, values of one cell first, no row twice.
    n_features
        Features of each frame.
    keys, new : int32
        Values, and the new ones for them; every other value becomes 0.
    starts : int64, (n_frames × n_features + 1,)
        Where those of frame `t` and feature `c` begin, at ``t * n_features + c``.
    identical : bool, (n_frames × n_features,)
        Where nothing changes.
    n_rows_dropped
        Rows left out because no pixel had their value.
    n_rows_repeated
        Rows left out because they were there already.
    n_values_removed
        Values of pixels that have no row and become 0, each counted in every frame and feature.
    """

    cells: Cells
    n_features: int
    keys: NDArray[np.int32]
    new: NDArray[np.int32]
    starts: NDArray[np.int64]
    identical: NDArray[np.bool_]
    n_rows_dropped: int
    n_rows_repeated: int
    n_values_removed: int

    def identity(self, t: int, c: int) -> bool:
        """Whether no pixel of a frame and feature changes, so that `table` need not be applied."""
        return bool(self.identical[t * self.n_features + c])

    def table(self, t: int, c: int) -> Table:
        """New values of a frame and feature."""
        place = t * self.n_features + c
        part = slice(self.starts[place], self.starts[place + 1])
        return Table(self.keys[part], self.new[part])


def plan_remake(cells: Cells, n_frames: int, n_features: int, present: Present | None = None) -> Remade:
    """What becomes of the values of every frame and feature, and the rows that belong to the new ones.

    Parameters
    ----------
    cells
        Rows whose numbers are in range; they may be repeated, and in any order.
    n_frames, n_features
        Those of the labels.
    present
        Values that the labels have. Rows of others are left out; without it they are kept, and no frame and feature
        is known to stay the same.

    Raises
    ------
    InputError
        There is no number left above the largest cell for an overlap.
    """
    places = cells.t * n_features + cells.c
    n_given = cells.n
    if present is not None:
        rows = np.flatnonzero(present.has(places, cells.value))
        cells, places = cells.take(rows), places[rows]
    n_dropped = n_given - cells.n
    rows = np.flatnonzero(~repeated(cells, places))
    n_repeated = cells.n - rows.size
    # By place, value and cell; `rows` says which row each is of the list ordered by place.
    by_place = rows[np.argsort(places[rows], kind="stable")]
    rank = np.lexsort((cells.cell[by_place], cells.value[by_place], places[by_place]))
    cells, places = cells.take(by_place[rank]), places[by_place[rank]]
    groups = _Groups.of(cells, places, rank)
    new = _new_values(cells, groups, n_frames, n_features)
    starts = np.searchsorted(groups.places, np.arange(n_frames * n_features + 1))
    n_values = 0 if present is None else present.values.size
    return Remade(
        _rows(cells, groups, new, n_features),
        n_features,
        groups.values,
        new.astype(np.int32),
        starts,
        _identical(groups, new, starts, present),
        n_dropped,
        n_repeated,
        n_values - groups.values.size if present is not None else 0,
    )


@dataclass(frozen=True)
class _Groups:
    """Rows of one value of one frame and feature, which follow each other, ordered by cell.

    Attributes
    ----------
    starts : int64, (n + 1,)
        The first row of each.
    places, values : (n,)
        What their rows share.
    first_seen : int64, (n,)
        Place of their first row in the list as it was given, ordered by frame and feature.
    """

    starts: NDArray[np.int64]
    places: NDArray[np.int64]
    values: NDArray[np.int32]
    first_seen: NDArray[np.int64]

    @classmethod
    def of(cls, cells: Cells, places: NDArray[np.int64], rank: NDArray[np.int64]) -> _Groups:
        """From rows ordered by place, value and cell."""
        begins = np.ones(cells.n, np.bool_)
        begins[1:] = (np.diff(places) != 0) | (np.diff(cells.value) != 0)
        starts = np.flatnonzero(begins)
        first_seen = np.minimum.reduceat(rank, starts) if starts.size else starts
        values = cells.value[starts].astype(np.int32)
        return cls(np.append(starts, cells.n), places[starts], values, first_seen)

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Cells of each value."""
        return np.diff(self.starts)


def _new_values(cells: Cells, groups: _Groups, n_frames: int, n_features: int) -> NDArray[np.int64]:
    """New value of each group: its cell, or a code for its cells, the same wherever in the frame they overlap."""
    new = cells.cell[groups.starts[:-1]]
    largest = np.zeros(n_frames, np.int64)
    np.maximum.at(largest, cells.t, cells.cell)
    overlaps = np.flatnonzero(groups.sizes > 1)
    codes: dict[tuple[int, bytes], int] = {}
    free = largest + 1
    for group in overlaps[np.argsort(groups.first_seen[overlaps])].tolist():
        t = int(groups.places[group]) // n_features
        members = cells.cell[groups.starts[group] : groups.starts[group + 1]].tobytes()
        code = codes.setdefault((t, members), int(free[t]))
        free[t] = max(free[t], code + 1)
        new[group] = code
    full = np.flatnonzero(free - 1 > LARGEST)
    if full.size:
        found = f"has cells up to {largest[full[0]]:,}, which leaves no number for overlaps in int32"
        raise InputError(Problem(f"frame {full[0]} of the labels", found, "number cells from 1, without gaps"))
    return new


def _rows(cells: Cells, groups: _Groups, new: NDArray[np.int64], n_features: int) -> Cells:
    """The rows of the new values."""
    value = np.repeat(new, groups.sizes)
    places = np.repeat(groups.places, groups.sizes)
    # Codes are above all cells, so that this puts the values of one cell first.
    order = np.lexsort((cells.cell, value, places))
    t, c = np.divmod(places, n_features)
    made = Cells(cells.cell, value, t, c).take(order)
    return made.take(~repeated(made, places[order]))


def _identical(
    groups: _Groups, new: NDArray[np.int64], starts: NDArray[np.int64], present: Present | None
) -> NDArray[np.bool_]:
    """Where every value of the labels stays what it is."""
    n_places = starts.size - 1
    if present is None:
        return np.zeros(n_places, np.bool_)
    changed = np.bincount(groups.places[new != groups.values], minlength=n_places)
    same: NDArray[np.bool_] = (changed == 0) & (np.diff(starts) == np.diff(present.starts))
    return same


def remake(y: NDArray[np.integer], cells: Cells) -> tuple[NDArray[np.int32], Cells]:
    """Make labels anew: the page's export rule.

    In every frame and feature, a value without a row becomes 0, a value of one cell becomes that cell, and a value of
    several cells a code above every cell of the frame.

    Parameters
    ----------
    y : integers, (n_features, n_frames, height, width)
        Labels.
    cells
        What they mean; rows may be repeated, and values may be named that no pixel has.

    Returns
    -------
    y : int32
        The new labels, of the same shape.
    cells
        What they mean: no row twice, and none for a value that no pixel has.

    Raises
    ------
    InputError
        Labels are no integers or do not fit in int32, or a row names a frame or feature that is not there.
    """
    where = "labels"
    if y.ndim != 4 or y.dtype.kind not in "iu":
        found = f"have {y.ndim} axes and dtype {y.dtype}"
        raise InputError(Problem(where, found, "give integers, features × frames × rows × columns"))
    n_features, n_frames = y.shape[:2]
    out = np.empty(y.shape, np.int32)
    lists = []
    for t, c in np.ndindex(n_frames, n_features):
        plane = f"{where}, frame {t}, feature {c}"
        out[c, t] = _as_int32(y[c, t], plane)
        values = Values(plane)
        values.add(out[c, t])
        lists.append(values.sorted())
    present = Present.of(lists, n_features)
    problems = Problems()
    present.refuse_negative(where, problems)
    validate_range(cells, n_frames, n_features, "cells", problems)
    problems.raise_if_any()
    remade = plan_remake(cells, n_frames, n_features, present)
    for t, c in np.ndindex(n_frames, n_features):
        if not remade.identity(t, c):
            remade.table(t, c).apply(out[c, t], out[c, t])
    return out, remade.cells


def _as_int32(plane: NDArray[np.integer], where: str) -> NDArray[np.int32]:
    if max(int(plane.max(initial=0)), -int(plane.min(initial=0))) > LARGEST:
        raise InputError(Problem(where, f"has values beyond {LARGEST:,}", "number cells from 1, without gaps"))
    return plane.astype(np.int32, copy=False)
