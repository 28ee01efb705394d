"""`cellucid`: from an AnnData in memory or on disk, by name or as the caller says."""

import json
import logging

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter import cellucid, check, open_export, prepare
from atlaswriter.engine import budget, warmup
from atlaswriter.engine.warmup import announce
from atlaswriter.errors import BudgetError, InputError
from atlaswriter.formats.cellucid import write
from atlaswriter.kernels import crc
from atlaswriter.kernels._jit import Kernel

N = 120


def example(dtype=np.float32):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {"type": pd.Categorical(rng.choice(["T", "B"], N)), "n": rng.integers(0, 9, N), "batch": ["x", "y"] * (N // 2)},
        index=[f"c{i}" for i in range(N)],
    )
    var = pd.DataFrame({"symbol": [f"S{i}" for i in range(12)]}, index=[f"g{i}" for i in range(12)])
    adata = anndata.AnnData(sp.random(N, 12, 0.3, "csr", dtype, rng=rng), obs, var)
    adata.layers["counts"] = sp.random(N, 12, 0.3, "csc", dtype, rng=rng)
    adata.obsm["X_umap"] = rng.normal(size=(N, 2)).astype(dtype)
    adata.obsm["X_umap_3d"] = rng.normal(size=(N, 3)).astype(dtype)
    adata.obsm["X_tsne"] = rng.normal(size=(N, 2)).astype(dtype)
    adata.obsm["X_pca"] = rng.normal(size=(N, 5)).astype(dtype)
    adata.obsm["X_scVI"] = rng.normal(size=(N, 4)).astype(dtype)
    adata.obsm["velocity_umap"] = rng.normal(size=(N, 2)).astype(dtype)
    adata.obsp["connectivities"] = sp.random(N, N, 0.05, "csr", dtype, rng=rng)
    adata.obsp["other"] = sp.eye(N, k=1, format="csr")
    adata.raw = anndata.AnnData(
        sp.random(N, 15, 0.3, "csr", dtype, rng=rng), var=pd.DataFrame(index=[f"r{i}" for i in range(15)])
    )
    return adata


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def exported(source, out, **options):
    return cellucid(source, out, created_at="then", dataset_name="x", **{"workers": 2, **options}), contents(out)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stored")
    example().write_zarr(folder / "a.zarr")
    example().write_h5ad(folder / "a.h5ad", compression="gzip")
    return folder


@pytest.fixture(params=["memory", "h5ad", "zarr", "backed"])
def source(request, stored):
    """The same AnnData in every place it can live in."""
    if request.param == "memory":
        return example()
    if request.param == "backed":
        return anndata.read_h5ad(stored / "a.h5ad", backed="r")
    return stored / f"a.{request.param}"


def test_everything_is_found_and_the_same_from_everywhere(source, tmp_path):
    report, files = exported(source, tmp_path / "out")
    assert files == exported(example(), tmp_path / "memory")[1]
    assert check(tmp_path / "out").ok
    shown = report.contents
    assert shown["chosen embeddings"] == ["X_umap (2D)", "X_umap_3d (3D)"]
    assert (shown["latent space"], shown["graph"], shown["expression"]) == ("X_scVI", "connectivities", "X")
    assert shown["vector fields"] == ["velocity_umap"]
    assert (shown["cells"], shown["genes"]) == (N, 12)


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 4}, {"memory_budget": 2**40}])
def test_same_bytes_for_any_resources(tmp_path, options):
    assert exported(example(), tmp_path / "a", **options)[1] == exported(example(), tmp_path / "b")[1]


def test_same_bytes_as_prepare(tmp_path):
    adata = example()
    files = exported(adata, tmp_path / "a")[1]
    prepare(
        latent_space=adata.obsm["X_scVI"],
        obs=adata.obs,
        var=adata.var,
        gene_expression=adata.X,
        connectivities=adata.obsp["connectivities"],
        out_dir=tmp_path / "b",
        X_umap_2d=adata.obsm["X_umap"],
        X_umap_3d=adata.obsm["X_umap_3d"],
        vector_fields={"velocity_umap": adata.obsm["velocity_umap"]},
        var_quantization=8,
        obs_continuous_quantization=8,
        compression=6,
        dataset_name="x",
        created_at="then",
    )
    assert contents(tmp_path / "b") == files


