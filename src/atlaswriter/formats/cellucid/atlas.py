"""What one export is made of, wherever it came from."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import Problems
from atlaswriter.formats.cellucid import layout
from atlaswriter.sources.base import Array, Column, Matrix

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
    """The parts of one export; arrays hold real numbers and sparse matrices are sound, as sources give them.

    Attributes
    ----------
    n_cells
        Number of cells.
    embeddings
        Dimension to raw coordinates, (n_cells, dimension).
    latent
        (n_cells, d), dense or CSR; None leaves every outlier quantile missing.
    obs
        Key to column, in the order of the table.
    vectors
        Field id to dimension to raw displacements, (n_cells, dimension).
    """

    n_cells: int
    embeddings: dict[int, Array]
    latent: Matrix | None
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
