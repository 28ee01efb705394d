"""Coordinate transformations as SpatialData stores them (NGFF, https://ngff.openmicroscopy.org), as 3 × 3 matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.shapes import Floats, affine


def to_system(transformations: Any, axes: Sequence[str], system: str, where: str) -> Floats:
    """From the coordinates of an element to those of a coordinate system.

    Parameters
    ----------
    transformations
        ``coordinateTransformations`` of the element, one for each system it is in.
    axes
        Names of the element's axes, in order.
    system
        Name of the coordinate system.
    where
        The element, for messages.

    Returns
    -------
    float64 (3, 3)
        ``[x', y', 1] = matrix @ [x, y, 1]``.

    Raises
    ------
    InputError
        The element is not in this system, or its transformation is damaged, unknown or not one of the plane.
    """
    with translated_damage(where, "disk"):
        known = {each["output"]["name"]: each for each in transformations or ()}
        if system not in known:
            remedy = f"choose one of its coordinate systems: {listed(known) or 'none'}"
            raise InputError(Problem(where, f"is not in the coordinate system {system!r}", remedy))
        matrix, before, after = _matrix(known[system], list(axes), where)
        return affine(_in_plane(matrix, before, after, where), where)


def _matrix(step: dict[str, Any], axes: list[str], where: str) -> tuple[Floats, list[str], list[str]]:
    """A transformation as a matrix over its axes and 1, and the names of its input and output axes."""
    before = _axes(step.get("input")) or axes
    after = _axes(step.get("output")) or before
    kind, n = step["type"], len(before)
    if kind == "sequence":
        whole, current = np.eye(n + 1), before
        for each in step["transformations"]:
            matrix, needed, current_after = _matrix(each, current, where)
            whole, current = matrix @ _selected(needed, current) @ whole, current_after
        return _selected(after, current) @ whole, before, after
    if kind == "affine":
        return _homogeneous(np.array(step["affine"], np.float64)), before, after
    if kind == "rotation":
        turned = np.array(step["rotation"], np.float64)
        return _homogeneous(np.column_stack([turned, np.zeros(len(turned))])), before, after
    if kind == "mapAxis":
        return _selected([step["mapAxis"][name] for name in after], before), before, after
    matrix = np.eye(n + 1)
    if kind == "scale":
        matrix[:n, :n] = np.diag(np.array(step["scale"], np.float64))
    elif kind == "translation":
        matrix[:n, n] = step["translation"]
    elif kind != "identity":
        known = "identity, scale, translation, rotation, affine, mapAxis and sequence"
        raise InputError(Problem(where, f"has a transformation of type {kind!r}", f"those known are {known}"))
    return _selected(after, before) @ matrix, before, after


def _axes(system: Any) -> list[str]:
    return [axis["name"] for axis in system.get("axes", ())] if isinstance(system, dict) else []


def _homogeneous(rows: Floats) -> Floats:
    return np.vstack([rows, np.eye(rows.shape[1])[-1:]])


def _selected(wanted: Sequence[str], axes: Sequence[str]) -> Floats:
    """Matrix that puts axes in another order; those that are new are 0."""
    matrix = np.zeros((len(wanted) + 1, len(axes) + 1))
    matrix[-1, -1] = 1
    for row, name in enumerate(wanted):
        if name in axes:
            matrix[row, axes.index(name)] = 1
    return matrix


def _in_plane(matrix: Floats, before: list[str], after: list[str], where: str) -> Floats:
    rows = [after.index("x"), after.index("y"), len(after)]
    columns = [before.index("x"), before.index("y"), len(before)]
    others = [place for place in range(len(before)) if place not in columns]
    if np.any(matrix[np.ix_(rows, others)]):
        raise InputError(Problem(where, "its transformation mixes x and y with other axes", "flatten it to two"))
    return matrix[np.ix_(rows, columns)]
