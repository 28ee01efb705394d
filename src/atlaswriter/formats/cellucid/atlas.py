"""What one export is made of, wherever it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.record import Record
from atlaswriter.engine.resources import Resources
from atlaswriter.errors import Problems
from atlaswriter.formats.cellucid import layout
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.points import Frame
from atlaswriter.report import Report
from atlaswriter.sources.base import AnyArray, Column, Continuous, Matrix

_EXPLICIT = re.compile(r"(.*)_([123])d")


@dataclass
class Genes:
    """Expression to export: `ids` are written in this order, `columns` are their places in `matrix`."""

    ids: list[str]
    columns: NDArray[np.int64]
    matrix: Matrix
    id_column: str | None = "index"


@dataclass
class Atlas:
    """The parts of one export, any of them lazy.

    Arrays hold real numbers and sparse matrices are sound, as sources give them.

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
    frames
        Dimension to the frame of its embedding; known once the atlas was checked.
    """

    n_cells: int
    embeddings: dict[int, AnyArray]
    latent: AnyArray | None
    obs: list[tuple[str, Column]]
    genes: Genes | None = None
    graph: Matrix | None = None
    vectors: dict[str, dict[int, AnyArray]] = field(default_factory=dict)
    frames: dict[int, Frame] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Export:
    """An export that has been checked, about to be planned or written.

    Attributes
    ----------
    atlas, options, target, resources
        What, how and where to, with what.
    budget
        What it may cost in memory; arrays that the atlas keeps are drawn from it already.
    report
        Begun; closed at the end.
    record
        What it is made of; None where that cannot be told.
    """

    atlas: Atlas
    options: Options
    target: Path
    resources: Resources
    budget: Budget
    report: Report
    record: Record | None = None


def keep_arrays(atlas: Atlas, budget: Budget, workers: int) -> None:
    """Read into memory what is small beside the budget and used more than once."""
    for arrays in (atlas.embeddings, *atlas.vectors.values()):
        for dim, array in arrays.items():
            arrays[dim] = budget.keep(array, workers)
    if atlas.latent is not None:
        atlas.latent = budget.keep(atlas.latent, workers)
    atlas.obs = [
        (key, replace(column, values=budget.keep(column.values, workers)))
        if isinstance(column, Continuous)
        else (key, replace(column, codes=budget.keep(column.codes, workers)))
        for key, column in atlas.obs
    ]


def group_vectors(
    fields: Mapping[str, AnyArray], dimensions: Mapping[int, AnyArray], problems: Problems, warnings: list[str]
) -> dict[str, dict[int, AnyArray]]:
    """Vector fields by id and dimension.

    ``<id>_2d`` says its dimension, any other key has it from its columns and gives way to a key
    that says so (the rules of cellucid 0.0.9). Dimensions without an embedding are left out.
    """
    grouped: dict[str, dict[int, AnyArray]] = {}
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
