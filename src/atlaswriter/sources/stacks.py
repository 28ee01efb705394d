"""From stacks of planes along channels, z and time to the planes that are shown."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import AnyArray, Array
from atlaswriter.sources.rasters import Brightest
from atlaswriter.sources.spatial import Plane

Warn = Callable[[str], None]

# Axes other than these count channels.
_DEPTH, _TIME = "Z", "T"


def checked(only: Sequence[int], n: int, location: str) -> Sequence[int]:
    """The numbers, if there are such channels."""
    if any(not 0 <= number < n for number in only):
        raise InputError(Problem(location, f"has {n} channels, not {max(only) + 1}", "choose among them"))
    return only


def gathered(
    axes: str,
    sizes: Sequence[int],
    parts: Callable[[tuple[int, ...]], list[AnyArray]],
    only: Sequence[int] | None,
    warn: Warn,
    location: str,
) -> Iterator[tuple[int, list[AnyArray]]]:
    """Number of each channel, and its planes.

    Parameters
    ----------
    axes, sizes
        Along which planes are counted.
    parts
        Gives the planes at one place along these axes: usually one, several where a page holds several values.
    """
    size = dict(zip(axes, sizes, strict=True))
    depth = size.get(_DEPTH, 1)
    if depth > 1:
        warn(f"{location}: of {depth} planes along z the brightest pixels are shown")
    if size.get(_TIME, 1) > 1:
        warn(f"{location}: of {size[_TIME]} time points the first is shown")
    counted = [range(1 if axis in _DEPTH + _TIME else n) for axis, n in zip(axes, sizes, strict=True)]
    places = list(itertools.product(*counted))
    for number in range(len(places)) if only is None else checked(only, len(places), location):
        stack = [
            parts(tuple(z if axis == _DEPTH else at for axis, at in zip(axes, places[number], strict=True)))
            for z in range(depth)
        ]
        yield number, [planes[0] if depth == 1 else Brightest(planes) for planes in zip(*stack, strict=True)]


def numbered(planes: Iterable[tuple[int, list[AnyArray]]], name: str, labels: Sequence[str] = ()) -> list[Plane]:
    """Planes with the labels of their channels, or with a name and a number."""
    found = [(number, pixels) for number, several in planes for pixels in several]
    alone = len(found) == 1
    return [
        Plane("", labels[number] if number < len(labels) else name if alone else f"{name} {place + 1}", pixels)
        for place, (number, pixels) in enumerate(found)
    ]


def array_planes(array: Array, name: str, only: Sequence[int] | None, warn: Warn) -> list[Plane]:
    """Planes of an array (y, x), (channel, y, x) or (y, x, 3)."""
    axes = axes_of(array.shape, array.dtype, name)

    def parts(at: tuple[int, ...]) -> list[AnyArray]:
        return [array[at]]

    return numbered(gathered(axes, array.shape[: len(axes)], parts, only, warn, name), name)


def axes_of(shape: tuple[int, ...], dtype: Any, location: str) -> str:
    """Axes before y and x of an array of which only the shape is known."""
    if len(shape) == 2 or (len(shape) == 3 and shape[2] == 3 and dtype == np.uint8):
        return ""
    if len(shape) == 3:
        return "C"
    raise InputError(Problem(location, f"has the shape {shape}", "give (y, x), (channel, y, x) or (y, x, 3) uint8"))