def test_source_is_not_modified(tmp_path):
    adata, twin = example(), example()
    cellucid(adata, tmp_path / "out", quantizer="truncate", var_quantization=None)
    for name in ("X_umap", "X_scVI", "velocity_umap"):
        np.testing.assert_array_equal(adata.obsm[name], twin.obsm[name])
    pd.testing.assert_frame_equal(adata.obs, twin.obs)
    assert (adata.X != twin.X).nnz == 0
    assert (adata.obsp["connectivities"] != twin.obsp["connectivities"]).nnz == 0


@pytest.mark.parametrize(
    ("options", "matrix", "genes"),
    [
        ({}, lambda a: a.X, "g"),
        ({"layer": "counts"}, lambda a: a.layers["counts"], "g"),
        ({"use_raw": True}, lambda a: a.raw.X, "r"),
        ({"gene_names": "symbol"}, lambda a: a.X, "S"),
    ],
)
def test_expression_is_chosen(source, tmp_path, options, matrix, genes):
    report, _ = exported(source, tmp_path / "out", var_quantization=None, **options)
    export = open_export(tmp_path / "out")
    dense = matrix(example()).toarray()
    assert list(export.genes) == [f"{genes}{i}" for i in range(dense.shape[1])]
    np.testing.assert_array_equal(np.stack([export.gene(gene) for gene in export.genes], axis=1), dense)
    assert report.contents["expression"] == {"S": "X", "r": "raw.X"}.get(genes, "layer counts" if options else "X")


def test_genes_are_chosen(tmp_path):
    cellucid(example(), tmp_path / "out", genes=["S5", "S1"], gene_names="symbol", var_quantization=None)
    export = open_export(tmp_path / "out")
    assert list(export.genes) == ["S5", "S1"]
    np.testing.assert_array_equal(export.gene("S1"), example().X.toarray()[:, 1])
    assert json.loads((tmp_path / "out" / "var_manifest.json").read_text())["var_gene_id_column"] == "symbol"


def test_no_genes(tmp_path):
    report = cellucid(example(), tmp_path / "out", genes=False)
    assert not (tmp_path / "out" / "var").exists()
    assert report.contents["expression"] == "none"
    assert report.contents["genes"] == 0


def test_no_expression_matrix(tmp_path):
    adata = example()
    adata.X = None
    cellucid(adata, tmp_path / "out")
    assert not (tmp_path / "out" / "var").exists()
    with pytest.raises(InputError, match="counts"):
        cellucid(adata, tmp_path / "other", genes=["g1"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, ["n", "type", "batch"]),
        ({"obs": ["batch", "n"]}, ["n", "batch"]),
        ({"exclude_obs": ["type"]}, ["n", "batch"]),
        ({"obs": ["batch", "n"], "exclude_obs": ["n"]}, ["batch"]),
        ({"obs": []}, []),
    ],
)
def test_obs_columns_are_chosen(source, tmp_path, options, expected):
    cellucid(source, tmp_path / "out", **options)
    assert list(open_export(tmp_path / "out").obs_keys) == expected
    assert check(tmp_path / "out").ok


def test_columns_left_out_may_be_unfit(tmp_path):
    adata = example()
    adata.obs["date"] = pd.date_range("2020", periods=N)
    with pytest.raises(InputError, match="date"):
        cellucid(adata, tmp_path / "out")
    cellucid(adata, tmp_path / "out", exclude_obs=["date"])


@pytest.mark.parametrize(
    ("embeddings", "expected"),
    [(["X_tsne"], {2: "X_tsne"}), ({"2d": "X_tsne", "3d": "X_umap_3d"}, {2: "X_tsne", 3: "X_umap_3d"})],
)
def test_embeddings_are_chosen(tmp_path, embeddings, expected):
    cellucid(example(), tmp_path / "out", embeddings=embeddings)
    export = open_export(tmp_path / "out")
    assert list(export.dimensions) == list(expected)
    for dim, key in expected.items():
        raw = example().obsm[key]
        points = export.points(dim)
        # The same up to one scale and shift.
        spread = np.ptp(raw, axis=0) / np.ptp(points, axis=0)
        np.testing.assert_allclose(spread, spread[0], rtol=1e-5)
        np.testing.assert_allclose((points - points[0]) * spread[0], raw - raw[0], atol=1e-5)


