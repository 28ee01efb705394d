"""What members of a project hold, read leniently: what the client takes is read, however odd it is."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError
from atlaswriter.findings import ReadError
from atlaswriter.formats.deepcell.cells import Cells
from atlaswriter.formats.deepcell.spots import Spots

if TYPE_CHECKING:
    import pandas as pd

# Problems of one member that a message tells.
_SHOWN = 5


@contextmanager
def refused(rule: str, where: str = "") -> Iterator[None]:
    """Turn what is refused as input into a `ReadError` of a rule; `where` is the member, where it is one."""
    try:
        yield
    except InputError as error:
        first = error.problems[0]
        found = [one.found if where in ("", one.where) else f"{one.where}: {one.found}" for one in error.problems]
        more = [f"and {len(found) - _SHOWN:,} more problems"] if len(found) > _SHOWN else []
        raise ReadError(rule, where or first.where, "; ".join([*found[:_SHOWN], *more]), first.remedy) from error


@dataclass(frozen=True)
class Meanings:
    """Values and their cells, ordered by frame, feature, value and cell."""

    cells: Cells
    starts: NDArray[np.int64]
    n_features: int

    @classmethod
    def of(cls, cells: Cells, n_frames: int, n_features: int) -> Meanings:
        """From rows, of which those of frames and features that are not there mean nothing."""
        cells = cells.take((cells.t < n_frames) & (cells.c < n_features))
        places = cells.t * n_features + cells.c
        order = np.lexsort((cells.cell, cells.value, places))
        starts = np.searchsorted(places[order], np.arange(n_frames * n_features + 1))
        return cls(cells.take(order), starts, n_features)

    def at(self, t: int, c: int) -> dict[int, tuple[int, ...]]:
        """Cells of each value."""
        place = t * self.n_features + c
        rows = slice(self.starts[place], self.starts[place + 1])
        found: dict[int, dict[int, None]] = {}
        for value, cell in zip(self.cells.value[rows].tolist(), self.cells.cell[rows].tolist(), strict=True):
            found.setdefault(value, {})[cell] = None
        return {value: tuple(cells) for value, cells in found.items()}


def spot_table(content: bytes, where: str) -> pd.DataFrame:
    """Spots of CSV; lines may end in any way, and the last may lack its end."""
    import pandas as pd

    text = Spots(content)
    try:
        names = text.columns
        rows = text.text[text.begin :]
        # Header and rows apart, as pandas would make an index of fields without a name.
        frame = pd.DataFrame(columns=range(len(names)), dtype=np.float64)
        if rows.strip():
            frame = pd.read_csv(
                io.BytesIO(rows),
                header=None,
                quoting=csv.QUOTE_NONE,
                skipinitialspace=True,
                float_precision="round_trip",
                encoding_errors="replace",
            )
    except (csv.Error, pd.errors.ParserError, ValueError) as error:
        raise ReadError("spots.rows", where, f"cannot be read as CSV ({str(error).strip()})") from None
    if len(names) < 2 or frame.shape[1] != len(names):
        found = f"has {frame.shape[1]} columns and names for {len(names)}"
        raise ReadError("spots.rows", where, found, "begin with a line x,y")
    xy_px = frame[[0, 1]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    strange = np.flatnonzero(~np.isfinite(xy_px).all(axis=1))
    if strange.size:
        raise ReadError("spots.rows", where, f"has an x or y that is no number, first of spot {strange[0] + 1:,}")
    frame[[0, 1]] = xy_px
    unique = ["x", "y"]
    for name in names[2:]:
        while name in unique:
            name += "_"  # noqa: PLW2901 - until it is unique
        unique.append(name)
    return frame.set_axis(unique, axis=1)
