"""Rules about the content of binary files: arrays in, findings out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.findings import Finding
from atlaswriter.formats.cellucid import layout as names
from atlaswriter.formats.cellucid.rules_entries import Category, Edges, Values
from atlaswriter.formats.cellucid.rules_files import Array

# Rows looked at together: small enough that temporaries stay in the cache.
_BLOCK = 1 << 20

# Points are normalised to [-1, 1]; float32 rounding and the float32 arithmetic of 0.0.9 stay within this.
_EDGE = 1e-3


def examine_points(
    points: Array, file: str, centroids: Sequence[tuple[str, str, tuple[float, ...]]]
) -> Iterator[Finding]:
    """Finite, inside the unit box, and every label among the points."""
    if not points.size:
        return
    low, high = points.min(axis=0).astype(float), points.max(axis=0).astype(float)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        bad = ~np.isfinite(points).all(axis=1)
        found = f"{int(bad.sum()):,} cells have no finite position, the first is cell {int(bad.argmax()):,}"
        yield Finding("error", "points.finite", file, found, "remove those cells or mend the embedding, export again")
        return
    if low.min() < -1 - _EDGE or high.max() > 1 + _EDGE:
        found = f"coordinates from {low.min():g} to {high.max():g}, they should be normalised to -1 to 1"
        yield Finding("warning", "points.range", file, found)
    outside = [
        f"{field}: {category}"
        for field, category, position in centroids
        if (np.asarray(position) < low - _EDGE).any() or (np.asarray(position) > high + _EDGE).any()
    ]
    if outside:
        found = f"{len(outside)} labels lie outside the box around the points: {listed(outside)}"
        yield Finding("warning", "centroids.outside", file, found)


def examine_vectors(vectors: Array, file: str) -> Iterator[Finding]:
    """Finite; the lenient viewer draws anything else as zero."""
    if vectors.size and not (np.isfinite(vectors.min()) and np.isfinite(vectors.max())):
        bad = int((~np.isfinite(vectors).all(axis=1)).sum())
        yield Finding("strict", "vectors.finite", file, f"{bad:,} cells have components that are not finite")


def examine_values(values: Array, entry: Values) -> Iterator[Finding]:
    """No infinity, which breaks the viewer's colour range; NaN is a missing value."""
    if entry.bounds is None and (infinite := int(np.isinf(values).sum())):
        found = f"{infinite:,} values are infinite, the viewer's colours need a finite range"
        yield Finding("warning", "values.infinite", entry.payload.path, found, "replace them by NaN, export again")


def examine_outliers(values: Array, entry: Values) -> Iterator[Finding]:
    """Quantiles lie between 0 and 1, or are missing."""
    path = entry.payload.path
    if entry.bounds is None:
        known = values[~np.isnan(values)]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    else:
        known = values[values != names.MISSING[8 * values.itemsize]]
        ends = (int(known.min()), int(known.max())) if known.size else (0, 0)
        low, high = (entry.bounds[0] + code * entry.step for code in ends) if known.size else (0.0, 0.0)
    if low < 0 or high > 1 + 1e-6:
        yield Finding(
            "error", "outliers.range", path, f"quantiles from {low:g} to {high:g}, they must be within 0 to 1"
        )


def examine_codes(codes: Array, key: str, category: Category, needed: Mapping[str, int]) -> Iterator[Finding]:
    """Every code is a category or the missing code; centroids count no more cells than there are."""
    blocks = (codes[start : start + _BLOCK] for start in range(0, codes.size, _BLOCK))
    counts = np.zeros(names.MISSING[8 * codes.itemsize] + 1, np.int64)
    for block in blocks:
        counts += np.bincount(block, minlength=counts.size)
    path, n_categories = category.codes.path, len(category.categories)
    known = counts[:n_categories].copy()
    counts[:n_categories] = 0
    counts[category.missing : category.missing + 1] = 0
    if wrong := int(counts.sum()):
        found = f"{wrong:,} cells of {key!a} have codes past its {n_categories:,} categories"
        yield Finding("error", "codes.range", path, found)
    cells = dict(zip(category.categories, known.tolist(), strict=False))
    short = [label for label, n_points in needed.items() if cells.get(label, 0) < n_points]
    if short and len(cells) == n_categories:
        found = f"{key!a} has fewer cells than its label position was measured from: {listed(short)}"
        yield Finding("error", "centroids.count", path, found, "remove the folder and export again")


