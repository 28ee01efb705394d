"""A script written for cellucid 0.0.9 runs when its import line names atlaswriter instead.

The calls are those of the original's documentation; letters as in the survey of it.
"""

import inspect
import json
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter import check, open_export, prepare
from atlaswriter.errors import InputError
from atlaswriter.report import Report

from .compare import check_identity, quietly
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
        var=pd.DataFrame(
            {"gene_symbol": ["MS4A1", "CD3D", "NKG7", "LYZ", "GNLY"]}, index=[f"ENSG{i}" for i in range(5)]
        ),
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
from cellucid import add_transition_drift_to_obsm
key = add_transition_drift_to_obsm(adata, adata.obsp["connectivities"], basis="umap", dim=2, overwrite=True)
prepare(
    latent_space=adata.obsm["X_pca"],
    obs=adata.obs,
    var=adata.var,
    gene_expression=adata.X,
    X_umap_2d=adata.obsm["X_umap"],
    vector_fields={"T_fwd_umap_2d": adata.obsm[key]},
    out_dir="./export",
    dataset_id="drift",
    compression=6,
    var_quantization=8,
)
""",
}


def run(script, package, adata, monkeypatch, folder):
    """Execute a script in an empty folder, with `package` in its import line; the export it made."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    line = "from cellucid import prepare"
    assert script.count(line) == 1
    quietly(exec, script.replace(line, f"from {package} import prepare"), {"adata": adata.copy()})
    (identity,) = folder.rglob("dataset_identity.json")
    return identity.parent


@pytest.mark.usefixtures("original")
@pytest.mark.parametrize("call", CALLS)
def test_documented_call(call, adata, monkeypatch, tmp_path):
    """Only the import line differs; both make the same files of the same content."""
    mine = run(HEAD + CALLS[call], "atlaswriter", adata, monkeypatch, tmp_path / "ours")
    other = run(HEAD + CALLS[call], "cellucid", adata, monkeypatch, tmp_path / "theirs")
    assert check(mine).ok
    assert mine.relative_to(tmp_path / "ours") == other.relative_to(tmp_path / "theirs")
    check_identity(Folder(mine), Folder(other))
    assert Folder(mine).files() == Folder(other).files()
    export, before = open_export(mine), open_export(other)
    assert export.genes == before.genes
    assert export.obs_keys == before.obs_keys
    for dim in before.dimensions:
        np.testing.assert_allclose(export.points(dim), before.points(dim), rtol=0, atol=2e-6)
    for field, dims in before.vector_fields.items():
        for dim in dims:
            np.testing.assert_allclose(export.vectors(field, dim), before.vectors(field, dim), rtol=2e-6)
    for gene in before.genes:
        step = export.gene_entry(gene).step or 0
        np.testing.assert_allclose(export.gene(gene), before.gene(gene), rtol=1e-6, atol=1.001 * step)
    if before.n_edges is not None:
        np.testing.assert_array_equal(export.edges(), before.edges())


NEVER_WORKED = {
    "without latent space": 'prepare(obs=adata.obs, X_umap_2d=adata.obsm["X_umap"], out_dir="./export")',
    "latent space not there": """
prepare(latent_space=adata.obsm.get("no"), obs=adata.obs, X_umap_2d=adata.obsm["X_umap"], out_dir="./export")
""",
    "AnnData in place of arrays": 'prepare(adata, "./my_export")',
    "names of another version": 'prepare(adata, output_dir="./my_export", compress=True)',
    "embedding without a dimension": """
prepare(latent_space=adata.obsm["X_pca"], obs=adata.obs, X_umap=adata.obsm["X_umap"], out_dir="./export")
""",
}


@pytest.mark.usefixtures("original")
@pytest.mark.parametrize("call", NEVER_WORKED)
def test_documented_call_that_never_worked(call, adata, monkeypatch, tmp_path):
    """The same kind of error from both, but none of ours leaves a folder."""
    errors = {}
    for package in ("atlaswriter", "cellucid"):
        with pytest.raises((ValueError, TypeError)) as caught:
            run(HEAD + NEVER_WORKED[call], package, adata, monkeypatch, tmp_path / package)
        errors[package] = caught.value
    kind = TypeError if isinstance(errors["cellucid"], TypeError) else ValueError
    assert isinstance(errors["atlaswriter"], kind)
    assert not list((tmp_path / "atlaswriter").iterdir())


def test_signature(original):
    """Every parameter of the original, in its order, with its default; ours follow by keyword only."""
    mine = list(inspect.signature(prepare).parameters.values())
    other = list(inspect.signature(original.prepare).parameters.values())
    assert [(item.name, item.kind, item.default) for item in mine[: len(other)]] == [
        (item.name, item.kind, item.default) for item in other
    ]
    assert {item.kind for item in mine[len(other) :]} == {inspect.Parameter.KEYWORD_ONLY}


