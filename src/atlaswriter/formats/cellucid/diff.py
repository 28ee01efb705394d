"""Comparing two exports by what the viewer would show, not by their bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from atlaswriter.errors import listed
from atlaswriter.findings import DiffResult, Part
from atlaswriter.formats.cellucid.layout import IDENTITY, Layout
from atlaswriter.formats.cellucid.read import Export, open_export
from atlaswriter.formats.cellucid.rules_entries import Category, Values, as_dict
from atlaswriter.formats.cellucid.rules_files import Array

# Relative rounding of one float32.
_EPSILON = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class _Tolerance:
    rtol: float
    atol: float
    steps: float

    def compare(self, part: Part, a: Array, b: Array, step: float = 0.0) -> None:
        """Compare values of two exports, the coarser of which has quantisation steps of `step`."""
        if a.shape != b.shape:
            part.equal, part.note = False, f"shapes {a.shape} and {b.shape}"
            return
        part.max_difference = part.max_difference or 0.0
        if np.array_equal(a, b, equal_nan=True):
            return
        a, b = a.astype(np.float64), b.astype(np.float64)
        quantised = bool(self.steps and step)
        finite = np.isfinite(a) & np.isfinite(b)
        difference = np.abs(np.subtract(a, b, out=np.zeros_like(a), where=finite))
        larger = np.where(finite, np.maximum(np.abs(a), np.abs(b)), 0)
        slack = self.atol + self.rtol * larger
        if quantised:
            slack = slack + self.steps * step * (1 + 1e-6) + _EPSILON * larger
        # A quantised export keeps infinities as missing values.
        both_missing = ~np.isfinite(a) & ~np.isfinite(b) if quantised else (a == b) | (np.isnan(a) & np.isnan(b))
        part.max_difference = max(part.max_difference, float(difference.max(initial=0)))
        part.n_different += int((np.where(finite, difference > slack, ~both_missing)).sum())
        part.equal = not part.n_different


def diff(
    a: str | PathLike[str],
    b: str | PathLike[str],
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    steps: float = 0.0,
    layout: Layout | None = None,
) -> DiffResult:
    """Compare two exports by decoded content, one gene at a time.

    Compared are points, vectors, obs values, categories (by label, whatever their codes), outlier
    quantiles, label positions, genes, edges, and of the identity id, name, description, source
    and defaults. Not compared are times, versions, and how values are stored: compression, code
    widths, order of fields.

    Parameters
    ----------
    a, b
        Folders of the exports.
    rtol, atol
        Values are the same when ``|a - b| <= atol + rtol * max(|a|, |b|)``.
    steps
        Tolerated besides, for quantised values: this many quantisation steps of the coarser
        export. 0.5 lets a quantised export equal the float32 export of the same data, 1.0 one that
        was quantised by cellucid 0.0.9, which truncates. Infinities, which quantising turns into
        missing values, then equal missing values.
    layout
        File and folder names of both, when they were changed at export.

    Returns
    -------
    DiffResult

    Raises
    ------
    FormatError
        A file of either export is missing or damaged.
    """
    ex_a, ex_b = open_export(a, layout=layout), open_export(b, layout=layout)
    result = DiffResult(str(a), str(b))
    tolerance = _Tolerance(rtol, atol, steps)
    result.facts("identity", _identity(ex_a), _identity(ex_b))
    if ex_a.n_cells != ex_b.n_cells:
        note = f"{ex_a.n_cells:,} and {ex_b.n_cells:,}; nothing else was compared"
        result.parts.append(Part("cells", equal=False, note=note))
        return result
    for dim in result.both("points", ex_a.dimensions, ex_b.dimensions):
        part = result.new(f"points {dim}d")
        tolerance.compare(part, ex_a.points(dim), ex_b.points(dim))
    _compare_vectors(result, ex_a, ex_b, tolerance)
    _compare_obs(result, ex_a, ex_b, tolerance)
    _compare_genes(result, ex_a, ex_b, tolerance)
    _compare_edges(result, ex_a, ex_b)
    return result


def _identity(export: Export) -> dict[str, Any]:
    identity = export.identity
    embeddings, vectors = (as_dict(identity.get(key), key, IDENTITY) for key in ("embeddings", "vector_fields"))
    return {
        **{key: identity.get(key) for key in ("id", "name", "description", "source")},
        "default_dimension": embeddings.get("default_dimension"),
        "default_field": vectors.get("default_field"),
    }


def _compare_vectors(result: DiffResult, a: Export, b: Export, tolerance: _Tolerance) -> None:
    for name in result.both("vector field", a.vector_fields, b.vector_fields):
        for dim in result.both(f"vector field {name!r} in dimension", a.vector_fields[name], b.vector_fields[name]):
            tolerance.compare(result.new(f"vectors {name!r} {dim}d"), a.vectors(name, dim), b.vectors(name, dim))


def _compare_obs(result: DiffResult, a: Export, b: Export, tolerance: _Tolerance) -> None:
    for key in result.both("obs field", a.obs_keys, b.obs_keys):
        part = result.new(f"obs {key!r}")
        entry_a, entry_b = a.obs_entry(key), b.obs_entry(key)
        if isinstance(entry_a, Category) and isinstance(entry_b, Category):
            _compare_categories(part, a, b, key)
            step = _step(entry_a.outliers, entry_b.outliers)
            tolerance.compare(result.new(f"outliers {key!r}"), a.outliers(key), b.outliers(key), step)
            _compare_centroids(result, a, b, key, tolerance)
        elif isinstance(entry_a, Values) and isinstance(entry_b, Values):
            tolerance.compare(part, a.obs(key).to_numpy(), b.obs(key).to_numpy(), _step(entry_a, entry_b))
        else:
            part.equal, part.note = False, "categorical in one, continuous in the other"


def _step(a: Values, b: Values) -> float:
    return max(a.step, b.step)


def _compare_categories(part: Part, a: Export, b: Export, key: str) -> None:
    left, right = a.obs(key).cat, b.obs(key).cat
    labels, others = list(left.categories), list(right.categories)
    position = {label: code for code, label in enumerate(labels)}
    # A label that only b has becomes a code that a cannot have; -1 stays missing.
    table = np.array([position.get(label, len(labels)) for label in others] + [-1])
    part.n_different = int((left.codes.to_numpy() != table[right.codes.to_numpy()]).sum())
    only = sorted(set(labels) ^ set(others))
    part.equal = not part.n_different and not only
    if only:
        part.note = f"categories in one only: {listed(only)}"
    elif labels != others:
        part.note = "categories in another order"


def _compare_centroids(result: DiffResult, a: Export, b: Export, key: str, tolerance: _Tolerance) -> None:
    for dim in (dim for dim in a.dimensions if dim in b.dimensions):
        left, right = a.centroids(key, dim), b.centroids(key, dim)
        part = result.new(f"label positions {key!r} {dim}d")
        if sorted(left.index) != sorted(right.index):
            part.equal, part.note = False, f"of {listed(left.index)} and {listed(right.index)}"
            continue
        left, right = left.sort_index(), right.sort_index()
        axes = list(left.columns[:-1])
        tolerance.compare(part, left[axes].to_numpy(), right[axes].to_numpy())
        if not np.array_equal(left["n_points"], right["n_points"]):
            part.equal, part.note = False, "measured from other numbers of cells"


def _compare_genes(result: DiffResult, a: Export, b: Export, tolerance: _Tolerance) -> None:
    shared = result.both("gene", a.genes, b.genes)
    if not shared:
        return
    total, different = result.new(f"{len(shared):,} genes"), []
    for gene in shared:
        part = Part(gene)
        tolerance.compare(part, a.gene(gene), b.gene(gene), _step(a.gene_entry(gene), b.gene_entry(gene)))
        total.include(part)
        if not part.equal:
            different.append(gene)
    total.note = f"different genes: {listed(different)}" if different else ""


def _compare_edges(result: DiffResult, a: Export, b: Export) -> None:
    result.both("edges of", _graph(a), _graph(b))
    if a.n_edges is None or b.n_edges is None:
        return
    part = result.new("edges")
    left, right = (_pairs(export.edges(), export.n_cells) for export in (a, b))
    if np.array_equal(left, right):
        return
    only_a, only_b = np.setdiff1d(left, right).size, np.setdiff1d(right, left).size
    part.n_different = only_a + only_b
    part.equal = not part.n_different and left.size == right.size
    part.note = f"{only_a:,} only in a, {only_b:,} only in b" if part.n_different else "in another order"


def _graph(export: Export) -> Sequence[str]:
    return [] if export.n_edges is None else ["the neighbour graph"]


def _pairs(edges: tuple[Array, Array], n_cells: int) -> Array:
    """Each edge as one number."""
    sources, destinations = (ends.astype(np.uint64) for ends in edges)
    pairs: Array = sources * np.uint64(n_cells) + destinations
    return pairs
