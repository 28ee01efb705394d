"""What goes into one file, made as it is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from atlaswriter.sources.base import Array

# Payloads are made and compressed in segments of so many bytes, whatever the budget, so that the same content
# always gives the same file. A segment boundary costs about 5 bytes.
SEGMENT_BYTES = 8 << 20


def segment_room(n_rows: int, row_bytes: int) -> int:
    """Bytes of a segment, of what it is made of (up to float64), and as several encoders may write it."""
    return 6 * min(SEGMENT_BYTES, n_rows * max(row_bytes, 4)) + (64 << 10)


@dataclass(frozen=True)
class Payload:
    """The content of one file, made some rows at a time.

    Attributes
    ----------
    n_rows
        Number of rows.
    row_bytes
        Bytes of one, as stored.
    make
        The content of some consecutive rows; C-contiguous. Called for one segment after the other.
    """

    n_rows: int
    row_bytes: int
    make: Callable[[slice], Array]

    @classmethod
    def of(cls, array: Array) -> Payload:
        """All of an array."""
        return cls(array.shape[0], array.nbytes // max(array.shape[0], 1), array.__getitem__)

    def segments(self) -> list[slice]:
        """The rows of each segment."""
        step = max(1, SEGMENT_BYTES // max(self.row_bytes, 1))
        return [slice(first, min(first + step, self.n_rows)) for first in range(0, self.n_rows, step)]

    def whole(self) -> Array:
        """All of it at once."""
        return self.make(slice(0, self.n_rows))
