"""A script written for cellucid 0.0.9 runs when its import line names atlaswriter instead.

The calls are those of the original's documentation; letters as in the survey of it.
"""

import inspect
import json
import re
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter import check, open_export, prepare
from atlaswriter.errors import InputError
from atlaswriter.report import Report

from .viewer import Folder

N = 60


@pytest.fixture
def adata():
    """A small data set with everything that the documented calls look for."""
    rng = np.random.default_rng(0)
    points = rng.normal(size=(N, 3)).astype(np.float32)
    graph = sp.random(N, N, 0.1, format="csr", random_state=0, dtype=np.float32)
    return anndata.AnnData(
        X=sp.random(N, 5, 0.5, format="csr", random_state=1, dtype=np.float32),
        obs=pd.DataFrame(
            {
                "leiden": pd.Categorical(rng.choice(["0", "1", "2"], N)),
                "cell_type_lv1||protocol|lab": rng.choice(["T cell", "B cell"], N),
                "age": rng.integers(20, 80, N),
                "doublet": rng.random(N) < 0.1,
            },
            index=[f"cell{number}" for number in range(N)],
        ),
        var=pd.DataFrame({"gene_symbol": ["MS4A1", "CD3D", "NKG7", "LYZ", "GNLY"]}, index=[f"ENSG{i}" for i in range(5)]),
        obsm={
            "X_pca": rng.normal(size=(N, 10)).astype(np.float32),
            "X_umap": points[:, :2],
            "X_umap_1d": points[:, :1],
            "X_umap_2d": points[:, :2],
            "X_umap_3d": points,
            "velocity_umap_2d": points[:, 1:],
            "T_fwd_umap_1d": points[:, 2:],
            "T_fwd_umap_2d": points[:, 1:],
            "scvi": rng.normal(size=(N, 4)),
        },
        obsp={"connectivities": graph + graph.T},
    )


HEAD = "from pathlib import Path\nimport numpy as np\nimport pandas as pd\nfrom cellucid import prepare\n"

