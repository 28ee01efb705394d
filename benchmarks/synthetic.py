"""Atlases of any size for benchmarks, with the statistics that matter to a writer: quick, seeded, without biology."""

from __future__ import annotations

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy.sparse import csc_matrix, csr_matrix

N_TYPES, N_LATENT, NEIGHBORS = 20, 30, 15


def atlas(n_cells: int, n_genes: int, density: float = 0.07, seed: int = 0) -> AnnData:
    """An atlas with expression (CSR, float32), graph, latent space, 2D and 3D embedding and a few obs columns.

    Densities of genes are log-normal around `density`, as in real data: a few genes are nearly everywhere.
    """
    random = np.random.default_rng(seed)
    types = random.integers(N_TYPES, size=n_cells)
    centers = random.normal(0, 4, (N_TYPES, N_LATENT))
    latent = (centers[types] + random.normal(size=(n_cells, N_LATENT))).astype(np.float32)
    expression = expression_matrix(n_cells, n_genes, density, random)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical.from_codes(types, pd.Index([f"type {number}" for number in range(N_TYPES)])),
            "n_counts": np.asarray(expression.sum(axis=1)).ravel(),
            "score": random.normal(size=n_cells).astype(np.float32),
        },
        index=[f"cell-{number}" for number in range(n_cells)],
    )
    result = AnnData(expression, obs=obs, var=pd.DataFrame(index=[f"gene-{number}" for number in range(n_genes)]))
    result.obsm["X_pca"] = latent
    for dim in (2, 3):
        result.obsm[f"X_umap_{dim}d"] = latent[:, :dim].copy()
    result.obsp["connectivities"] = neighbor_graph(n_cells, random)
    return result


def expression_matrix(n_cells: int, n_genes: int, density: float, random: np.random.Generator) -> csr_matrix:
    """log1p of small counts scaled by the size of each cell; CSR, float32."""
    densities = np.minimum(density * random.lognormal(-0.5, 1.0, n_genes), 0.9)
    densities *= density / densities.mean()
    indices, sizes = [], np.zeros(n_genes, np.int64)
    for gene, share in enumerate(densities):
        rows = _sorted_sample(n_cells, share, random)
        indices.append(rows)
        sizes[gene] = rows.size
    rows = np.concatenate(indices)
    counts = random.geometric(0.6, rows.size).astype(np.float32)
    scales = random.lognormal(0.7, 0.4, n_cells).astype(np.float32)
    values = np.log1p(counts * scales[rows])
    return csc_matrix((values, rows, np.r_[0, np.cumsum(sizes)]), shape=(n_cells, n_genes)).tocsr()


def _sorted_sample(n: int, share: float, random: np.random.Generator) -> np.ndarray:
    """Each of 0..n-1 with probability `share`, ascending, in time of the result's size."""
    expected = n * share
    gaps = random.geometric(share, int(expected + 6 * np.sqrt(expected) + 10))
    rows = np.cumsum(gaps) - 1
    return rows[: np.searchsorted(rows, n)].astype(np.int32)


def neighbor_graph(n_cells: int, random: np.random.Generator) -> csr_matrix:
    """Each cell with 15 others not far from it in the order of cells, symmetric; float32 weights."""
    reach = random.integers(1, max(2, min(2000, n_cells // 2)), (n_cells, NEIGHBORS))
    others = (np.arange(n_cells)[:, None] + reach) % n_cells
    weights = random.random(others.size, dtype=np.float32) + np.float32(0.1)
    starts = np.arange(n_cells + 1) * NEIGHBORS
    graph = csr_matrix((weights, others.ravel(), starts), shape=(n_cells, n_cells))
    graph.sum_duplicates()
    return graph.maximum(graph.T).tocsr()
