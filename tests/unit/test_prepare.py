"""`prepare`: what it writes, that nothing but its arguments decides it, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter import check, open_export, prepare
from atlaswriter.engine import budget
from atlaswriter.errors import BudgetError, InputError, OutputError
from atlaswriter.formats.cellucid import genes, write
from atlaswriter.kernels._jit import Kernel
from atlaswriter.sinks.folder import FolderSink

N = 240


def example(**changed):
    """Arguments of one export with everything the format has."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "cell type": pd.Categorical(rng.choice(["T", "B", "NK/T"], N), categories=["T", "B", "NK/T", "unused"]),
            "score": rng.normal(size=N),
            "count": rng.integers(0, 1000, N),
            "flag": rng.random(N) < 0.3,
            "text": rng.choice(["x", "y"], N),
        },
        index=[f"cell{i}" for i in range(N)],
    )
    obs.loc["cell3", ["cell type", "score"]] = [None, np.nan]
    arguments = {
        "latent_space": rng.normal(size=(N, 6)).astype(np.float32),
        "obs": obs,
        "var": pd.DataFrame({"symbol": [f"S{i}" for i in range(30)]}, index=[f"gene{i}" for i in range(30)]),
        "gene_expression": sp.random(N, 30, 0.2, "csr", np.float32, rng=rng),
        "connectivities": sp.random(N, N, 0.03, "csr", rng=rng),
        "X_umap_2d": rng.normal(size=(N, 2)).astype(np.float32),
        "X_umap_3d": rng.normal(size=(N, 3)),
        "vector_fields": {"velocity_umap_2d": rng.normal(size=(N, 2)), "T_fwd_umap": rng.normal(size=(N, 3))},
        "created_at": "2026-01-02T03:04:05Z",
        "dataset_name": "example",
        "compression": 6,
        "var_quantization": 8,
        "workers": 2,
    }
    return arguments | changed