CALLS = {
    "A overview": """
umap = adata.obsm.get("X_umap")
prepare(
    latent_space=adata.obsm.get("X_pca", adata.obsm.get("X_umap_3d")),
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    connectivities=adata.obsp.get("connectivities"),
    X_umap_2d=adata.obsm.get("X_umap_2d", umap if umap.shape[1] == 2 else None),
    X_umap_3d=adata.obsm.get("X_umap_3d"),
    vector_fields={
        "velocity_umap_2d": adata.obsm.get("velocity_umap_2d"),
        "velocity_umap_3d": adata.obsm.get("velocity_umap_3d"),
    },
    out_dir="./exports/pbmc_demo",
    dataset_name="PBMC demo",
    dataset_id="pbmc_demo",
    compression=6,
    var_quantization=8,
    obs_continuous_quantization=8,
    force=True,
)
""",
    "A without graph and vectors": """
prepare(
    latent_space=adata.obsm.get("X_pca"),
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    connectivities=adata.obsp.get("no such graph"),
    X_umap_2d=adata.obsm.get("X_umap"),
    X_umap_3d=adata.obsm.get("no such embedding"),
    vector_fields={"velocity_umap_2d": None, "velocity_umap_3d": None},
    out_dir="./exports/pbmc_demo",
    force=True,
)
""",
    "B quick start": """
EXPORT_DIR = Path("exports") / "quick_start"
X_umap_2d = np.asarray(adata.obsm["X_umap"], dtype=np.float32)
prepare(
    latent_space=X_umap_2d,
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    X_umap_2d=X_umap_2d,
    out_dir=EXPORT_DIR,
    dataset_name="Quick start",
    compression=6,
    var_quantization=8,
    obs_continuous_quantization=8,
    obs_categorical_dtype="auto",
    force=True,
)
""",
    "B toy data": """
prepare(
    latent_space=np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32),
    obs=pd.DataFrame({"cluster": ["a", "b", "a"], "score": [0.1, 0.5, 0.9]}),
    var=pd.DataFrame(index=["G1", "G2"]),
    gene_expression=np.array([[0, 1], [2, 0], [0, 3]], dtype=np.float32),
    X_umap_2d=np.array([[0, 0], [1, 0], [0, 1]], dtype=np.float32),
    out_dir=Path("toy"),
    dataset_name="Toy",
    force=True,
)
""",
    "C api page": """
umap = adata.obsm["X_umap"]
prepare(
    latent_space=adata.obsm.get("X_pca", umap),
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    connectivities=adata.obsp.get("connectivities"),
    X_umap_2d=adata.obsm.get("X_umap_2d", umap if umap.shape[1] == 2 else None),
    X_umap_3d=adata.obsm.get("X_umap_3d", umap if umap.shape[1] == 3 else None),
    vector_fields={
        "velocity_umap_2d": adata.obsm.get("velocity_umap_2d"),
        "velocity_umap_3d": adata.obsm.get("velocity_umap_3d"),
        "T_fwd_umap_2d": adata.obsm.get("T_fwd_umap_2d"),
    },
    out_dir="./my_export",
    compression=6,
    var_quantization=8,
    obs_continuous_quantization=8,
)
""",
    "D minimal": """
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    X_umap_2d=adata.obsm["X_umap"],
    out_dir="./export",
    force=True,
)
""",
    "E after filtering": """
mask = adata.obs["age"] > 40
adata2 = adata[mask].copy()
prepare(
    latent_space=adata2.obsm["X_pca"],
    obs=adata2.obs,
    var=adata2.var,
    gene_expression=adata2.X,
    connectivities=adata2.obsp.get("connectivities"),
    X_umap_2d=adata2.obsm["X_umap"],
    out_dir="./export",
    force=True,
)
""",
    "F selections": """
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    obs_keys=["leiden", "age"],
    var=adata.var,
    var_gene_id_column="gene_symbol",
    gene_identifiers=["MS4A1", "LYZ"],
    gene_expression=adata.X,
    X_umap_2d=adata.obsm["X_umap_2d"],
    vector_fields={"velocity_umap_2d": adata.obsm["velocity_umap_2d"]},
    out_dir="./export",
    var_quantization=8,
    compression=6,
    force=True,
)
""",
    "F genes by index": """
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    var=adata.var,
    var_gene_id_column="index",
    gene_identifiers=["ENSG4", "ENSG0"],
    gene_expression=adata.X,
    X_umap_2d=adata.obsm["X_umap"],
    out_dir="./export",
)
""",
    "G while iterating": """
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    obs_keys=["leiden"],
    var=adata.var,
    gene_identifiers=adata.var_names[:2],
    gene_expression=adata.X,
    X_umap_2d=adata.obsm["X_umap"],
    out_dir="./export",
    compression=None,
    force=True,
)
""",
    "H identity": """
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    X_umap_2d=adata.obsm["X_umap"],
    out_dir="./exports/pbmc_10k_v1",
    dataset_name="PBMC 10k (v1)",
    dataset_id="pbmc_10k_v1",
    dataset_description="Healthy donor",
    source_name="10x Genomics",
    source_url="https://www.10xgenomics.com",
)
""",
    "I quantization notebook": """
out_dir = Path("exports") / "my_dataset"
prepare(
    latent_space=adata.obsm.get("X_pca"),
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    var_gene_id_column="index",
    connectivities=adata.obsp["connectivities"] if "connectivities" in adata.obsp else None,
    X_umap_2d=np.asarray(adata.obsm["X_umap"]),
    out_dir=out_dir,
    force=False,
    dataset_name="My dataset",
    dataset_description="Exported with quantization",
    dataset_id="my_dataset",
    var_quantization=8,
    obs_continuous_quantization=8,
    obs_categorical_dtype="auto",
    compression=6,
)
""",
    "J pseudotime notebook": """
out_dir = Path("exports/pseudotime")
(out_dir / "vectors").mkdir(parents=True)
(out_dir / "vectors" / "old.bin").write_bytes(b"old")
for path in sorted(out_dir.rglob("*"), reverse=True):
    path.unlink() if path.is_file() else path.rmdir()
genes = adata.var_names[:4].tolist()
adata_export = adata[:, genes].copy()
adata.obsm["X_umap_1d"] = adata.obsm["X_umap_2d"][:, :1].copy()
before = {key: value.copy() for key, value in adata.obsm.items()}
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    var=adata_export.var,
    gene_expression=adata_export.X,
    connectivities=adata.obsp["connectivities"],
    X_umap_1d=adata.obsm["X_umap_1d"],
    X_umap_2d=adata.obsm["X_umap_2d"],
    X_umap_3d=adata.obsm["X_umap_3d"],
    vector_fields={
        "T_fwd_umap_1d": adata.obsm.get("T_fwd_umap_1d"),
        "T_fwd_umap_2d": adata.obsm.get("T_fwd_umap_2d"),
        "T_fwd_umap_3d": adata.obsm.get("T_fwd_umap_3d"),
    },
    out_dir=out_dir,
    dataset_name="CellRank – pseudotime",
    source_name="CellRank",
    source_url="https://cellrank.readthedocs.io",
    source_citation="Lange et al.",
    compression=6,
    var_quantization=8,
    obs_continuous_quantization=8,
    force=True,
)
assert all(np.array_equal(adata.obsm[key], value) for key, value in before.items())
""",
    "K gallery notebook": """
available_umaps = {"2d": adata.obsm["X_umap_2d"], "3d": adata.obsm["X_umap_3d"]}
adata.obs["age"] = pd.to_numeric(adata.obs["age"], errors="coerce")
prepare(
    X_umap_1d=available_umaps.get("1d"),
    X_umap_2d=available_umaps.get("2d"),
    X_umap_3d=available_umaps.get("3d"),
    latent_space=adata.obsm["scvi"],
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    connectivities=adata.obsp["connectivities"],
    var_gene_id_column=None,
    gene_identifiers=None,
    centroid_outlier_quantile=0.90,
    centroid_min_points=10,
    force=False,
    var_quantization=8,
    obs_continuous_quantization=8,
    obs_categorical_dtype="auto",
    compression=6,
    out_dir=Path("exports") / "gallery",
    dataset_name="gallery",
    dataset_description="A gallery",
    source_name="Atlas",
    source_url="https://example.org",
)
""",
    "M vector field of a transition matrix": """
from cellucid.vector_fields import add_transition_drift_to_obsm
transitions = adata.obsp["connectivities"]
adata.obsm["T_fwd_umap_2d"] = np.asarray(transitions @ adata.obsm["X_umap"] - adata.obsm["X_umap"])
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    X_umap_2d=adata.obsm["X_umap"],
    vector_fields={"T_fwd_umap_2d": adata.obsm["T_fwd_umap_2d"]},
    out_dir="./export",
    dataset_id="drift",
    compression=6,
    var_quantization=8,
)
""",
}


