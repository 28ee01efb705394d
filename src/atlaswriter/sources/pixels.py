"""Files, or an array, that make one movie, and how."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.sources.axes import CHANNELS, FRAMES
from atlaswriter.sources.contents import How
from atlaswriter.sources.movie import Movie
from atlaswriter.sources.moviejoin import Along, Reopened, grid, stacked
from atlaswriter.sources.movies import open_movie

# Of many files of one movie, so many are open at a time.
_MOST_OPEN = 64

# What names tell of a channel, and of masks.
_CHANNEL = re.compile(r"(?:^|[_\-. ])(?:ch|c|w|channel)[_-]?([0-9]{1,2})(?=[_\-. ]|$)", re.IGNORECASE)
_MASK = re.compile(r"mask|seg|label", re.IGNORECASE)

Like = tuple[int, int, int] | None


@dataclass(frozen=True)
class Pixels:
    """Files, or an array, that make a movie.

    Attributes
    ----------
    where
        For messages.
    sources
        What opens each of them, or gives the array, with its name.
    how, places
        As of `Part`.
    own
        Axes of each that its format prescribes.
    """

    where: str
    sources: Sequence[tuple[str, Callable[[], Any]]]
    how: How = "one"
    places: tuple[tuple[int, int], ...] = ()
    own: str | None = None

    def movie(self, axes: str | None, *, as_labels: bool, like: Like) -> Movie:
        """The movie."""
        axes = axes or self.own
        if self.how == "one":
            ((name, source),) = self.sources
            return open_movie(source(), axes=axes, where=name, as_labels=as_labels, like=like)
        if self.how == "grid":
            self._refuse_sparse()
            movies = self._movies(axes, as_labels, _one_frame(like))
            return grid(dict(zip(self.places, movies, strict=True)), where=self.where)
        refused: list[InputError] = []
        others: list[Movie] = []
        for along, each in _readings(axes, "channels" if self.how == "channels" else "frames", as_labels=as_labels):
            fitting = _one_frame(like) if along == "frames" else like
            try:
                movie = stacked(self._movies(each, as_labels, fitting), along=along, where=self.where)
            except InputError as error:
                refused.append(error)
                continue
            if like is None or movie.stack.shape[0] == like[0]:
                return self._doubted(movie, along, axes)
            others.append(movie)
        if others:
            return others[0]
        raise refused[0]

    def _doubted(self, movie: Movie, along: Along, axes: str | None) -> Movie:
        """With warnings where the files may not be what they are taken for."""
        names, found = [name for name, _ in self.sources], []
        if along == "frames" and not axes:
            if movie.stack.shape[0] > len(names):
                found.append(f"its {len(names)} files hold {movie.stack.shape[0]} frames, one file's after the other's")
            if len({match[1] for name in names if (match := _CHANNEL.search(name))}) > 1:
                found.append("names of its files tell channels, but each is taken for a frame: give axes")
        if 0 < sum(bool(_MASK.search(name)) for name in names) < len(names):
            found.append("some of its files have names of masks: give these as labels")
        return replace(movie, warnings=(*movie.warnings, *(f"{self.where}: {text}" for text in found)))

    def _movies(self, axes: str | None, as_labels: bool, like: Like) -> list[Movie]:
        """Each as a movie, of which only some are open at a time."""

        def opened(number: int) -> Movie:
            name, source = self.sources[number]
            return open_movie(source(), axes=axes, where=name, as_labels=as_labels, like=like)

        again = functools.lru_cache(_MOST_OPEN)(lambda number: opened(number).stack)
        movies, problems = [], Problems()
        for number, (name, _) in enumerate(self.sources):
            movie = problems.attempt(opened, number)
            if movie is not None:
                movies.append(replace(movie, stack=Reopened(movie.stack, functools.partial(again, number), name)))
            elif number == 0:
                break  # the others are likely to be wrong in the same way
        problems.raise_if_any()
        return movies

    def _refuse_sparse(self) -> None:
        frames, features = ({place[axis] for place in self.places} for axis in (0, 1))
        if len(set(self.places)) < len(self.places):
            raise InputError(Problem(self.where, "has two files of one batch and feature", "keep one of them"))
        if len(frames) * len(features) > 2 * len(self.places):
            found = f"has {len(self.places)} files for {len(frames)} batches of {len(features)} features"
            raise InputError(Problem(self.where, found, "give one for every batch and feature"))


def _one_frame(like: Like) -> Like:
    return like and (1, *like[1:])


def _readings(axes: str | None, usual: Along, *, as_labels: bool) -> Iterator[tuple[Along, str | None]]:
    """What the axes of several files may mean, the likelier first: what the files are, and the axes of each."""
    first = axes[:1].upper() if axes else ""
    told: Along | None = "channels" if first and first in CHANNELS else "frames" if first and first in FRAMES else None
    # Of files that are channels, as in a zip, the axes of each may be told, as to the original: "ZYX".
    if told is not None and (told == usual or first != "Z"):
        yield told, (axes or "")[1:]
    yield usual, axes
    if as_labels and usual != "frames":
        yield "frames", axes