def test_vectors_latent_and_graph_are_chosen(tmp_path):
    options = {"latent": "X_pca", "graph": "other", "vector_fields": False}
    report = cellucid(example(), tmp_path / "out", **options)
    assert (report.contents["latent space"], report.contents["graph"]) == ("X_pca", "other")
    export = open_export(tmp_path / "out")
    assert export.vector_fields == {}
    assert [list(end) for end in export.edges()] == [list(range(N - 1)), list(range(1, N))]
    adata = example()
    prepare(
        latent_space=adata.obsm["X_pca"],
        obs=adata.obs,
        X_umap_2d=adata.obsm["X_umap"],
        obs_continuous_quantization=8,
        out_dir=tmp_path / "b",
    )
    np.testing.assert_array_equal(export.outliers("type"), open_export(tmp_path / "b").outliers("type"))


def test_nothing_that_can_be_left_out(tmp_path):
    report = cellucid(example(), tmp_path / "out", latent=False, graph=False, vector_fields=False, genes=False)
    export = open_export(tmp_path / "out")
    assert np.isnan(export.outliers("type")).all()
    assert export.n_edges is None
    assert any("latent" in warning for warning in report.warnings)
    assert check(tmp_path / "out").ok


def test_vector_field_without_its_embedding_is_said(tmp_path):
    adata = example()
    adata.obsm["drift_umap_1d"] = np.ones((N, 1))
    report = cellucid(adata, tmp_path / "out", vector_fields=["drift_umap_1d"])
    assert any("drift_umap" in warning and "1D" in warning for warning in report.warnings)
    assert open_export(tmp_path / "out").vector_fields == {}


def test_budget_too_small_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "resident_memory", lambda: 2**30)
    with pytest.raises(BudgetError, match="memory_budget="):
        cellucid(example(), tmp_path / "out", memory_budget=2**30 + 1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", [False, True])
def test_interruption_leaves_everything_as_it_was(tmp_path, monkeypatch, existing):
    if existing:
        cellucid(example(), tmp_path / "out", genes=False)
    before = contents(tmp_path)

    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "_write_table_manifests", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cellucid(example(), tmp_path / "out", force=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("options", [{}, {"graph": False, "vector_fields": False}, {"genes": False}])
def test_first_run_compiles_what_it_needs_and_says_so_once(tmp_path, monkeypatch, caplog, dtype, options):
    """As on a new machine: every kernel is pretended to be compiled when it is first prepared."""
    prepared, called = set(), set()
    original_compile, original_call = Kernel.compile, Kernel.__call__

    def compile_(self, signature):
        original_compile(self, signature)
        new = (self.name, signature) not in prepared
        prepared.add((self.name, signature))
        return new

    def call(self, *arguments):
        called.add(self.name)
        return original_call(self, *arguments)

    warmup.announce.cache_clear()
    monkeypatch.setattr(Kernel, "compile", compile_)
    monkeypatch.setattr(Kernel, "__call__", call)
    announce.cache_clear()
    crc.powers.cache_clear()
    atlas = example(dtype)
    atlas.X = sp.csr_array(np.where(np.arange(12) == 3, 1, atlas.X.toarray()).astype(dtype))  # one gene is everywhere
    with caplog.at_level(logging.INFO, logger="atlaswriter"):
        cellucid(atlas, tmp_path / "out", **options)
    said = [message for message in caplog.messages if message.startswith("compiling kernels")]
    assert len(said) == 1
    # What only some graphs, and categories that fill a whole room, need.
    rest = {f"edges.{name}" for name in ("rows_ascend", "sort_rows", "take_upper", "count_below", "make_starts")}
    rest |= {"edges.place_below", "edges.merge", "groups.sort", "groups.regroup", "groups.merge_ranks"}
    assert {name for name, _ in prepared} - called <= rest
    assert called <= {name for name, _ in prepared}


def test_report(tmp_path):
    example().write_h5ad(tmp_path / "a.h5ad")
    report = cellucid(tmp_path / "a.h5ad", tmp_path / "out")
    assert report.contents["source"] == str(tmp_path / "a.h5ad")
    assert report.phases[1].name == "read"
    assert report.files == len(contents(tmp_path / "out"))
    assert "X_umap (2D)" in str(report)
