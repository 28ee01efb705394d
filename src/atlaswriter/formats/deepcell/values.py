"""Values of a label image: which there are in each frame and feature, and other values in their place."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.formats.deepcell.jsonlist import Faults
from atlaswriter.kernels import labels as kernels
from atlaswriter.kernels._jit import readable

LARGEST = 2**31 - 1

# Different values of one frame and feature beyond which they cannot be cells; a table of so many takes 8 MiB.
_MOST_VALUES = 1 << 20
_FEWEST_SLOTS = 1 << 10


class Values:
    """The different values of one frame and feature, gathered strip by strip.

    Parameters
    ----------
    where
        What messages call the frame and feature.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._seed = np.uint64(secrets.randbits(64))
        self._slots = np.zeros(_FEWEST_SLOTS, np.int32)
        self._n = 0

    def add(self, block: NDArray[np.int32]) -> None:
        """Take the values of some pixels: int32, of any shape.

        Raises
        ------
        InputError
            There are more than a million different values.
        """
        flat = readable(np.ascontiguousarray(block).reshape(-1))
        while (n := kernels.distinct(flat, self._slots, self._seed, self._n)) < 0:
            self._grow()
        self._n = n

    def _grow(self) -> None:
        if self._slots.size >= 2 * _MOST_VALUES:
            raise _too_many(self._where)
        kept = self._slots[self._slots != 0]
        self._slots = np.zeros(2 * self._slots.size, np.int32)
        self._n = kernels.distinct(kept, self._slots, self._seed, 0)

    def sorted(self) -> NDArray[np.int32]:
        """All values but 0, ascending."""
        return np.sort(self._slots[self._slots != 0])


def united(parts: Sequence[NDArray[np.int32]], where: str) -> NDArray[np.int32]:
    """Values of several parts of one frame and feature, ascending; `InputError` where they are more than a million."""
    values: NDArray[np.int32] = parts[0] if len(parts) == 1 else np.unique(np.concatenate(parts))
    if values.size > _MOST_VALUES:
        raise _too_many(where)
    return values


def _too_many(where: str) -> InputError:
    found = f"has more than {_MOST_VALUES:,} different values, which looks like an image, not like labels"
    return InputError(Problem(where, found, "give the labels; are image and labels exchanged?"))


@dataclass(frozen=True)
class Present:
    """The values that each frame and feature has.

    Attributes
    ----------
    values : int32
        Those of frame `t` and feature `c` begin at ``starts[t * n_features + c]``; ascending, without 0.
    starts : int64, (n_frames × n_features + 1,)
        Where they begin.
    n_features
        Features of each frame.
    """

    values: NDArray[np.int32]
    starts: NDArray[np.int64]
    n_features: int

    @classmethod
    def of(cls, lists: Iterable[NDArray[np.int32]], n_features: int) -> Present:
        """From the values of every frame and feature, features fastest, as `Values.sorted` gives them."""
        every = list(lists)
        starts = np.zeros(len(every) + 1, np.int64)
        np.cumsum([part.size for part in every], out=starts[1:])
        return cls(np.concatenate([np.empty(0, np.int32), *every]), starts, n_features)

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return (self.starts.size - 1) // self.n_features

    @property
    def places(self) -> NDArray[np.int64]:
        """``t * n_features + c`` of each value."""
        return np.repeat(np.arange(self.starts.size - 1), np.diff(self.starts))

    def at(self, t: int, c: int) -> NDArray[np.int32]:
        """The values of one frame and feature."""
        place = t * self.n_features + c
        return self.values[self.starts[place] : self.starts[place + 1]]

    def has(self, places: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether a frame and feature, ``t * n_features + c``, has a value that fits in int32, of each pair of them."""
        return np.isin((places << 32) + values, (self.places << 32) + self.values, kind="sort")

    def refuse_negative(self, where: str, problems: Problems) -> None:
        """Note negative values, which mean nothing."""
        negative = self.values < 0
        if negative.any():
            places, faults = self.places, Faults(where, "values")

            def example(number: int) -> str:
                t, c = divmod(int(places[number]), self.n_features)
                return f"{self.values[number]} in frame {t}, feature {c}"

            faults.add_where(negative, "are negative", example, "number cells from 1, and write 0 elsewhere")
            faults.report(problems)


class Table:
    """New values for those of a label image; 0 for those it does not have.

    Parameters
    ----------
    keys : int32
        Different values, none 0.
    new : int32
        A new value for each.
    """

    def __init__(self, keys: NDArray[np.int32], new: NDArray[np.int32]) -> None:
        self._seed = np.uint64(secrets.randbits(64))
        n_slots = 1 << (2 * keys.size + 1).bit_length()
        self._slots, self._places = np.zeros(n_slots, np.int32), np.zeros(n_slots, np.int32)
        kernels.fill(readable(keys), readable(new), self._slots, self._places, self._seed)

    def apply(self, block: NDArray[np.int32], out: NDArray[np.int32]) -> int:
        """Write the new values of a block.

        Parameters
        ----------
        block, out : int32, C-contiguous
            Of one shape; may be the same array.

        Returns
        -------
        int
            Pixels that became 0 and were not.
        """
        source = readable(block.reshape(-1))
        return int(kernels.replace(source, self._slots, self._places, self._seed, out.reshape(-1)))
