"""Comparing two sets of LandscapeFiles by what the front-end would show, not by their bytes."""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.findings import DiffResult, Part
from atlaswriter.formats.landscape.columns import Array, Names
from atlaswriter.formats.landscape.diff_tiles import compare_images, compare_outlines, compare_transcripts
from atlaswriter.formats.landscape.read import Landscape, open_export

# Relative rounding of one float32, in which values may be stored.
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class _Tolerance:
    rtol: float
    atol: float

    def compare(self, part: Part, a: Array, b: Array) -> None:
        """Compare values, of which missing ones equal missing ones."""
        a, b = a.astype(np.float64), b.astype(np.float64)
        difference = np.abs(a - b)
        slack = self.atol + (self.rtol + _EPSILON) * np.maximum(np.abs(a), np.abs(b))
        same = (difference <= slack) | (a == b) | (np.isnan(a) & np.isnan(b))
        part.max_difference = max(part.max_difference or 0.0, float(np.nanmax(difference, initial=0)))
        part.n_different += int((~same).sum())
        part.equal = not part.n_different


def diff(
    a: str | PathLike[str],
    b: str | PathLike[str],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    px: float = 0.01,
    grey: float = 0.0,
) -> DiffResult:
    """Compare two sets of LandscapeFiles by decoded content, one tile and one gene at a time.

    Compared are technology, tile size and channels, and of each segmentation cells, genes, their
    statistics and colours, counts, clusters, signatures and outlines; transcripts, the transform and
    images. Cells, genes and clusters are matched by name. Not compared is how all this is stored: loose
    files or row groups, ids or names, number types, compression, order of transcripts.

    Parameters
    ----------
    a, b
        The folders.
    rtol, atol
        Values are the same when ``|a - b| <= atol + rtol * max(|a|, |b|)``; the rounding of
        float32 is allowed besides.
    px
        Tolerance of positions, pixels, in x and in y.
    grey
        An image tile is the same when the mean of its absolute differences is at most this.

    Returns
    -------
    DiffResult

    Raises
    ------
    FormatError
        A file of either set is missing or damaged.
    """
    result = DiffResult(str(a), str(b))
    tolerance = _Tolerance(rtol, atol)
    first, second = open_export(a), open_export(b)
    result.facts("parameters", _parameters(first), _parameters(second))
    for name in [None, *result.both("segmentation", first.segmentations, second.segmentations)]:
        left, right = (open_export(folder, segmentation=name) for folder in (a, b))
        _compare_segmentations(result, left, right, tolerance, px)
    if first.tile_size == second.tile_size:
        genes = _translated(second.genes, first.genes)
        result.parts.append(compare_transcripts(first, second, genes, px))
    for channel in result.both("channel", first.channels, second.channels):
        result.parts.append(compare_images(first, second, channel, grey))
    _compare_transforms(result, first, second, tolerance)
    return result


def _translated(names: list[str], known: list[str]) -> Array:
    """Id among `known` of each of `names`, int64; -1 for others, and at the end for -1 itself."""
    ids = Names(known).ids
    return np.array([ids.get(name, -1) for name in names] + [-1], np.int64)


def _parameters(landscape: Landscape) -> dict[str, Any]:
    return {
        "technology": landscape.technology,
        "tile_size": landscape.tile_size,
        "channels": list(landscape.channels.values()),
    }


def _compare_transforms(result: DiffResult, a: Landscape, b: Landscape, tolerance: _Tolerance) -> None:
    left, right = a.transform, b.transform
    result.both("matrix", _named("transform", left), _named("transform", right))
    if left is not None and right is not None:
        tolerance.compare(result.new("transform"), left, right)


def _named(name: str, value: object) -> list[str]:
    return [] if value is None else [name]


