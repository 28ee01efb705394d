"""Comparing two projects by what the client would show, not by their bytes."""

from __future__ import annotations

import functools
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.run import Team
from atlaswriter.findings import DiffResult, Part
from atlaswriter.formats.deepcell.blocks import Block, Cut
from atlaswriter.formats.deepcell.content import refused
from atlaswriter.formats.deepcell.read import Project, open_export
from atlaswriter.formats.deepcell.survey import as_values
from atlaswriter.formats.deepcell.values import Table
from atlaswriter.sources.base import Array
from atlaswriter.sources.movie import Movie
from atlaswriter.units import usable_cpus

if TYPE_CHECKING:
    import pandas as pd

# Bytes for each pixel of a block: its values as float64, their differences and what they are compared with.
_PIXEL_BYTES = 64

# Frames and features whose tables of meanings are kept; the blocks under way are of few.
_TABLES = 8

# What is found in one channel of a block.
Compare = Callable[[Block, int, Array, Array], Part]


@dataclass(frozen=True)
class _Tolerance:
    rtol: float
    atol: float

    def compare(self, part: Part, a: Array, b: Array) -> None:
        """Compare values, of which missing ones equal missing ones."""
        part.max_difference = part.max_difference or 0.0
        if np.array_equal(a, b):
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        finite = np.isfinite(a) & np.isfinite(b)
        difference = np.abs(np.subtract(a, b, out=np.zeros_like(a), where=finite))
        larger = np.where(finite, np.maximum(np.abs(a), np.abs(b)), 0)
        same = np.where(finite, difference <= self.atol + self.rtol * larger, (a == b) | (np.isnan(a) & np.isnan(b)))
        part.max_difference = max(part.max_difference, float(difference.max(initial=0)))
        part.n_different += int((~same).sum())
        part.equal = not part.n_different


def diff(a: str | PathLike[str], b: str | PathLike[str], *, rtol: float = 0.0, atol: float = 0.0) -> DiffResult:
    """Compare two projects by decoded content, some rows of a frame at a time.

    Compared are the numbers of frames, rows and columns, names of channels, pixels of the image, the set of cells of
    each pixel in each feature, which cells are listed in which frame and feature, divisions, cell types, embeddings
    and spots. Not compared is how all this is stored: values of labels, order of pages and rows, number types, ids of
    cell types, compression.

    Parameters
    ----------
    a, b
        The zip files.
    rtol, atol
        Pixels of the image, embeddings and numbers of spots are the same when ``|a - b| <= atol + rtol * max(|a|,
        |b|)``.

    Returns
    -------
    DiffResult

    Raises
    ------
    FormatError
        Something in either project is missing or damaged.
    """
    result, tolerance = DiffResult(str(a), str(b)), _Tolerance(rtol, atol)
    with open_export(a) as first, open_export(b) as second:
        sizes = _size(first), _size(second)
        result.facts("size", *sizes)
        result.facts("channels", {"names": first.channels}, {"names": second.channels})
        if sizes[0] == sizes[1]:
            with refused("tiff.unreadable"):
                _compare_images(result, first, second, tolerance)
                _compare_labels(result, first, second)
            for project in (first, second):
                project.verify()
        _compare_cells(result.new("cells"), first, second)
        for name, rows in (("divisions", _divisions), ("cell types", _cell_types)):
            left, right = set(rows(first)), set(rows(second))
            _tell(result.new(name), len(left - right), len(right - left))
        _compare_embeddings(result, first, second, tolerance)
        _compare_spots(result, first, second, tolerance)
    return result


def _size(project: Project) -> dict[str, int]:
    return {"frames": project.n_frames, "rows": project.height, "columns": project.width}


def _compare_images(result: DiffResult, a: Project, b: Project, tolerance: _Tolerance) -> None:
    if a.n_channels != b.n_channels:
        return  # the names tell
    parts = [result.new(f"channel {number} {name!r}") for number, name in enumerate(a.channels)]
    if a.image_dtype != b.image_dtype:
        for part in parts:
            part.note = f"{a.image_dtype} and {b.image_dtype}"

    def compare(_block: Block, _channel: int, left: Array, right: Array) -> Part:
        piece = Part("")
        tolerance.compare(piece, left, right)
        return piece

    _compare_stacks(parts, a.images, b.images, compare)


