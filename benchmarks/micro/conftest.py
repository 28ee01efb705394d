"""What kernels and codecs are measured on: an atlas of 200,000 cells, of which 7 % have a gene."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from benchmarks import synthetic

from atlaswriter.engine.columns import SparseColumns
from atlaswriter.kernels._jit import Kernel
from atlaswriter.sources.memory import matrix_of

N_CELLS, N_GENES, DENSITY = 200_000, 100, 0.07


@pytest.fixture(scope="session")
def atlas() -> Any:
    """With expression, graph, latent space, embeddings and obs."""
    return synthetic.atlas(N_CELLS, N_GENES, DENSITY)


@pytest.fixture(scope="session")
def expression() -> Any:
    """CSR of enough genes that their columns do not fit a cache together."""
    return synthetic.expression_matrix(N_CELLS // 4, 20 * N_GENES, DENSITY, np.random.default_rng(0))


@pytest.fixture(scope="session")
def by_gene(expression: Any) -> Any:
    """The same in CSC."""
    return expression.tocsc()


@pytest.fixture(scope="session")
def graph(atlas: Any) -> Any:
    """Neighbours, symmetric."""
    return matrix_of(atlas.obsp["connectivities"], "graph")


@pytest.fixture(scope="session")
def column(atlas: Any) -> SparseColumns:
    """The gene whose density is nearest to that of the atlas."""
    genes = atlas.X.tocsc()
    gene = np.argmin(abs(np.diff(genes.indptr) - DENSITY * N_CELLS))
    part = slice(genes.indptr[gene], genes.indptr[gene + 1])
    offsets = np.array([0, part.stop - part.start])
    return SparseColumns(genes.indices[part].astype(np.uint32), genes.data[part], offsets)


@pytest.fixture(scope="session")
def whole(column: SparseColumns) -> Any:
    """That gene with its zeros, float32."""
    dense = np.zeros(N_CELLS, np.float32)
    dense[column.rows] = column.values
    return dense


@pytest.fixture(scope="session")
def codes(atlas: Any) -> Any:
    """Category of each cell, uint8."""
    return atlas.obs["cell_type"].cat.codes.to_numpy().astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def _as_declared() -> Iterator[None]:
    """Kernels are measured with the types that programs call them with."""
    yield
    undeclared = {one.name: found for one in Kernel.registry if (found := one.undeclared())}
    assert not undeclared
