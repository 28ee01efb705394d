"""Movies made of several: files that are frames or channels of one."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Movie, Stack

Along = Literal["frames", "channels"]

_NO_IMAGES = "give TIFF, PNG or .npy files"
_ONE_KIND = "give files of one size and dtype, or those of one movie only"


class Joined:
    """Stacks one behind the other: a `Stack`.

    Parameters
    ----------
    stacks
        Of one dtype, and of one shape but along one axis.
    axis
        0: along frames; 1: along channels.

    Attributes
    ----------
    shape, dtype, grain, together, overhead
        As of `Stack`.
    """

    def __init__(self, stacks: Sequence[Stack], axis: int) -> None:
        first = stacks[0]
        self._stacks, self._axis = stacks, axis
        self._starts = [0, *itertools.accumulate(stack.shape[axis] for stack in stacks)]
        frames, channels, rows, columns = first.shape
        total = self._starts[-1]
        self.shape = (total, channels, rows, columns) if axis == 0 else (frames, total, rows, columns)
        self.dtype = first.dtype
        self.grain = max(stack.grain for stack in stacks)
        self.together = any(stack.together for stack in stacks)
        self.overhead = max(stack.overhead for stack in stacks)

    def read(self, frame: int, channels: slice, rows: slice) -> Array:
        """As of `Stack`."""
        if self._axis == 0:
            at = bisect.bisect_right(self._starts, frame) - 1
            return self._stacks[at].read(frame - self._starts[at], channels, rows)
        first, last, _ = channels.indices(self.shape[1])
        top, bottom, _ = rows.indices(self.shape[2])
        out = np.empty((max(last - first, 0), max(bottom - top, 0), self.shape[3]), self.dtype)
        for stack, (start, stop) in zip(self._stacks, itertools.pairwise(self._starts), strict=True):
            begin, end = max(first, start), min(last, stop)
            if begin < end:
                out[begin - first : end - first] = stack.read(frame, slice(begin - start, end - start), rows)
        return out


class Reopened:
    """A stack that is opened when it is read, as not every file of thousands can stay open: a `Stack`.

    Parameters
    ----------
    stack
        What it is.
    reopen
        Opens it again.
    where
        Its name in messages.

    Attributes
    ----------
    shape, dtype, grain, together, overhead
        As of `Stack`.
    """

    def __init__(self, stack: Stack, reopen: Callable[[], Stack], where: str) -> None:
        self.shape, self.dtype, self.grain = stack.shape, stack.dtype, stack.grain
        self.together, self.overhead = stack.together, stack.overhead
        self._reopen, self._where = reopen, where

    def read(self, frame: int, channels: slice, rows: slice) -> Array:
        """As of `Stack`."""
        stack = self._reopen()
        if (stack.shape, stack.dtype) != (self.shape, self.dtype):
            raise InputError(Problem(self._where, "has changed while it was read", "start again"))
        return stack.read(frame, channels, rows)


def stacked(movies: Sequence[Movie], *, along: Along, where: str = "images") -> Movie:
    """Movies one behind the other.

    Parameters
    ----------
    movies
        At least one. Along frames they need the same channels, along channels the same frames.
    along
        What is joined.
    where
        Name of the whole in messages.

    Raises
    ------
    InputError
        Their sizes or dtypes differ; every one that does is named.
    """
    if not movies:
        raise InputError(Problem(where, "holds no images", _NO_IMAGES))
    axis = ("frames", "channels").index(along)
    problems = Problems()
    _note_differing(movies, axis, problems)
    problems.raise_if_any()
    names = movies[0].names
    if axis == 1 and any(movie.names for movie in movies):
        names = tuple(itertools.chain.from_iterable(movie.names or ("",) * movie.stack.shape[1] for movie in movies))
    kinds = "TZB" if axis == 0 else "CSF"
    axes = kinds[0] + "".join(letter for letter in movies[0].axes if letter not in kinds)
    return _whole(Joined([movie.stack for movie in movies], axis), movies, names, axes, where)


def grid(movies: Mapping[tuple[int, int], Movie], *, where: str = "images") -> Movie:
    """A movie of one image for each frame and channel.

    Parameters
    ----------
    movies
        By numbers of frame and channel, such as those in the names of files, which may begin anywhere but leave none
        out.
    where
        Name of the whole in messages.

    Raises
    ------
    InputError
        Images are missing, hold several frames or channels, or differ in size or dtype; every one is named.
    """
    if not movies:
        raise InputError(Problem(where, "holds no images", _NO_IMAGES))
    problems = Problems()
    # Numbers from names may be far apart: those between them are not gone through one by one.
    frames, channels = (sorted({place[axis] for place in movies}) for axis in (0, 1))
    for name, numbers in (("frame", frames), ("channel", channels)):
        for before, after in itertools.pairwise(numbers):
            if after > before + 1:
                problems.add(where, f"has nothing between {name} {before} and {after}", "give all images of the movie")
    n_missing = len(frames) * len(channels) - len(movies)
    if n_missing:
        lacking = (place for place in itertools.product(frames, channels) if place not in movies)
        several = listed(f"frame {frame} channel {channel}" for frame, channel in itertools.islice(lacking, 5))
        found = f"lacks {n_missing} of {n_missing + len(movies)} images, such as {several}"
        problems.add(where, found, "give an image for every frame and channel")
    for movie in movies.values():
        if movie.stack.shape[:2] != (1, 1):
            found = f"holds {movie.stack.shape[0]} frames of {movie.stack.shape[1]} channels"
            problems.add(movie.where, found, "give one image in each file")
    ordered = [movies[place] for place in sorted(movies)]
    _note_differing(ordered, None, problems)
    problems.raise_if_any()
    rows = [[movies[frame, channel].stack for channel in channels] for frame in frames]
    return _whole(Joined([Joined(row, 1) for row in rows], 0), ordered, (), "TCYX", where)


def _whole(stack: Stack, movies: Sequence[Movie], names: tuple[str, ...], axes: str, where: str) -> Movie:
    warnings = tuple(dict.fromkeys(text for movie in movies for text in movie.warnings))
    return Movie(stack, names, axes, any(movie.assumed for movie in movies), where, warnings)


def _note_differing(movies: Sequence[Movie], axis: int | None, problems: Problems) -> None:
    """Note those that differ from the first in their dtype, or in their size but along one axis."""

    def kind(movie: Movie) -> tuple[object, ...]:
        sizes = [size for place, size in enumerate(movie.stack.shape) if place != axis]
        return (*sizes, movie.stack.dtype)

    def told(movie: Movie) -> str:
        frames, channels, rows, columns = movie.stack.shape
        return f"{frames} frames of {channels} channels of {rows} × {columns} {movie.stack.dtype}"

    for movie in movies[1:]:
        if kind(movie) != kind(movies[0]):
            problems.add(movie.where, f"has {told(movie)}, where {movies[0].where} has {told(movies[0])}", _ONE_KIND)
