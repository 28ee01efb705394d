"""Every rule that what is exported must obey, looked at before anything is written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import Problems, listed
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.atlas import Atlas, Genes
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.points import BLOCK_ROWS, Frame
from atlaswriter.names import plan_names, safe_name
from atlaswriter.sinks import fs
from atlaswriter.sources.base import AnyArray, Categorical, Column, Compressed, Matrix, RowChunks, is_dense, row_blocks
from atlaswriter.sources.lazy import Derived

# Values of expression looked at together.
_CHECK_VALUES = 1 << 18
_MAX_CELLS = 2**32 - 1
_FLOAT32_MAX = float(np.finfo(np.float32).max)
_BEYOND = f"values beyond ±{_FLOAT32_MAX:.3g}, the largest the viewer can show"


def check_atlas(
    atlas: Atlas, options: Options, target: Path | None, problems: Problems, *, values: bool = True, frames: bool = True
) -> None:
    """Find the frames of the embeddings; rename and merge what the options allow.

    Parameters
    ----------
    atlas, options
        What is exported, and how.
    target
        Tells the file system that file names must suit; None when it is not known.
    problems
        Everything that is wrong is added here.
    values
        Whether numbers are looked at, for which everything but sparse float32 is read; they need not be twice.
    frames
        Whether frames are needed.
    """
    case_sensitive = target is None or fs.case_sensitive(target)
    if not atlas.embeddings and not any(problem.where == "embeddings" for problem in problems.found):
        problems.add("embeddings", "none was given", "pass X_umap_2d or X_umap_3d (--embedding)")
    if atlas.embeddings and not 0 < atlas.n_cells <= _MAX_CELLS:
        problems.add("cells", f"there are {atlas.n_cells}", f"an export has 1 to {_MAX_CELLS} cells")
    for dim, points in atlas.embeddings.items():
        where = f"X_umap_{dim}d"
        good = _check_coordinates(points, atlas.n_cells, dim, where, problems, values=values)
        if good and atlas.n_cells and frames:
            frame = problems.attempt(Frame.around, points, where)
            if frame is not None:
                atlas.frames[dim] = frame
    if atlas.latent is not None:
        _check_coordinates(atlas.latent, atlas.n_cells, None, "latent_space", problems, values=values)
    _check_vectors(atlas, case_sensitive, problems, values=values)
    _check_obs(atlas, options, case_sensitive, problems, values=values)
    _check_genes(atlas, options, case_sensitive, problems, values=values)
    if atlas.graph is not None:
        _check_shape(atlas.graph, (atlas.n_cells, atlas.n_cells), "connectivities", problems)
    if 4 in atlas.embeddings:
        alone = "" if len(atlas.embeddings) > 1 else "; without a 1D, 2D or 3D embedding it has nothing to show"
        atlas.warnings.append(f"4D points are written, but the viewer shows at most three dimensions{alone}")


def _check_vectors(atlas: Atlas, case_sensitive: bool, problems: Problems, *, values: bool) -> None:
    plan = plan_names(
        list(atlas.vectors),
        where="vector fields",
        make_unique=False,
        case_sensitive=case_sensitive,
        problems=problems,
    )
    _take_over(atlas, plan.renamed, plan.case_only, "vector field")
    for name, by_dim in atlas.vectors.items():
        if safe_name(name) != name:
            problems.add(f"vector field {name!r}", "has characters that files cannot have", f"use {safe_name(name)!r}")
        for dim, vectors in by_dim.items():
            where, frame = f"vector field {name!r} {dim}D", atlas.frames.get(dim)
            good = _check_coordinates(vectors, atlas.n_cells, dim, where, problems, values=values)
            if good and values and frame is not None:
                blocks = row_blocks(vectors, BLOCK_ROWS)
                largest = max((max(float(block.max()), -float(block.min())) for _, block in blocks), default=0.0)
                if largest / frame.half > _FLOAT32_MAX:
                    problems.add(where, "overflows float32 in the embedding's scale", "rescale it")


def _check_coordinates(
    array: AnyArray, n_cells: int, columns: int | None, where: str, problems: Problems, *, values: bool
) -> bool:
    """Whether the array can be used; what is wrong is added to `problems`."""
    if len(array.shape) != 2 or array.shape[0] != n_cells or array.shape[1] != (columns or array.shape[1]):
        wanted = f"({n_cells}, {columns if columns is not None else 'any'})"
        problems.add(where, f"has the shape {array.shape}", f"it must be {wanted}: one row per cell")
        return False
    n_bad, first = _non_finite_rows(array) if values else (0, [])
    if n_bad:
        remedy = "leave these cells out, or set them to a finite place"
        problems.add(where, f"{n_bad} cells are NaN or infinite, the first in rows {first}", remedy)
    return not n_bad


def _non_finite_rows(array: AnyArray) -> tuple[int, list[int]]:
    """How many rows are not finite, and the first of them."""
    n_bad, first = 0, list[int]()
    if array.dtype.kind != "f":
        return n_bad, first
    for start, block in row_blocks(array, BLOCK_ROWS):
        # A sum that is finite proves that all are; only a suspicious block is looked at value by value.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(block.sum())
        if suspicious:
            bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
            n_bad += bad.size
            first += (start + bad[: 5 - len(first)]).tolist()
    return n_bad, first


def _check_shape(matrix: Matrix, shape: tuple[int, int], where: str, problems: Problems) -> None:
    if tuple(matrix.shape) != shape:
        problems.add(where, f"has the shape {tuple(matrix.shape)}", f"it must be {shape}")


def _check_obs(atlas: Atlas, options: Options, case_sensitive: bool, problems: Problems, *, values: bool) -> None:
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
        if isinstance(column, Categorical):
            checked.append((key, _check_categories(column, options, where, problems)))
            continue
        checked.append((key, column))
        if values and any(places[0].size for _, places in _beyond_float32(column.values)):
            problems.add(where, _BEYOND, "rescale it, or leave it out")
    atlas.obs = checked


def _check_categories(column: Categorical, options: Options, where: str, problems: Problems) -> Categorical:
    distinct = list(dict.fromkeys(column.categories))
    if len(distinct) < len(column.categories):
        if options.merge_equal_categories:
            place = {label: code for code, label in enumerate(distinct)}
            merged = np.array([place[label] for label in column.categories] + [-1], np.int32)
            codes = column.codes
            column = Categorical(Derived([codes], codes.shape, merged.dtype, merged.__getitem__), distinct)
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


def _check_genes(atlas: Atlas, options: Options, case_sensitive: bool, problems: Problems, *, values: bool) -> None:
    genes = atlas.genes
    if genes is None:
        return
    plan = plan_names(
        genes.ids, where="genes", make_unique=options.make_unique, case_sensitive=case_sensitive, problems=problems
    )
    _take_over(atlas, plan.renamed, plan.case_only, "gene")
    genes.ids = plan.keys
    _check_shape(genes.matrix, (atlas.n_cells, genes.matrix.shape[1]), "gene_expression", problems)
    too_large = _genes_beyond_float32(genes) if values else []
    if too_large:
        problems.add(f"{len(too_large)} genes", f"{_BEYOND}: {listed(too_large)}", "rescale them, or leave them out")


def _beyond_float32(values: AnyArray) -> Iterator[tuple[int, tuple[NDArray[np.int64], ...]]]:
    """Places of finite values that float32 cannot hold, as `numpy.nonzero` in each block, and its first row."""
    if values.dtype.kind != "f" or values.dtype.itemsize <= 4:
        return
    rows = max(1, _CHECK_VALUES // max(1, int(np.prod(values.shape[1:]))))
    for first, values_there in row_blocks(values, rows):
        block = np.abs(values_there)
        yield first, np.nonzero((block > _FLOAT32_MAX) & (block < np.inf))


def _genes_beyond_float32(genes: Genes) -> list[str]:
    matrix, columns = genes.matrix, set[int]()
    if isinstance(matrix, Compressed) or is_dense(matrix):
        columns = _columns_beyond_float32(matrix)
    else:
        chunks = cast("RowChunks", matrix)
        for position in range(len(chunks.starts) - 1 if chunks.dtype == np.float64 else 0):
            columns |= _columns_beyond_float32(chunks.chunk(position))
    return [gene for gene, column in zip(genes.ids, genes.columns.tolist(), strict=True) if column in columns]


def _columns_beyond_float32(matrix: Compressed | AnyArray) -> set[int]:
    columns: set[int] = set()
    for first, places in _beyond_float32(matrix.data if isinstance(matrix, Compressed) else matrix):
        if not places[0].size:
            continue
        if not isinstance(matrix, Compressed):
            found = places[1]
        elif matrix.axis == 0:
            found = matrix.indices[first : first + int(places[0][-1]) + 1][places[0]]
        else:
            found = np.asarray(matrix.indptr[:]).searchsorted(first + places[0], "right") - 1
        columns.update(found.tolist())
    return columns


def _take_over(atlas: Atlas, renamed: list[tuple[str, str]], case_only: list[list[str]], kind: str) -> None:
    atlas.renamed += [(kind, old, new) for old, new in renamed]
    if case_only:
        shown = "; ".join(" / ".join(group) for group in case_only[:20])
        atlas.warnings.append(
            f"{len(case_only)} groups of {kind} names differ only by case; a copy of the export to a disk that does "
            f"not tell case apart (macOS, Windows) would mix them up: {shown}"
        )