def run(source, adata, monkeypatch, folder):
    """Execute a documented script with only its import line changed; the folders that it wrote."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    changed = (HEAD + source).replace("from cellucid import prepare", "from atlaswriter import prepare")
    exec(changed, {"adata": adata})
    return [path.parent for path in folder.rglob("dataset_identity.json")]


@pytest.mark.parametrize("call", CALLS)
def test_documented_call(call, adata, monkeypatch, tmp_path):
    (out,) = run(CALLS[call], adata, monkeypatch, tmp_path / "work")
    assert check(out).ok
    export = open_export(out)
    assert export.n_cells in (N, 3, (adata.obs["age"] > 40).sum())
    assert np.abs(export.points()).max() == 1


@pytest.mark.usefixtures("original")
@pytest.mark.parametrize("call", [call for call in CALLS if not call.startswith("M")])
def test_documented_call_means_the_same_to_the_original(call, adata, monkeypatch, tmp_path):
    """The same files, fields and genes."""
    (out,) = run(CALLS[call], adata.copy(), monkeypatch, tmp_path / "ours")
    from cellucid import prepare as original

    monkeypatch.setattr("atlaswriter.prepare", original, raising=False)
    (before,) = run(CALLS[call].replace("assert all(", "all("), adata.copy(), monkeypatch, tmp_path / "theirs")
    mine, other = Folder(out), Folder(before)
    assert mine.files() == other.files()
    assert (mine.var is None) == (other.var is None)
    if mine.var:
        assert mine.genes() == other.genes()
    for key in ("id", "name", "description", "embeddings"):
        assert mine.identity[key] == other.identity[key]
    assert mine.identity.get("source") == other.identity.get("source")
    assert mine.identity["stats"]["n_obs_fields"] == other.identity["stats"]["n_obs_fields"]