def test_default_folder(tmp_path):
    """exports/ in the folder that Python was started in."""
    script = """
import numpy as np, pandas as pd, os
from atlaswriter import prepare
points = np.arange(6.0).reshape(3, 2)
prepare(latent_space=points, obs=pd.DataFrame(index=range(3)), X_umap_2d=points)
"""
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True)
    assert check(tmp_path / "exports").ok


def minimal(**changes):
    points = np.random.default_rng(3).normal(size=(N, 2))
    table = pd.DataFrame({"score": np.arange(N, dtype=np.float32)})
    return {"latent_space": points, "obs": table, "X_umap_2d": points} | changes


def test_returns_a_report(tmp_path):
    report = prepare(out_dir=tmp_path / "export", **minimal())
    assert isinstance(report, Report)
    assert report.files == len(Folder(tmp_path / "export").files())


OPTIONAL = [
    name
    for name, item in inspect.signature(prepare).parameters.items()
    if item.default is None and name not in ("latent_space", "obs", "X_umap_2d")
]


def test_none_is_taken_for_every_optional_argument(tmp_path):
    """Also for those whose default is something else, where the documentation passes it."""
    everything = dict.fromkeys([*OPTIONAL, "var_gene_id_column", "centroid_outlier_quantile"])
    prepare(out_dir=tmp_path / "export", **minimal(**everything))
    assert check(tmp_path / "export").ok
    fields = minimal(vector_fields={"velocity_umap_2d": None}, X_umap_1d=None, X_umap_3d=None)
    prepare(out_dir=tmp_path / "vectors", **fields)
    assert "vector_fields" not in Folder(tmp_path / "vectors").identity


def test_second_call(tmp_path):
    """Refused without force and nothing touched; with force the whole folder is replaced."""
    out = tmp_path / "export"
    prepare(out_dir=out, compression=6, **minimal(connectivities=np.ones((N, N))))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="force=True"):
        prepare(out_dir=out, **minimal())
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before
    prepare(out_dir=out, force=True, **minimal())
    assert Folder(out).files() == [
        "dataset_identity.json",
        "obs/score.values.f32",
        "obs_manifest.json",
        "points_2d.bin",
    ]
    assert check(out).ok


@pytest.mark.parametrize(
    "changes",
    [
        {"latent_space": None},
        {"obs": None},
        {"X_umap_2d": None},
        {"X_umap_2d": np.zeros(N)},
        {"X_umap_2d": np.zeros((N, 3))},
        {"X_umap_3d": np.zeros((N + 1, 3))},
        {"latent_space": np.zeros((N + 1, 2))},
        {"obs": pd.DataFrame({"score": [1.0]})},
        {"gene_expression": np.zeros((N, 2))},
        {"gene_expression": np.zeros((N, 2)), "var": pd.DataFrame(index=["one"])},
        {"gene_expression": np.zeros((N + 1, 1)), "var": pd.DataFrame(index=["one"])},
        {"connectivities": sp.eye(N + 1, format="csr")},
        {"vector_fields": {"velocity_umap_2d": np.zeros((N + 1, 2))}},
        {"vector_fields": {"velocity_umap_2d": np.zeros((N, 3))}},
        {"vector_fields": {"velocity umap_2d": np.zeros((N, 2))}},
        {
            "obs": pd.DataFrame({"many": pd.Categorical.from_codes([0] * N, [str(i) for i in range(255)])}),
            "obs_categorical_dtype": "uint8",
        },
    ],
    ids=" ".join,
)
def test_promised_value_errors(original, tmp_path, changes):
    """What the documentation says is a ValueError is one here too."""
    for number, program in enumerate((original.prepare, prepare)):
        with pytest.raises(ValueError):
            quietly(program, out_dir=tmp_path / str(number), **minimal(**changes))
    assert not (tmp_path / "1").exists()


def test_list_of_datasets(original, tmp_path):
    """generate_datasets_manifest, which the original keeps in `prepare_data`."""
    gene = {"gene_expression": np.ones((N, 1)), "var": pd.DataFrame(index=["CD3E"])}
    for name in ("dataset_a", "dataset_b"):
        prepare(out_dir=tmp_path / name, dataset_name=f"Dataset {name[-1]}", **minimal(**gene))
    call = f"path = generate_datasets_manifest({str(tmp_path)!r}, default_dataset='Dataset_b')"
    lists = []
    for module in ("cellucid.prepare_data", "atlaswriter"):
        names = {}
        quietly(exec, f"from {module} import generate_datasets_manifest\n{call}", names)
        assert names["path"] == tmp_path / "datasets.json"
        lists.append(json.loads(names["path"].read_text()))
    assert lists[0] == lists[1]
    assert [entry["id"] for entry in lists[1]["datasets"]] == ["Dataset_a", "Dataset_b"]
