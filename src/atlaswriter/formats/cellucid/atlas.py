"""What one export is made of, wherever it came from, and every rule it must obey."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import Problems, listed
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.names import plan_names, safe_name
from atlaswriter.sources.base import Array, Categorical, Column, Matrix

_EXPLICIT = re.compile(r"(.*)_([123])d")
_CHECK_ROWS = 1 << 16
_MAX_CELLS = 2**32 - 1


@dataclass
class Genes:
    """Expression to export: `ids` are written in this order, `columns` are their places in `matrix`."""

    ids: list[str]
    columns: NDArray[np.int64]
    matrix: Matrix
    id_column: str | None = "index"


@dataclass
class Atlas:
    """The parts of one export; arrays hold real numbers and sparse matrices are sound, as sources give them.

    Attributes
    ----------
    n_cells
        Number of cells.
    embeddings
        Dimension to raw coordinates, (n_cells, dimension).
    latent
        (n_cells, d); None leaves every outlier quantile missing.
    obs
        Key to column, in the order of the table.
    vectors
        Field id to dimension to raw displacements, (n_cells, dimension).
    """

    n_cells: int
    embeddings: dict[int, Array]
    latent: Array | None
    obs: list[tuple[str, Column]]
    genes: Genes | None = None
    graph: Matrix | None = None
    vectors: dict[str, dict[int, Array]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str, str]] = field(default_factory=list)


def group_vectors(
    fields: Mapping[str, Array], dimensions: Mapping[int, Array], problems: Problems, warnings: list[str]
) -> dict[str, dict[int, Array]]:
    """Vector fields by id and dimension.

    ``<id>_2d`` says its dimension, any other key has it from its columns and gives way to a key
    that says so (the rules of cellucid 0.0.9). Dimensions without an embedding are left out.
    """
    grouped: dict[str, dict[int, Array]] = {}
    for explicit in (True, False):
        for key, array in fields.items():
            match = _EXPLICIT.fullmatch(key)
            if (match is not None) is not explicit:
                continue
            columns = array.shape[1]
            dim = int(match[2]) if match else columns
            if dim != columns or columns not in layout.SHOWN_DIMENSIONS:
                wanted = f"{dim}" if match else "1, 2 or 3"
                problems.add(f"vector_fields[{key!r}]", f"has {columns} columns", f"it must have {wanted}")
            else:
                grouped.setdefault(match[1] if match else key, {}).setdefault(dim, array)
    for name, by_dim in grouped.items():
        for dim in sorted(set(by_dim) - set(dimensions)):
            warnings.append(f"vector field {name!r} in {dim}D is left out: there is no {dim}D embedding")
            del by_dim[dim]
    return {name: dict(sorted(by_dim.items())) for name, by_dim in grouped.items() if by_dim}


def check_atlas(atlas: Atlas, options: Options, *, case_sensitive: bool, problems: Problems) -> None:
    """Add everything that is wrong to `problems`; rename and merge what the options allow."""
    if not atlas.embeddings:
        problems.add("embeddings", "none was given", "pass X_umap_2d or X_umap_3d (--embedding)")
    if not 0 < atlas.n_cells <= _MAX_CELLS:
        problems.add("cells", f"there are {atlas.n_cells}", f"an export has 1 to {_MAX_CELLS} cells")
        return
    for dim, points in atlas.embeddings.items():
        _check_coordinates(points, atlas.n_cells, dim, f"X_umap_{dim}d", problems)
    if atlas.latent is not None:
        _check_coordinates(atlas.latent, atlas.n_cells, None, "latent_space", problems)
    for name, by_dim in atlas.vectors.items():
        if safe_name(name) != name:
            problems.add(f"vector field {name!r}", "has characters that files cannot have", f"use {safe_name(name)!r}")
        for dim, vectors in by_dim.items():
            _check_coordinates(vectors, atlas.n_cells, dim, f"vector field {name!r} {dim}D", problems)
    _check_obs(atlas, options, case_sensitive, problems)
    _check_genes(atlas, options, case_sensitive, problems)
    if atlas.graph is not None:
        _check_shape(atlas.graph, (atlas.n_cells, atlas.n_cells), "connectivities", problems)
    if 4 in atlas.embeddings:
        atlas.warnings.append("4D points are written, but the viewer may not show them")


def _check_coordinates(array: Array, n_cells: int, columns: int | None, where: str, problems: Problems) -> None:
    if array.ndim != 2 or array.shape[0] != n_cells or array.shape[1] != (columns or array.shape[1]):
        wanted = f"({n_cells}, {columns if columns is not None else 'any'})"
        problems.add(where, f"has the shape {array.shape}", f"it must be {wanted}: one row per cell")
        return
    bad = _non_finite_rows(array)
    if bad.size:
        remedy = "leave these cells out, or set them to a finite place"
        problems.add(where, f"{bad.size} cells are NaN or infinite, the first in rows {bad[:5].tolist()}", remedy)


def _non_finite_rows(array: Array) -> NDArray[np.int64]:
    if array.dtype.kind != "f":
        return np.empty(0, np.int64)
    found = []
    for start in range(0, array.shape[0], _CHECK_ROWS):
        block = array[start : start + _CHECK_ROWS]
        # A sum that is finite proves that all are; only a suspicious block is looked at value by value.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(block.sum())
        if suspicious:
            found.append(start + np.flatnonzero(~np.isfinite(block).all(axis=1)))
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _check_shape(matrix: Matrix, shape: tuple[int, int], where: str, problems: Problems) -> None:
    if tuple(matrix.shape) != shape:
        problems.add(where, f"has the shape {tuple(matrix.shape)}", f"it must be {shape}")


def _check_obs(atlas: Atlas, options: Options, case_sensitive: bool, problems: Problems) -> None:
    plan = plan_names(
        [key for key, _ in atlas.obs],
        where="obs columns",
        make_unique=options.make_unique,
        case_sensitive=case_sensitive,
        problems=problems,
    )
    _take_over(atlas, plan.renamed, plan.case_only, "obs column")
    checked: list[tuple[str, Column]] = []
    for key, (name, column) in zip(plan.keys, atlas.obs, strict=True):
        where = f"obs[{name!r}]"
        n_rows = column.codes.size if isinstance(column, Categorical) else column.values.size
        if n_rows != atlas.n_cells:
            problems.add(where, f"has {n_rows} values", f"there are {atlas.n_cells} cells")
        if isinstance(column, Categorical):
            checked.append((key, _check_categories(column, options, where, problems)))
        else:
            checked.append((key, column))
    atlas.obs = checked


def _check_categories(column: Categorical, options: Options, where: str, problems: Problems) -> Categorical:
    distinct = list(dict.fromkeys(column.categories))
    if len(distinct) < len(column.categories):
        if options.merge_equal_categories:
            place = {label: code for code, label in enumerate(distinct)}
            merged = np.array([place[label] for label in column.categories] + [-1])
            column = Categorical(merged[column.codes], distinct)
        else:
            counts = Counter(column.categories)
            repeated = [label for label in distinct if counts[label] > 1]
            remedy = "give them different names, or pass merge_equal_categories=True (--merge-equal-categories)"
            problems.add(where, f"several categories read the same as text: {listed(repeated)}", remedy)
    limit_dtype = "uint16" if options.obs_categorical_dtype == "auto" else options.obs_categorical_dtype
    limit = layout.MAX_CATEGORIES[layout.BITS_OF_DTYPE.get(limit_dtype, 16)]
    if len(column.categories) > limit:
        found = f"has {len(column.categories):,} categories; {limit_dtype} holds {limit:,}"
        remedy = "leave the column out, make it numeric" + (", or use 'uint16'" if limit_dtype == "uint8" else "")
        problems.add(where, found, remedy)
    return column


def _check_genes(atlas: Atlas, options: Options, case_sensitive: bool, problems: Problems) -> None:
    genes = atlas.genes
    if genes is None:
        return
    plan = plan_names(
        genes.ids, where="genes", make_unique=options.make_unique, case_sensitive=case_sensitive, problems=problems
    )
    _take_over(atlas, plan.renamed, plan.case_only, "gene")
    genes.ids = plan.keys
    _check_shape(genes.matrix, (atlas.n_cells, genes.matrix.shape[1]), "gene_expression", problems)


def _take_over(atlas: Atlas, renamed: list[tuple[str, str]], case_only: list[list[str]], kind: str) -> None:
    atlas.renamed += [(kind, old, new) for old, new in renamed]
    if case_only:
        shown = "; ".join(" / ".join(group) for group in case_only[:20])
        atlas.warnings.append(
            f"{len(case_only)} groups of {kind} names differ only by case; a copy of the export to a disk that does "
            f"not tell case apart (macOS, Windows) would mix them up: {shown}"
        )