def contents(folder):
    """Every file of a folder, byte for byte."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def exported(out, **changed):
    prepare(**example(**changed), out_dir=out)
    return contents(out)


# ---------------------------------------------------------------- the same whatever the resources


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dense"])
@pytest.mark.parametrize("bits", [8, None])
def test_same_bytes_for_any_number_of_workers(tmp_path, form, bits):
    matrix = example()["gene_expression"]
    matrix = matrix.toarray() if form == "dense" else matrix.asformat(form)
    options = {"gene_expression": matrix, "var_quantization": bits, "obs_continuous_quantization": bits}
    first = exported(tmp_path / "1", workers=1, **options)
    assert len(first) > 40
    assert exported(tmp_path / "2", workers=2, **options) == first
    assert exported(tmp_path / "4", workers=4, **options) == first


@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
def test_same_bytes_for_any_form_of_the_matrix(tmp_path, quantizer):
    matrix = example()["gene_expression"]
    options = {"quantizer": quantizer, "compression": None}
    first = exported(tmp_path / "csr", gene_expression=matrix, **options)
    for name, other in {
        "csc": matrix.tocsc(),
        "dense": matrix.toarray(),
        "fortran": np.asfortranarray(matrix.toarray()),
        "float64": matrix.astype(np.float64),
        "big": matrix.toarray().astype(">f4"),
        "table": pd.DataFrame(matrix.toarray()),
    }.items():
        assert exported(tmp_path / name, gene_expression=other, **options) == first, name


def test_same_bytes_for_any_budget(tmp_path, monkeypatch):
    """Budgets from the smallest that works up, found by halving; a small one takes many batches."""
    monkeypatch.setattr(budget, "resident_memory", lambda: 2**30)
    monkeypatch.setattr(budget, "_OVERHEAD", 0)
    rooms = []
    original = genes.GeneWriter.run
    monkeypatch.setattr(
        genes.GeneWriter, "run", lambda self, choice: (rooms.append(choice.batch_room), original(self, choice))[1]
    )
    many = sp.random(N, 400, 0.5, "csr", np.float32, rng=np.random.default_rng(1))
    parts = {"gene_expression": many, "var": pd.DataFrame(index=range(400)), "connectivities": None}
    first = exported(tmp_path / "large", memory_budget=2**33, **parts)
    least, enough = 0, 2**26
    while enough - least > 4096:
        middle = (least + enough) // 2
        try:
            found = exported(tmp_path / str(middle), memory_budget=2**30 + middle, **parts)
        except BudgetError:
            least = middle
        else:
            assert found == first
            enough = middle
    assert min(rooms) < max(rooms) / 3
    for workers in (1, 4):
        assert exported(tmp_path / f"w{workers}", memory_budget=2**30 + 2 * enough, workers=workers, **parts) == first


def test_budget_too_small_names_one_that_works(tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "resident_memory", lambda: 2**30)
    with pytest.raises(BudgetError) as caught:
        prepare(**example(), out_dir=tmp_path / "out", memory_budget="1 GiB")
    assert list(tmp_path.iterdir()) == []
    named = re.search(r"smallest budget that works is about ([\d.]+ ?\w+)", str(caught.value))[1]
    prepare(**example(), out_dir=tmp_path / "out", memory_budget=named)


def test_source_date_epoch_makes_exports_reproducible(tmp_path, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    first = exported(tmp_path / "a", created_at=None)
    assert exported(tmp_path / "b", created_at=None) == first
    assert json.loads(first["dataset_identity.json"])["created_at"] == "2023-11-14T22:13:20Z"


# ---------------------------------------------------------------- inputs


def snapshot(value):
    """A deep copy of an argument that can be compared."""
    if sp.issparse(value):
        return [np.array(getattr(value, name)) for name in ("data", "indices", "indptr")]
    if isinstance(value, dict):
        return {key: snapshot(item) for key, item in value.items()}
    return value.copy() if hasattr(value, "copy") else value


@pytest.mark.parametrize("quantizer", ["nearest", "truncate"])
@pytest.mark.parametrize("bits", [8, None])
def test_inputs_are_not_modified(tmp_path, quantizer, bits):
    arguments = example(quantizer=quantizer, var_quantization=bits, obs_continuous_quantization=bits, make_unique=True)
    graph = arguments["connectivities"]
    graph.indices[: graph.indptr[1]] = graph.indices[: graph.indptr[1]][::-1]  # unsorted
    graph.data[:3] = 0
    before = {name: snapshot(value) for name, value in arguments.items()}
    prepare(**arguments, out_dir=tmp_path / "out")
    for name, value in arguments.items():
        after = snapshot(value)
        if isinstance(after, pd.DataFrame):
            pd.testing.assert_frame_equal(after, before[name])
        else:
            np.testing.assert_equal(after, before[name])


def test_read_only_inputs(tmp_path):
    """As from np.load(mmap_mode="r"): the same result, and no kernel compiled anew for them."""
    expected = exported(tmp_path / "a")
    arguments = example()
    matrices = [arguments["gene_expression"], arguments["connectivities"]]
    arrays = [getattr(matrix, name) for matrix in matrices for name in ("data", "indices", "indptr")]
    arrays += [arguments["latent_space"], arguments["X_umap_2d"], arguments["X_umap_3d"]]
    for array in arrays:
        array.flags.writeable = False
    before = {one.name: one.undeclared() for one in Kernel.registry}
    prepare(**arguments, out_dir=tmp_path / "b")
    assert contents(tmp_path / "b") == expected
    assert {one.name: one.undeclared() for one in Kernel.registry} == before


def in_form(matrix, form):
    """A CSR matrix in another form."""
    if form == "csr64":
        result = matrix.copy()
        result.indices, result.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
        return result
    if form == "fortran":
        return np.asfortranarray(matrix.toarray())
    return matrix.astype(form) if form.startswith("f") or form == "i2" else matrix.asformat(form)


@pytest.fixture
def called(monkeypatch):
    """Kernels called for types that `warm_up` was not told of."""
    import numba
    from numba.core.sigutils import normalize_signature

    announced, called = set(), set()
    original_warm, original_call = write.warm_up, Kernel.__call__

    def key(name, types):
        arrays = [kind for kind in types if isinstance(kind, numba.types.Array)]
        return name, tuple((str(kind.dtype), kind.ndim, kind.layout, kind.mutable) for kind in arrays)

    def warm_up(wanted):
        wanted = list(wanted)
        announced.update(key(one.name, normalize_signature(types)[0]) for one, types in wanted)
        original_warm(wanted)

    def call(self, *arguments):
        called.add(key(self.name, [numba.typeof(argument) for argument in arguments]))
        return original_call(self, *arguments)

    monkeypatch.setattr(write, "warm_up", warm_up)
    monkeypatch.setattr(Kernel, "__call__", call)
    return lambda: called - announced


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dense", "fortran", "csr64", "f8", "i2"])
@pytest.mark.parametrize(("quantizer", "bits"), [("nearest", 8), ("nearest", 16), ("truncate", 8), ("nearest", None)])
def test_every_kernel_that_is_called_was_announced(tmp_path, called, form, quantizer, bits):
    """Otherwise it would be compiled in the middle of the work."""
    options = {"quantizer": quantizer, "var_quantization": bits, "obs_continuous_quantization": bits}
    matrix = in_form(example()["gene_expression"], form)
    prepare(**example(gene_expression=matrix, **options), out_dir=tmp_path / "out")
    assert called() == set()


@pytest.mark.parametrize("form", ["csr", "csc", "coo", "dense", "fortran", "csr64", "f8", "i2"])
def test_every_kernel_for_the_graph_was_announced(tmp_path, called, form):
    graph = example()["connectivities"]
    graph.data[:] = 1
    prepare(**example(connectivities=in_form(graph, form), gene_expression=None), out_dir=tmp_path / "out")
    assert called() == set()
    prepare(**example(connectivities=graph, gene_expression=None), out_dir=tmp_path / "twin")
    assert contents(tmp_path / "out") == contents(tmp_path / "twin")


# ---------------------------------------------------------------- contents


@pytest.mark.parametrize("compression", [None, 0, 1, 9])
@pytest.mark.parametrize("bits", [None, 8, 16])
def test_everything_comes_back(tmp_path, compression, bits):
    arguments = example(compression=compression, var_quantization=bits, obs_continuous_quantization=bits)
    report = prepare(**arguments, out_dir=tmp_path / "out")
    result = check(tmp_path / "out")
    assert result.ok, str(result)
    export = open_export(tmp_path / "out")
    assert export.n_cells == N
    assert list(export.genes) == list(arguments["var"].index)
    assert list(export.obs_keys) == ["score", "count", "cell type", "flag", "text"]
    steps = {None: 1e-6, 8: 1 / 254, 16: 1 / 65534}[bits]
    dense = arguments["gene_expression"].toarray()
    for column, gene in enumerate(export.genes):
        np.testing.assert_allclose(export.gene(gene), dense[:, column], atol=steps / 1.9)
    score = arguments["obs"]["score"].to_numpy()
    np.testing.assert_allclose(export.obs("score"), score, atol=np.nanmax(np.abs(score)) * steps * 1.01)
    types = export.obs("cell type")
    assert list(types.cat.categories) == ["T", "B", "NK/T", "unused"]
    assert types.isna().to_numpy().nonzero()[0].tolist() == [3]
    assert (types.astype(object).dropna().to_numpy() == arguments["obs"]["cell type"].dropna().to_numpy()).all()
    assert list(export.obs("flag").astype(str)) == [str(flag) for flag in arguments["obs"]["flag"]]
    graph = arguments["connectivities"]
    pairs = sp.triu(graph + graph.T, k=1).tocsr()
    pairs.sort_indices()
    np.testing.assert_array_equal(np.stack(export.edges()), np.stack(pairs.nonzero()))
    assert export.vector_fields == {"velocity_umap": [2], "T_fwd_umap": [3]}
    assert (report.files, report.bytes_out) == (
        len(contents(tmp_path / "out")),
        sum(len(content) for content in contents(tmp_path / "out").values()),
    )


def test_report_tells_what_was_written(tmp_path):
    report = prepare(**example(), out_dir=tmp_path / "out")
    shown = report.contents
    assert (shown["cells"], shown["genes"], shown["embeddings"]) == (N, 30, ["2D", "3D"])
    assert sorted(shown["obs fields"]) == ["cell type", "count", "flag", "score", "text"]
    assert shown["vector fields"] == ["velocity_umap", "T_fwd_umap"] or set(shown["vector fields"]) == {
        "velocity_umap",
        "T_fwd_umap",
    }
    assert shown["edges"] == open_export(tmp_path / "out").n_edges
    assert report.output == str(tmp_path / "out")
    assert report.seconds > 0
    assert report.bytes_in > 0
    assert report.peak_memory > 2**20
    assert {phase.name for phase in report.phases} >= {"check", "write", "publish"}
    assert any("score" in warning and "missing" in warning for warning in report.warnings)
    json.loads(report.to_json())


def test_4d_points(tmp_path):
    points = np.random.default_rng(1).normal(size=(N, 4))
    report = prepare(
        **example(X_umap_4d=points, X_umap_2d=None, X_umap_3d=None, vector_fields=None), out_dir=tmp_path / "o"
    )
    identity = json.loads((tmp_path / "o" / "dataset_identity.json").read_text())
    assert identity["embeddings"]["available_dimensions"] == [4]
    assert (tmp_path / "o" / "points_4d.bin.gz").is_file()
    assert any("4D" in warning for warning in report.warnings)


def test_genes_by_name_and_order(tmp_path):
    prepare(**example(gene_identifiers=["S7", "S2"], var_gene_id_column="symbol"), out_dir=tmp_path / "out")
    export = open_export(tmp_path / "out")
    assert list(export.genes) == ["S7", "S2"]
    dense = example()["gene_expression"].toarray()
    np.testing.assert_allclose(export.gene("S2"), dense[:, 2], atol=0.002)
    assert json.loads((tmp_path / "out" / "dataset_identity.json").read_text())["stats"]["n_genes"] == 2
    assert json.loads((tmp_path / "out" / "var_manifest.json").read_text())["var_gene_id_column"] == "symbol"


def test_obs_keys_choose_and_order(tmp_path):
    prepare(**example(obs_keys=["flag", "score"]), out_dir=tmp_path / "out")
    assert list(open_export(tmp_path / "out").obs_keys) == ["score", "flag"]


def test_without_genes_graph_and_vectors(tmp_path):
    arguments = example(gene_expression=None, var=None, connectivities=None, vector_fields=None)
    prepare(**arguments, out_dir=tmp_path / "out")
    assert check(tmp_path / "out").ok
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"dataset_identity.json", "obs_manifest.json", "obs", "points_2d.bin.gz", "points_3d.bin.gz"}


def test_custom_file_names(tmp_path):
    names = {
        "obs_manifest_filename": "o.json",
        "obs_binary_dirname": "o",
        "var_manifest_filename": "v.json",
        "var_binary_dirname": "v",
        "connectivity_manifest_filename": "c.json",
        "connectivity_binary_dirname": "c",
    }
    prepare(**example(**names), out_dir=tmp_path / "out")
    assert set(names.values()) < {path.name for path in (tmp_path / "out").iterdir()}
    var = json.loads((tmp_path / "out" / "v.json").read_text())
    assert var["_varSchema"]["pathPattern"].startswith("v/")
    prepare(**example(**names), out_dir=tmp_path / "out", force=True)


def test_make_unique_renames_and_reports(tmp_path):
    var = pd.DataFrame(index=["MATR3", "MATR3", "a/b", "a_b"] + [f"g{i}" for i in range(26)])
    obs = pd.DataFrame(np.arange(2 * N).reshape(N, 2), columns=["x", "x"])
    report = prepare(**example(var=var, obs=obs, make_unique=True), out_dir=tmp_path / "out")
    assert report.renamed == [("obs column", "x", "x-1"), ("gene", "MATR3", "MATR3-1"), ("gene", "a_b", "a_b-1")]
    export = open_export(tmp_path / "out")
    assert check(tmp_path / "out").ok
    dense = example()["gene_expression"].toarray()
    for column, gene in enumerate(["MATR3", "MATR3-1", "a/b", "a_b-1"]):
        np.testing.assert_allclose(export.gene(gene), dense[:, column], atol=0.002)
    assert list(export.obs("x-1"))[:3] == [1, 3, 5]


def test_equal_categories_can_be_merged(tmp_path):
    obs = pd.DataFrame({"mixed": pd.Categorical([1, "1", 2] * 80)})
    prepare(**example(obs=obs, merge_equal_categories=True), out_dir=tmp_path / "out")
    found = open_export(tmp_path / "out").obs("mixed")
    assert list(found.cat.categories) == ["1", "2"]
    assert list(found)[:3] == ["1", "1", "2"]
    assert check(tmp_path / "out").ok


def test_names_that_differ_by_case_are_written_with_a_warning(tmp_path):
    var = pd.DataFrame(index=["Pisd", "PISD"] + [f"g{i}" for i in range(28)])
    report = prepare(**example(var=var), out_dir=tmp_path / "out")
    assert any("Pisd / PISD" in warning for warning in report.warnings)
    assert check(tmp_path / "out").ok


def test_numpy_numbers_are_options_too(tmp_path):
    numbers = {
        "compression": np.int64(6),
        "var_quantization": np.int64(8),
        "centroid_min_points": np.int64(10),
        "centroid_outlier_quantile": np.float64(0.95),
    }
    assert exported(tmp_path / "a", **numbers) == exported(tmp_path / "b")


def test_no_centroids(tmp_path):
    prepare(**example(centroid_outlier_quantile=None), out_dir=tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "obs_manifest.json").read_text())
    assert all(dims == {"2": [], "3": []} for *_, dims in (field[:5] for field in manifest["_categoricalFields"]))


def test_vector_of_one_dimension_may_be_flat(tmp_path):
    line = np.linspace(0, 1, N)
    changed = {"X_umap_1d": line[:, None], "vector_fields": {"drift_umap": line}}
    prepare(**example(**changed), out_dir=tmp_path / "out")
    np.testing.assert_allclose(open_export(tmp_path / "out").vectors("drift_umap", 1).ravel(), line * 2, rtol=1e-6)


# ---------------------------------------------------------------- force and failure


def test_existing_export_needs_force(tmp_path):
    before = exported(tmp_path / "out")
    with pytest.raises(InputError, match="force"):
        prepare(**example(dataset_name="new"), out_dir=tmp_path / "out")
    assert contents(tmp_path / "out") == before
    prepare(**example(dataset_name="new", gene_expression=None, var=None), out_dir=tmp_path / "out", force=True)
    assert not (tmp_path / "out" / "var").exists()
    assert check(tmp_path / "out").ok


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize("failure", [KeyboardInterrupt, OSError("disk"), MemoryError])
@pytest.mark.parametrize("place", ["obs/score.", "var/gene7.", "connectivity/", "points_3d", "dataset_identity"])
def test_interruption_leaves_everything_as_it_was(tmp_path, monkeypatch, workers, existing, failure, place):
    target = tmp_path / "out"
    if existing:
        prepare(**example(dataset_name="old", connectivities=None), out_dir=target)
    before = contents(tmp_path)
    original = FolderSink.write

    def interrupted(self, relative, *buffers):
        if relative.startswith(place):
            raise failure
        return original(self, relative, *buffers)

    monkeypatch.setattr(FolderSink, "write", interrupted)
    with pytest.raises((KeyboardInterrupt, OSError, MemoryError)):
        prepare(**example(workers=workers), out_dir=target, force=True)
    assert contents(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if existing else [])
    monkeypatch.undo()
    prepare(**example(workers=workers), out_dir=target, force=True)
    assert check(target).ok


def test_output_below_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises((InputError, OutputError)):
        prepare(**example(), out_dir=tmp_path / "file" / "out")
    assert contents(tmp_path) == {"file": b"x"}


def test_default_folder_is_that_of_the_original():
    from inspect import signature

    assert signature(prepare).parameters["out_dir"].default == Path.cwd() / "exports"