def _compare_labels(result: DiffResult, a: Project, b: Project) -> None:
    """Compare the cells of each pixel: values of either project become numbers of the sets of cells they mean."""
    if a.n_features != b.n_features:
        result.facts("features", {"number": a.n_features}, {"number": b.n_features})
        return

    @functools.lru_cache(maxsize=_TABLES)
    def tables(t: int, c: int) -> tuple[Table, Table, bool]:
        left, right = a.cells_at(t, c), b.cells_at(t, c)
        numbers: dict[tuple[int, ...], int] = {}

        def table(meaning: dict[int, tuple[int, ...]]) -> Table:
            new = [numbers.setdefault(cells, len(numbers) + 1) for cells in meaning.values()]
            return Table(np.array(list(meaning), np.int32), np.array(new, np.int32))

        return table(left), table(right), left == right

    def compare(block: Block, feature: int, left: Array, right: Array) -> Part:
        left, right = as_values(left, a.segmentation.where), as_values(right, b.segmentation.where)
        in_a, in_b, same = tables(block.frame, feature)
        if same and np.array_equal(left, right):
            return Part("")
        meant = [np.empty(left.shape, np.int32) for _ in range(2)]
        in_a.apply(left, meant[0])
        in_b.apply(right, meant[1])
        n_different = int(np.count_nonzero(meant[0] != meant[1]))
        return Part("", equal=not n_different, n_different=n_different)

    parts = [result.new(f"labels of feature {number}") for number in range(a.n_features)]
    _compare_stacks(parts, a.segmentation, b.segmentation, compare)
    for part in parts:
        part.max_difference = None


def _compare_stacks(parts: list[Part], a: Movie, b: Movie, compare: Compare) -> None:
    """Compare two movies of one shape, each channel in its part."""
    cuts = Cut.of(a.stack, 1), Cut.of(b.stack, 1)
    rows, channels = max(cut.rows for cut in cuts), max(cut.channels for cut in cuts)
    cut, other = (Cut(one.stack, rows, channels) for one in cuts)
    memory = cut.room + other.room + _PIXEL_BYTES * rows * a.stack.shape[3]

    def work(block: Block) -> list[tuple[int, Part]]:
        pairs = zip(block.images(a.stack), block.images(b.stack), strict=True)
        return [(channel, compare(block, channel, left, right)) for (channel, left), (_, right) in pairs]

    with Team(usable_cpus(), Budget()) as team:
        for pieces in team.in_order(work, cut, memory=memory, what=f"comparing {a.where} and {b.where}"):
            for channel, piece in pieces:
                parts[channel].include(piece)


def _compare_cells(part: Part, a: Project, b: Project) -> None:
    """Compare in which frames and features cells are, whatever their values."""
    left, right = (np.unique(project.cells[["cell", "t", "c"]].to_numpy(), axis=0) for project in (a, b))
    n_all = len(np.unique(np.concatenate([left, right]), axis=0))
    _tell(part, n_all - len(right), n_all - len(left))


def _divisions(project: Project) -> Iterator[Hashable]:
    for one in project.divisions:
        yield one["parent"], frozenset(one["daughters"]), one["t"]


def _cell_types(project: Project) -> Iterator[Hashable]:
    for one in project.cell_types:
        yield one["name"], one["color"].lower(), one["feature"], frozenset(one["cells"])


def _tell(part: Part, only_a: int, only_b: int) -> None:
    part.n_different = only_a + only_b
    part.equal = not part.n_different
    if part.n_different:
        part.note = f"{only_a:,} only in a, {only_b:,} only in b"


def _compare_embeddings(result: DiffResult, a: Project, b: Project, tolerance: _Tolerance) -> None:
    left, right = a.embeddings, b.embeddings
    result.both("table", _named("embeddings", left), _named("embeddings", right))
    if left is None or right is None:
        return
    part = result.new("embeddings")
    if left.shape == right.shape:
        tolerance.compare(part, left, right)
    else:
        part.equal, part.note = False, f"shapes {left.shape} and {right.shape}"


def _compare_spots(result: DiffResult, a: Project, b: Project, tolerance: _Tolerance) -> None:
    left, right = a.spots, b.spots
    result.both("table", _named("spots", left), _named("spots", right))
    if left is None or right is None:
        return
    columns = result.both("column of spots", left.columns, right.columns)
    if len(left) != len(right):
        result.facts("spots", {"number": len(left)}, {"number": len(right)})
        return
    parts = _compare_columns(left[columns], right[columns], tolerance)
    if not all(part.equal for part in parts):
        # A spot has no name: where their order differs, spots of about the same place belong together.
        left, right = (table.sort_values(["x", "y"], kind="stable") for table in (left, right))
        again = _compare_columns(left[columns], right[columns], tolerance)
        if sum(part.n_different for part in again) < sum(part.n_different for part in parts):
            parts = again
            parts[0].note = "in another order"
    result.parts += parts


def _compare_columns(a: pd.DataFrame, b: pd.DataFrame, tolerance: _Tolerance) -> list[Part]:
    parts = []
    for name in a.columns:
        part = Part(f"spots {name!r}")
        left, right = a[name].to_numpy(), b[name].to_numpy()
        if {left.dtype.kind, right.dtype.kind} <= set("iuf"):
            tolerance.compare(part, left, right)
        else:
            part.n_different = int((left.astype(str) != right.astype(str)).sum())
            part.equal = not part.n_different
        parts.append(part)
    return parts


def _named(name: str, value: object) -> list[str]:
    return [] if value is None else [name]
