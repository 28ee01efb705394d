"""Files, or an array, that make one movie, and how."""

from __future__ import annotations

import functools
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
        refused = []
        for along, each in _readings(axes, "channels" if self.how == "channels" else "frames"):
            fitting = _one_frame(like) if along == "frames" else like
            try:
                return stacked(self._movies(each, as_labels, fitting), along=along, where=self.where)
            except InputError as error:
                refused.append(error)
        raise refused[0]

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


def _readings(axes: str | None, usual: Along) -> Iterator[tuple[Along, str | None]]:
    """What the axes of several files may mean, the likelier first: what the files are, and the axes of each."""
    first = axes[:1].upper() if axes else ""
    told: Along | None = "channels" if first and first in CHANNELS else "frames" if first and first in FRAMES else None
    # Of files that are channels, as in a zip, the axes of each are told, as to the original: "ZYX".
    if told is not None and told in (usual, "channels"):
        yield told, (axes or "")[1:]
    yield usual, axes
