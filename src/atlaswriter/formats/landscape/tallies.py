"""What became of transcripts and outlines: plain values, which may come from several processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import numpy as np

_LIMITS = np.iinfo(np.int64)


def _highest() -> list[int]:
    return [int(_LIMITS.max)] * 2


def _lowest() -> list[int]:
    return [int(_LIMITS.min)] * 2


@dataclass
class Tally:
    """What became of the records of one source.

    Attributes
    ----------
    kept
        Records that were exported, or were left of or above the image.
    negative
        Those left of or above the image, which row-group mode cannot hold.
    last
        Largest tile that holds any, in both directions.
    """

    kept: int = 0
    negative: int = 0
    last: list[int] = field(default_factory=_lowest)

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    @classmethod
    def of(cls, found: Iterable[Mapping[str, Any]]) -> Self:
        """What several processes found, together."""
        total = cls()
        for other in found:
            total.add(cls(**other))
        return total

    def add(self, other: Self) -> None:
        """Take in what another process, or thread, found."""
        self.kept += other.kept
        self.negative += other.negative
        self.last = np.maximum(self.last, other.last).tolist()


@dataclass
class TranscriptTally(Tally):
    """What became of the transcripts.

    Attributes
    ----------
    read
        Rows of the table.
    outside, poor, unwanted
        Those outside of the region, below the quality, of features that are not exported.
    first
        Smallest tile that holds any, in both directions.
    """

    read: int = 0
    outside: int = 0
    poor: int = 0
    unwanted: int = 0
    first: list[int] = field(default_factory=_highest)

    def add(self, other: Self) -> None:
        """As of `Tally`."""
        super().add(other)
        for name in ("read", "outside", "poor", "unwanted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.first = np.minimum(self.first, other.first).tolist()


@dataclass
class OutlineTally(Tally):
    """What became of the outlines.

    Attributes
    ----------
    unknown
        Rings of cells that the table of cells does not have.
    left_out
        Rings of cells outside of the region.
    degenerate
        Rings with fewer than three distinct vertices.
    dropped
        Holes and further parts.
    drawn
        Cells with an outline.
    strangers
        Some cells that the table of cells does not have.
    extent
        How far from the origin vertices are at most, in hundredths of a pixel.
    """

    unknown: int = 0
    left_out: int = 0
    degenerate: int = 0
    dropped: int = 0
    drawn: int = 0
    strangers: str = ""
    extent: int = 0

    def add(self, other: Self) -> None:
        """As of `Tally`; cells are those of others."""
        super().add(other)
        for name in ("unknown", "left_out", "degenerate", "dropped", "drawn"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.strangers = self.strangers or other.strangers
        self.extent = max(self.extent, other.extent)