def _compare_segmentations(result: DiffResult, a: Landscape, b: Landscape, tolerance: _Tolerance, px: float) -> None:
    of = f" of {a.segmentation!r}" if a.segmentation else ""
    cells = _translated(b.cells().names, a.cells().names)
    _compare_cells(result.new(f"cells{of}"), a, b, cells, px)
    genes = result.both(f"gene{of}", a.genes, b.genes)
    _compare_statistics(result, a, b, genes, of, tolerance)
    _compare_counts(result.new(f"counts of {len(genes):,} genes{of}"), a, b, genes, cells, tolerance)
    _compare_clusters(result, a, b, of)
    _compare_signatures(result, a, b, of, tolerance)
    result.parts.append(compare_outlines(a, b, cells, px, f"outlines{of}"))


def _compare_cells(part: Part, a: Landscape, b: Landscape, ids: Array, px: float) -> None:
    left, right = a.cells(), b.cells()
    shared = np.flatnonzero(ids[:-1] >= 0)
    only_a, only_b = len(left.names) - shared.size, len(right.names) - shared.size
    within = _Tolerance(0.0, px)
    for x, y in ((left.x_px, right.x_px), (left.y_px, right.y_px)):
        within.compare(part, x[ids[shared]], y[shared])
    part.equal = part.equal and not only_a and not only_b
    if only_a or only_b:
        part.note = f"{only_a:,} only in a, {only_b:,} only in b"
    elif left.names != right.names:
        part.note = "in another order"


def _compare_statistics(
    result: DiffResult, a: Landscape, b: Landscape, genes: list[str], of: str, tolerance: _Tolerance
) -> None:
    left, right = a.meta_gene().loc[genes], b.meta_gene().loc[genes]
    for name in result.both(f"statistic{of}", left.columns, right.columns):
        part = result.new(f"{name} of genes{of}")
        if name == "color":
            part.n_different = int((left[name] != right[name]).sum())
            part.equal = not part.n_different
        else:
            tolerance.compare(part, left[name].to_numpy(), right[name].to_numpy())


def _compare_counts(
    part: Part, a: Landscape, b: Landscape, genes: list[str], cells: Array, tolerance: _Tolerance
) -> None:
    different = []
    for gene in genes:
        one = Part(gene)
        (left, in_left), (right, in_right) = a.gene(gene), b.gene(gene)
        right = cells[np.clip(right, -1, len(cells) - 1)]
        left_order, right_order = np.argsort(left), np.argsort(right)
        left, right = left[left_order], right[right_order]
        if np.array_equal(left, right):
            tolerance.compare(one, in_left[left_order], in_right[right_order])
        else:
            one.equal, one.n_different = False, np.setxor1d(left, right).size
        part.include(one)
        if not one.equal:
            different.append(gene)
    part.note = f"different genes: {listed(different)}" if different else ""


def _compare_clusters(result: DiffResult, a: Landscape, b: Landscape, of: str) -> None:
    part = result.new(f"clusters{of}")
    left, right = a.clusters(), b.clusters()
    shared = left.index.intersection(right.index)
    part.n_different = sum(x != y for x, y in zip(left[shared], right[shared], strict=True))
    colors = result.new(f"colours of clusters{of}")
    colors.n_different = len(dict(a.cluster_colors().items() ^ b.cluster_colors().items()))
    for one in (part, colors):
        one.equal = not one.n_different


def _compare_signatures(result: DiffResult, a: Landscape, b: Landscape, of: str, tolerance: _Tolerance) -> None:
    left, right = a.signatures(), b.signatures()
    result.both("table", _named(f"signatures{of}", left), _named(f"signatures{of}", right))
    if left is None or right is None:
        return
    part = result.new(f"signatures{of}")
    genes, labels = (sorted(set(x) & set(y)) for x, y in ((left.index, right.index), (left.columns, right.columns)))
    if max(left.shape[0], right.shape[0]) > len(genes) or max(left.shape[1], right.shape[1]) > len(labels):
        part.equal, part.note = False, f"of {left.shape} and {right.shape} genes and clusters"
        return
    tolerance.compare(part, left.loc[genes, labels].to_numpy(), right.loc[genes, labels].to_numpy())
