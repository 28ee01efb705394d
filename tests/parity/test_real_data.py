"""Real data, exported by both programs."""

import importlib.util
from pathlib import Path

import anndata
import numpy as np
import pytest

from .compare import compare

pytestmark = [
    pytest.mark.usefixtures("original"),
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::anndata.OldFormatWarning"),
]

SMALL = [
    "bpcells_mini_mat_v0.7.h5ad",
    "cellbrowser_pbmc_small.h5ad",
    "cellxgene_nan.h5ad",
    "scvelo_pancreas_50obs_preprocessed.h5ad",
    "pbmc68k_reduced",
]
SETTINGS = [
    {},
    {"compression": 6},
    {"var_quantization": 8, "obs_continuous_quantization": 8, "compression": 6},
    {"var_quantization": 16, "obs_continuous_quantization": 16},
    {"var_quantization": 8, "obs_continuous_quantization": 8, "quantizer": "truncate"},
    {"var_quantization": 16, "obs_continuous_quantization": 16, "quantizer": "truncate", "compression": 6},
]


@pytest.fixture(scope="module")
def small(request, shared):
    """One of the small data sets, read once for all settings."""
    if request.param == "pbmc68k_reduced":
        path = Path(importlib.util.find_spec("scanpy").origin).parent / "datasets" / "10x_pbmc68k_reduced.h5ad"
    else:
        path = shared / "data" / "h5ad" / request.param
    return anndata.read_h5ad(path)


def embedding(adata):
    """Three dimensions made of what there is: a UMAP or t-SNE and a PCA; else a spiral."""
    spiral = np.arange(adata.n_obs)[:, None] * np.array([1.0, -0.5, 0.25]) + np.sin(np.arange(adata.n_obs))[:, None]
    flat = next((adata.obsm[key] for key in ("X_umap", "X_tsne", "X_pca") if key in adata.obsm), spiral)
    depth = adata.obsm["X_pca"][:, 2:3] if "X_pca" in adata.obsm else spiral[:, 2:]
    return np.hstack([flat[:, :2], depth])


def arguments(adata):
    """Everything that `prepare` takes of this data, in all three dimensions."""
    points = embedding(adata)
    moves = np.roll(points, 1, axis=0) - points
    return {
        "latent_space": next(iter(adata.obsm.values())),
        "obs": adata.obs,
        "var": adata.var,
        "gene_expression": adata.X,
        "connectivities": adata.obsp.get("connectivities"),
        "X_umap_1d": points[:, :1],
        "X_umap_2d": points[:, :2],
        "X_umap_3d": points,
        "vector_fields": {"velocity_umap_2d": moves[:, :2], "velocity_umap": moves.astype(np.float32)},
    }


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(map(str, settings.values())) or "plain")
@pytest.mark.parametrize("small", SMALL, indirect=True)
def test_small_data(small, settings, tmp_path):
    compare({**arguments(small), **settings}, tmp_path, real=True)


def test_selection_of_genes_and_columns(shared, tmp_path):
    adata = anndata.read_h5ad(shared / "data" / "h5ad" / "cellxgene_nan.h5ad")
    chosen = {
        "gene_identifiers": [*adata.var_names[[40, 3, 99]]],
        "obs_keys": ["louvain", "percent_mito"],
        "obs_categorical_dtype": "uint16",
        "centroid_outlier_quantile": 0.8,
        "centroid_min_points": 3,
        "source_name": "CELLxGENE",
        "dataset_description": "a ✓ fixture",
    }
    compare({**arguments(adata), **chosen}, tmp_path, real=True)


def test_xenium_pancreas(shared, tmp_path):
    """140,702 cells and 1.6 million edges, as the program is meant to be used."""
    adata = anndata.read_h5ad(shared / "data" / "xenium_pancreas.h5ad")
    given = {
        "latent_space": adata.obsm["X_pca"],
        "obs": adata.obs,
        "var": adata.var,
        "gene_expression": adata.X,
        "connectivities": adata.obsp["connectivities"],
        "X_umap_2d": adata.obsm["X_umap"],
        "X_umap_3d": adata.obsm["X_umap_3d"],
        "var_quantization": 8,
        "obs_continuous_quantization": 8,
        "compression": 6,
    }
    compare(given, tmp_path, genes=[*adata.var_names[::50]], real=True)