def examine_edges(
    sources: Array, destinations: Array, *weights: Array, entry: Edges, n_cells: int
) -> Iterator[Finding]:
    """Ends are cells, source < destination, pairs rise, and the largest degree is the one stated."""
    if not sources.size:
        yield from _degree(0, entry)
        return
    broken = _broken_edges(sources, destinations, n_cells)
    for rule, (n_broken, first, text) in broken.items():
        found = f"{n_broken:,} edges {text}, the first is edge {first:,}"
        yield Finding("error", rule, f"{entry.sources.path}, {entry.destinations.path}", found)
    if "edges.range" not in broken:
        yield from _degree(_largest_degree(sources, destinations, n_cells), entry)
    for weight in weights:
        if not (np.isfinite(weight) & (weight > 0)).all():
            file = entry.weights.path if entry.weights else ""
            yield Finding("strict", "edges.weights", file, "weights are not all finite and positive")


def _broken_edges(sources: Array, destinations: Array, n_cells: int) -> dict[str, tuple[int, int, str]]:
    """Of each rule that is broken: how often, where first, and what is wrong."""
    broken: dict[str, tuple[int, int, str]] = {}

    def note(rule: str, wrong: Array, start: int, text: str) -> None:
        if n_wrong := int(wrong.sum()):
            before, first, _ = broken.get(rule, (0, start + int(wrong.argmax()), text))
            broken[rule] = (before + n_wrong, first, text)

    for start in range(0, sources.size, _BLOCK):
        # One edge back, so that each block is compared with the end of the one before.
        begin = max(0, start - 1)
        src, dst = sources[begin : start + _BLOCK], destinations[begin : start + _BLOCK]
        own = slice(start - begin, None)
        note(
            "edges.range", (np.maximum(src, dst) >= n_cells)[own], start, f"lead to cells past the last of {n_cells:,}"
        )
        note("edges.loop", (src == dst)[own], start, "join a cell with itself")
        note("edges.direction", (src > dst)[own], start, "have their source after their destination")
        same = src[1:] == src[:-1]
        note("edges.duplicate", same & (dst[1:] == dst[:-1]), begin + 1, "occur twice")
        falling = (src[1:] < src[:-1]) | (same & (dst[1:] < dst[:-1]))
        note("edges.order", falling, begin + 1, "are out of order")
    return broken


def _largest_degree(sources: Array, destinations: Array, n_cells: int) -> int:
    # A count per cell costs memory by n_cells, which a damaged manifest may overstate.
    if n_cells > 4 * sources.size + _BLOCK:
        return int(np.unique(np.concatenate([sources, destinations]), return_counts=True)[1].max())
    degree = np.zeros(n_cells, np.int64)
    step = max(_BLOCK, n_cells)
    for ends in (sources, destinations):
        for start in range(0, ends.size, step):
            degree += np.bincount(ends[start : start + step].astype(np.int64), minlength=n_cells)
    return int(degree.max())


def _degree(largest: int, entry: Edges) -> Iterator[Finding]:
    stated = entry.max_neighbors
    if stated == largest + 1:
        # 0.0.9 counts a self-loop that it then leaves out.
        found = f"max_neighbors is {stated:,}, the largest degree is {largest:,}: a self-loop was counted"
        yield Finding("strict", "edges.degree", entry.sources.path, found)
    elif stated != largest:
        found = f"max_neighbors is {stated:,}, the largest degree is {largest:,}"
        yield Finding("error", "edges.degree", entry.sources.path, found)
