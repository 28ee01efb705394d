"""Rules of the cells: rows that the client understands, and labels that it shows as they are meant."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atlaswriter.findings import Findings
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.cells import EVERY_FEATURE, Cells, parse_cells, repeated, validate_range
from atlaswriter.formats.deepcell.jsonlist import Faults
from atlaswriter.formats.deepcell.rules import Survey, noting, warning_of
from atlaswriter.formats.deepcell.rules_tiff import Surveyed
from atlaswriter.formats.deepcell.values import Present


def survey_cells(survey: Survey, labels: Surveyed | None) -> Cells | None:
    """Rows that the client uses, of frames and features that are there; None where they cannot be known."""
    findings, content = survey.findings, survey.content(layout.CELLS)
    if content is None:
        return None
    with noting(findings, "cells.rows", layout.CELLS) as problems:
        # What it has to say of keys that are left out is of no interest: the client leaves them alone.
        cells = parse_cells(content, layout.CELLS, problems, [])
    if cells is None or labels is None:
        return None
    size = labels.described
    with noting(findings, "cells.range", layout.CELLS) as problems:
        # Rows that name no feature have a rule of their own.
        validate_range(replace(cells, c=np.maximum(cells.c, 0)), size.n_frames, size.n_channels, layout.CELLS, problems)
    rows = _Rows(cells, np.flatnonzero((cells.t < size.n_frames) & (cells.c < size.n_channels)), findings)
    rows = rows.without_feature()
    rows = rows.without_repeated(size.n_channels)
    _survey_codes(rows, size.n_channels)
    if labels.present is not None:
        _survey_values(rows, labels.present)
    return rows.cells


@dataclass
class _Rows:
    """Some rows of the list.

    Attributes
    ----------
    every
        The list.
    numbers
        Which rows.
    findings
        What was found so far.
    """

    every: Cells
    numbers: NDArray[np.int64]
    findings: Findings

    @property
    def cells(self) -> Cells:
        """The rows."""
        return self.every.take(self.numbers)

    def error(self, rule: str, bad: NDArray[np.bool_], kind: str, remedy: str = "") -> None:
        """Note those that are marked."""
        with noting(self.findings, rule, layout.CELLS) as problems:
            self._faults(bad, kind, remedy).report(problems)

    def warning(self, rule: str, bad: NDArray[np.bool_], kind: str, remedy: str = "") -> None:
        """As `error`."""
        with warning_of(self.findings, rule, layout.CELLS) as warnings:
            self._faults(bad, kind, remedy).warn(warnings)

    def _faults(self, bad: NDArray[np.bool_], kind: str, remedy: str) -> Faults:
        marked = np.zeros(self.every.n, np.bool_)
        marked[self.numbers[bad]] = True
        faults = Faults(layout.CELLS)
        faults.add_where(marked, kind, self.every.row, remedy)
        return faults

    def but(self, bad: NDArray[np.bool_]) -> _Rows:
        """All but those that are marked."""
        return _Rows(self.every, self.numbers[~bad], self.findings)

    def without_feature(self) -> _Rows:
        """Without rows that name no feature."""
        open_rows = self.cells.c == EVERY_FEATURE
        self.error("cells.feature", open_rows, "have no c, for which the client drops them", "number features from 0")
        return self.but(open_rows)

    def without_repeated(self, n_features: int) -> _Rows:
        """Without rows that are there already, which make a cell look like an overlap when it is exported."""
        cells = self.cells
        again = repeated(cells, cells.t * n_features + cells.c)
        self.error("cells.repeated", again, "are there already", "leave one of each")
        return self.but(again)


def _survey_codes(rows: _Rows, n_features: int) -> None:
    """What the client, and what its server makes of an export, take a value of several cells for."""
    cells = rows.cells
    places = cells.t * n_features + cells.c
    keys, first, group, sizes = np.unique(
        (places << 32) + cells.value, return_index=True, return_inverse=True, return_counts=True
    )

    def mark(groups: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The first row of groups."""
        marked = np.zeros(cells.n, np.bool_)
        marked[first[groups]] = True
        return marked

    kinds, which = np.unique(places, return_inverse=True)
    highest = np.zeros(kinds.size, np.int64)
    np.maximum.at(highest, which, cells.cell)
    low = (sizes > 1) & (cells.value[first] <= highest[which[first]])
    kind = "name a value of several cells that is not above all cells of its frame and feature: it is drawn as one cell"
    rows.error("cells.code", mark(low), kind, "give such values numbers above the largest cell")
    order = np.argsort(places, kind="stable")
    begins = np.diff(group[order], prepend=-1) != 0
    scattered = np.bincount(group[order][begins], minlength=keys.size) > 1
    kind = "name a value whose other rows do not follow: an export by the original loses the overlap"
    rows.warning("cells.adjacent", mark(scattered), kind, "put the rows of a value behind each other")
    kind = "name a value that means other cells in another feature of the frame: an export by the original mixes them"
    rows.warning("cells.mixed", mark(_ambiguous(cells, first, group)), kind, "give it one meaning in all features")


def _ambiguous(cells: Cells, first: NDArray[np.int64], group: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Groups of rows of one place and value that have other cells than another group of their frame and value."""
    names, which = np.unique(cells.cell, return_inverse=True)
    # The sum of a random number for each cell tells sets of cells apart.
    signs = np.random.default_rng(0).integers(0, 2**64, names.size, np.uint64)
    sums = np.zeros(first.size, np.uint64)
    np.add.at(sums, group, signs[which])
    shared, same = np.unique((cells.t[first] << 32) + cells.value[first], return_inverse=True)
    least, most = np.full(shared.size, np.iinfo(np.uint64).max), np.zeros(shared.size, np.uint64)
    np.minimum.at(least, same, sums)
    np.maximum.at(most, same, sums)
    differs: NDArray[np.bool_] = (least != most)[same]
    return differs


def _survey_values(rows: _Rows, present: Present) -> None:
    """Rows and pixels name each other."""
    cells = rows.cells
    places = cells.t * present.n_features + cells.c
    absent = ~present.has(places, cells.value)
    rows.warning("cells.absent", absent, "name a value that no pixel of their frame and feature has", "leave them out")
    known = np.isin((present.places << 32) + present.values, (places << 32) + cells.value)
    unnamed, where = ~known & (present.values > 0), present.places

    def example(number: int) -> str:
        t, c = divmod(int(where[number]), present.n_features)
        return f"{present.values[number]} in frame {t}, feature {c}"

    faults = Faults(layout.LABELS, "values")
    kind = f"have no row in {layout.CELLS}: the client shows nothing, and an export removes them"
    faults.add_where(unnamed, kind, example, "add rows, or make the pixels 0")
    with noting(rows.findings, "labels.unnamed", layout.LABELS) as problems:
        faults.report(problems)
