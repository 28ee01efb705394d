"""Types of cells, and a vector for each cell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.formats.deepcell.cells import Cells
from atlaswriter.formats.deepcell.jsonlist import Faults, items, objects, shown, whole

_COLOR = re.compile(r"#[0-9A-Fa-f]{6}")
_VECTORS_AT_ONCE = 1 << 10

Embeddings = NDArray[np.float64]


@dataclass(frozen=True)
class CellType:
    """A type of cells.

    Attributes
    ----------
    id
        Its number; no two types share one.
    cells
        Cells of this type.
    color
        As ``#rrggbb``.
    name
        What people call it.
    feature
        Feature whose cells these are.
    """

    id: int
    cells: tuple[int, ...]
    color: str
    name: str
    feature: int


_KEYS = tuple(CellType.__dataclass_fields__)


def parse_cell_types(content: bytes, where: str, problems: Problems) -> list[CellType] | None:
    """Types from JSON, a list of objects with the keys of `CellType`; None when there is a problem."""
    return objects(content, where, "types", _cell_type, problems)


def _cell_type(row: Any, name: str, faults: Faults) -> CellType | None:
    if not isinstance(row, dict) or not row.keys() >= set(_KEYS):
        faults.add(f"are no objects with {', '.join(_KEYS)}", f"{name} is {shown(row)}")
        return None
    given = row["cells"] if isinstance(row["cells"], list) else [None]
    cells = tuple(number for number in map(whole, given) if number is not None)
    number, feature = whole(row["id"]), whole(row["feature"])
    if number is None or feature is None or len(cells) < len(given):
        faults.add("have an id, cells or a feature that are no whole numbers", f"{name} {shown(row)}")
        return None
    if not isinstance(row["name"], str) or not isinstance(row["color"], str) or not _COLOR.fullmatch(row["color"]):
        faults.add("have a name that is no text, or a color that is not #rrggbb", f"{name} {shown(row)}")
        return None
    return CellType(number, cells, row["color"], row["name"], feature)


def validate_cell_types(
    types: Sequence[CellType], cells: Cells, n_features: int, where: str, problems: Problems, warnings: list[str]
) -> None:
    """Note ids that are there twice and features that are not there; cells that are not there are a warning."""
    faults, oddities = Faults(where, "types"), Faults(where, "types")
    seen: set[int] = set()
    known = [set(np.unique(cells.cell[cells.c == feature]).tolist()) for feature in range(n_features)]
    for one in types:
        if one.id in seen:
            faults.add("have the id of another", f"id {one.id} ({one.name!a})", "make ids unique")
        seen.add(one.id)
        if not 0 <= one.feature < n_features:
            kind = f"have a feature that is not there: there are {n_features:,}"
            faults.add(kind, f"id {one.id} has {one.feature}", "count from 0")
            continue
        if len(set(one.cells)) < len(one.cells):
            oddities.add("have a cell twice", f"id {one.id} ({one.name!a})")
        strange = sorted(set(one.cells) - known[one.feature])
        if strange:
            oddities.add(
                "have cells that are not in the labels", f"id {one.id} has {strange[:5]} ({len(strange):,} in all)"
            )
    faults.report(problems)
    oddities.warn(warnings)


def cell_types_to_json(types: Sequence[CellType]) -> Iterator[bytes]:
    """Types as JSON, in pieces."""
    yield json.dumps([asdict(one) for one in types]).encode()


def parse_embeddings(content: bytes, where: str, problems: Problems) -> Embeddings | None:
    """Vectors of cells from JSON: a list of equally long lists of numbers, by number of the cell, or ``null``.

    Returns
    -------
    float64, (n, length), or None
        Row 0 is the background's; None for ``null``, and when there is a problem.
    """
    if content.removeprefix(b"\xef\xbb\xbf").strip(b" \t\r\n") == b"null":
        return None
    faults = Faults(where, "vectors")
    blocks: list[Embeddings] = []

    def read() -> None:
        first, length = 0, None
        for rows in items(content, where, "]"):
            for number, row in enumerate(rows, first):
                if not isinstance(row, list) or not all(type(item) in {int, float} for item in row):
                    faults.add("are no lists of numbers", f"number {number} is {shown(row)}")
                    continue
                length = len(row) if length is None else length
                if len(row) != length:
                    faults.add(f"are not as long as the first, {length}", f"number {number} has {len(row)}")
            first += len(rows)
            if not faults:
                blocks.append(_block(rows, where))

    n_before = len(problems.found)
    problems.attempt(read)
    faults.report(problems)
    if len(problems.found) > n_before:
        return None
    result = np.concatenate([block for block in blocks if block.size] or [np.empty((0, 0))])
    faults.add_where(~np.isfinite(result).all(axis=1), "have numbers that are not finite", "number {}".format)
    faults.report(problems)
    return result if len(problems.found) == n_before else None


def _block(rows: list[Any], where: str) -> Embeddings:
    try:
        return np.array(rows, np.float64).reshape(len(rows), len(rows[0]) if rows else 0)
    except OverflowError:
        raise InputError(Problem(where, "has integers that are no finite float64", "write smaller numbers")) from None


def validate_embeddings(embeddings: Embeddings, cells: Cells, where: str, warnings: list[str]) -> None:
    """Warn of cells beyond the last vector."""
    strange = np.unique(cells.cell[cells.cell >= embeddings.shape[0]])
    if embeddings.shape[0] and strange.size:
        first = ", ".join(map(str, strange[:3].tolist()))
        found = f"has vectors up to cell {embeddings.shape[0] - 1:,}, and none for {strange.size:,} cells: {first}"
        warnings.append(str(Problem(where, found, "write a vector of zeros for cells that have none")))


def embeddings_to_json(embeddings: Embeddings | None) -> Iterator[bytes]:
    """Vectors as JSON, in pieces; ``null`` for None."""
    if embeddings is None:
        yield b"null"
        return
    yield b"["
    for first in range(0, embeddings.shape[0], _VECTORS_AT_ONCE):
        rows = json.dumps(embeddings[first : first + _VECTORS_AT_ONCE].tolist(), allow_nan=False)
        yield (", " if first else "").encode() + rows[1:-1].encode()
    yield b"]"
