"""Sources: in memory and on disk they give the same as AnnData itself."""

import os
import shutil
import subprocess
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr
from anndata.tests.helpers import assert_equal as assert_anndata_equal
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.sources import h5chunks, h5read
from atlaswriter.sources.base import Categorical, Compressed
from atlaswriter.sources.lazy import load
from atlaswriter.sources.memory import AnnDataSource, matrix_of
from atlaswriter.sources.open import open_source
from atlaswriter.sources.store import StoreSource

SHARED = Path(__file__).parents[2].parent / "shared"
# zarr 2 knows no other format.
V2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no test data at {SHARED}")
old_scipy = pytest.mark.skipif(sp.coo_array(np.ones(3)).ndim == 2, reason="scipy < 1.13 has no 1D sparse arrays")
OLD_AND_NEW = [
    ("scvelo_pancreas_50obs_preprocessed.h5ad", StoreSource),
    ("bpcells_mini_mat_v0.7.h5ad", AnnDataSource),
    ("cellbrowser_pbmc_small.h5ad", AnnDataSource),
    ("cellxgene_nan.h5ad", AnnDataSource),
]


def to_scipy(matrix):
    make = sp.csr_array if matrix.axis == 0 else sp.csc_array
    return make((load(matrix.data), load(matrix.indices), load(matrix.indptr)), shape=matrix.shape)


def dense(matrix):
    return to_scipy(matrix).toarray() if isinstance(matrix, Compressed) else load(matrix)


def everything(source):
    """All that a source offers, as plain values that can be compared."""
    found = {"n": source.n_cells, "columns": source.obs_columns(), "layers": sorted(source.layers())}
    found["obsp"] = sorted(source.obsp())
    found["obsm"] = dict(source.obsm())
    found["raw"] = source.has_raw()
    for raw in {False, source.has_raw()}:
        found["genes", raw] = source.gene_names(raw=raw)
        found["var", raw] = source.var_columns(raw=raw)
        found["X", raw] = source.expression(raw=raw)
    for name in source.obs_columns():
        column = source.obs(name)
        if isinstance(column, Categorical):
            found["obs", name] = (load(column.codes).tolist(), column.categories)
        else:
            found["obs", name] = load(column.values)
    found.update({("layer", name): source.expression(layer=name) for name in source.layers()})
    found.update({("obsm", name): load(source.obsm_array(name)) for name in source.obsm()})
    found.update({("obsp", name): source.obsp_matrix(name) for name in source.obsp()})
    return found


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        if isinstance(value, Compressed):
            assert found[key].data.dtype == value.data.dtype, key
            assert (to_scipy(found[key]) != to_scipy(value)).nnz == 0, key
        elif isinstance(value, np.ndarray):
            assert found[key].dtype == value.dtype, key
            np.testing.assert_array_equal(found[key], value, err_msg=str(key))
        else:
            assert found[key] == value, key


def sparse(rng, rows, columns):
    return sp.csr_matrix(rng.random((rows, columns)) * (rng.random((rows, columns)) < 0.2))


def example():
    """An AnnData with every encoding that occurs in practice."""
    rng = np.random.default_rng(0)
    n, genes = 40, 12
    names = [f"cell{i}" for i in range(n)]
    obs = pd.DataFrame(index=names)
    obs["text"] = [["b", "a", "ü", "", "B"][i % 5] for i in range(n)]
    obs["declared"] = pd.Categorical(obs["text"].where(obs["text"] != "a"), categories=["ü", "unused", "b", "", "B"])
    obs["ordered"] = pd.Categorical([i % 3 for i in range(n)], categories=[2, 0, 1, 7], ordered=True)
    obs["halves"] = pd.Categorical(np.arange(n, dtype="f4") // 8 / 2)
    obs["flags"] = pd.Categorical(np.arange(n) % 2 == 0)
    obs["bool"] = np.arange(n) % 3 == 0
    obs["always"] = np.ones(n, bool)
    obs["maybe"] = pd.array([None, True, False, True] * 10, "boolean")
    obs["count"] = pd.array([None, 1, 2, 3] * 10, "Int16")
    obs["full"] = pd.array(range(n), "UInt8")
    for dtype in ("int8", "uint64", "float16", "float32", "float64"):
        obs[dtype] = rng.integers(0, 100, n).astype(dtype)
    obs["nan"] = np.where(np.arange(n) % 2, np.nan, 0.1)
    x = sparse(rng, n, genes).astype("f4")
    var = pd.DataFrame({"symbol": [f"s{i}" for i in range(genes)], "number": range(genes)})
    var.index = [f"gene{i}" for i in range(genes)]
    var["kind"] = pd.Categorical(["k1", "k2"] * 6)
    var["gaps"] = pd.Categorical(["k1", None] * 6)
    adata = anndata.AnnData(x, obs, var)
    adata.raw = adata[:, ::-1].copy()
    adata.layers["csc"] = x.tocsc()
    adata.layers["dense"] = np.asfortranarray(x.toarray().astype("f8"))
    adata.layers["bool"] = (x > 0).tocsr()
    adata.obsm["X_umap"] = rng.random((n, 2)).astype("f4")
    adata.obsm["cube"] = rng.random((n, 2, 2))
    adata.obsm["table"] = pd.DataFrame({"a": range(n), "b": pd.array(range(n), "Int8")}, index=names)
    adata.obsm["mixed"] = pd.DataFrame({"a": range(n), "b": ["x"] * n}, index=names)
    adata.obsm["sparse"] = sparse(rng, n, 3)
    adata.obsm["words"] = np.array([["w"]] * n)
    adata.obsp["graph"] = sparse(rng, n, n)
    adata.obsp["full"] = rng.random((n, n))
    return adata


def write(adata, path, **options):
    """Write as it is; `write_h5ad` would turn text into categories."""
    if path.suffix == ".h5ad":
        with h5py.File(path, "w") as file:
            anndata.io.write_elem(file, "/", adata, dataset_kwargs=options)
    elif path.suffix == ".zip":
        folder = write(adata, path.with_name("zipped.zarr"))
        shutil.move(shutil.make_archive(str(path), "zip", folder), path)
    else:
        group = zarr.open_group(str(path), mode="w", **({"zarr_format": 3} if path.stem == "v3" else V2))
        anndata.io.write_elem(group, "/", adata)
    return path


STORES = ["a.h5ad", "v2.zarr", *(["v3.zarr"] if V2 else []), "a.zarr.zip"]


# matrix_of


@pytest.mark.parametrize("make", [sp.csr_matrix, sp.csr_array, sp.csc_matrix, sp.csc_array])
def test_compressed_matrices_are_not_copied(make):
    x = make(np.eye(4, 3, dtype="f4"))
    matrix = matrix_of(x, "X")
    assert matrix.axis == (0 if x.format == "csr" else 1)
    assert matrix.shape == (4, 3)
    for part in ("indptr", "indices", "data"):
        assert np.shares_memory(getattr(matrix, part), getattr(x, part))


@pytest.mark.parametrize("format_", ["coo", "lil", "dok", "dia", "bsr"])
def test_other_sparse_formats_are_converted(format_):
    expected = np.arange(12.0).reshape(4, 3)
    for make in (sp.csr_matrix, sp.csr_array):
        matrix = matrix_of(make(expected).asformat(format_), "X")
        np.testing.assert_array_equal(dense(matrix), expected)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("wrap", [np.asarray, np.asmatrix])
def test_arrays_are_not_copied(order, wrap):
    x = np.arange(6.0).reshape(2, 3).copy(order)
    matrix = matrix_of(wrap(x), "X")
    assert type(matrix) is np.ndarray
    assert np.shares_memory(matrix, x)


@pytest.mark.parametrize(
    ("dtype", "expected"), [(">f4", "f4"), ("f2", "f4"), (np.longdouble, "f8"), (">i8", "i8"), (bool, bool)]
)
def test_dtypes_are_brought_to_those_that_kernels_know(dtype, expected):
    x = np.eye(2, dtype=dtype)
    assert matrix_of(x, "X").dtype == expected
    if np.dtype(dtype) != np.float16:  # which scipy.sparse does not know
        assert matrix_of(sp.csr_array(x.astype(expected)), "X").data.dtype == expected


def test_spare_room_after_the_last_entry_is_left_out():
    x = sp.csr_array((np.ones(5), np.zeros(5, int), [0, 1, 2]), shape=(2, 2))
    assert matrix_of(x, "X").nnz == 2


@pytest.mark.parametrize("dtype", ["u1", "u2", "u8", "i2", ">i4", ">i8"])
def test_unusual_dtypes_of_indices(dtype, tmp_path):
    path = write(anndata.AnnData(sp.csr_matrix(np.eye(3))), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        for name in ("indices", "indptr"):
            values = file["X"][name][()].astype(dtype)
            del file["X"][name]
            file["X"][name] = values
    matrix = open_source(path).expression()
    assert matrix.indices.dtype in (np.int32, np.int64)
    assert matrix.indptr.dtype in (np.int32, np.int64)
    np.testing.assert_array_equal(dense(matrix), np.eye(3))


def test_lazy_matrices_are_computed():
    class Lazy:
        def compute(self):
            return sp.coo_matrix(np.eye(3))

    np.testing.assert_array_equal(dense(matrix_of(Lazy(), "X")), np.eye(3))


@pytest.mark.parametrize(
    ("x", "found"),
    [
        (np.array([["a"]]), "not real numbers"),
        (np.array([[None]]), "not real numbers"),
        (np.array([[1j]]), "not real numbers"),
        (np.array([["2020"]], "M8[Y]"), "not real numbers"),
        (sp.csr_array(np.array([[1j]])), "not real numbers"),
        (np.zeros(3), "1 dimension"),
        (np.zeros((1, 1, 1)), "3 dimension"),
        pytest.param(sp.coo_array(np.ones(3)), "1 dimension", marks=old_scipy),
        (np.ma.masked_array([[1.0]], mask=[[True]]), "masked"),
        ("text", "0 dimension"),
    ],
)
def test_matrices_that_are_refused(x, found):
    with pytest.raises(InputError, match=f"latent_space: .*{found}"):
        matrix_of(x, "latent_space")


@pytest.mark.parametrize(
    ("indptr", "indices", "data", "found"),
    [
        ([0, 1], [0], [1.0], "2 entries where 3"),
        ([0, 2, 1], [0, 1], [1.0, 1.0], "indptr goes from 0 to 1"),
        ([0, 3, 2], [0, 1], [1.0, 1.0], "decreases"),
        ([1, 1, 2], [0, 1], [1.0, 1.0], "indptr goes from 1"),
        ([0, 1, 2], [0, 2], [1.0, 1.0], "indices go from 0 to 2"),
        ([0, 1, 2], [-1, 1], [1.0, 1.0], "indices go from -1"),
        ([0, 1, 2], [0, 1], [1.0], "1 values but 2 indices"),
        ([0, 1, 2], [0.0, 1.0], [1.0, 1.0], "indices is 1-dimensional float64"),
        ([], [], [], "0 entries where 3"),
    ],
)
def test_inconsistent_sparse_matrices_are_refused(indptr, indices, data, found, tmp_path):
    path = tmp_path / "a.h5ad"
    write(anndata.AnnData(sp.csr_matrix(np.eye(2))), path)
    with h5py.File(path, "r+") as file:
        for name, values in (("indptr", indptr), ("indices", indices), ("data", data)):
            del file["X"][name]
            file["X"][name] = np.array(values, None if values else int)
    with pytest.raises(InputError, match=f"X: damaged sparse matrix: .*{found}"):
        open_source(path).expression()


def test_spoilt_scipy_matrix_is_refused():
    x = sp.csr_array(np.eye(3))
    x.indices[0] = 99
    with pytest.raises(InputError, match="indices go from 1 to 99 in a matrix of 3 × 3"):
        matrix_of(x, "X")


# AnnData in memory


def test_views_and_backed_objects_give_the_same(tmp_path):
    adata = example()
    expected = everything(AnnDataSource(adata[::2].copy()))
    assert_equal(everything(open_source(adata[::2])), expected)
    path = write(adata, tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(path, backed="r")
    assert_equal(everything(AnnDataSource(backed)), everything(AnnDataSource(adata)))
    assert_equal(everything(AnnDataSource(backed[::2])), expected)
    backed.file.close()


def test_backed_dense(tmp_path):
    x = np.random.default_rng(0).random((5, 3))
    backed = anndata.read_h5ad(write(anndata.AnnData(x), tmp_path / "a.h5ad"), backed="r")
    np.testing.assert_array_equal(AnnDataSource(backed).expression(), x)
    backed.file.close()


def test_column_names_need_not_be_text_but_must_be_unique_as_text():
    adata = anndata.AnnData(np.eye(2), pd.DataFrame({"a": [1, 2]}, index=["x", "y"]))
    adata.obs[7] = [3, 4]
    source = AnnDataSource(adata)
    assert source.obs_columns() == ["a", "7"]
    assert source.obs("7").values.tolist() == [3, 4]
    adata.obs["7"] = [5, 6]
    with pytest.raises(InputError, match=r"obs\['7'\]: 2 columns"):
        source.obs("7")


def test_the_object_is_not_modified():
    adata = example()
    copy = adata.copy()
    everything(AnnDataSource(adata))
    assert_anndata_equal(adata, copy, exact=True)


def test_no_x():
    assert AnnDataSource(anndata.AnnData(obs=pd.DataFrame(index=["a", "b"]))).expression() is None


# Files


@pytest.mark.parametrize("name", STORES)
def test_files_give_the_same_as_memory(name, tmp_path):
    adata = example()
    if name == "v3.zarr":
        del adata.obsm["words"]  # fixed-width text has no place in Zarr v3
    path = write(adata, tmp_path / name)
    source = open_source(path)
    assert isinstance(source, StoreSource)
    assert source.location == str(path)
    assert_equal(everything(source), everything(AnnDataSource(adata)))
    for raw in (False, True):
        for column, expected in (("symbol", adata.var["symbol"]), ("kind", adata.var["kind"])):
            assert sorted(source.gene_names(column, raw=raw)) == sorted(expected)
        assert AnnDataSource(adata).gene_names("number", raw=raw) == source.gene_names("number", raw=raw)
    source.close()


@pytest.mark.parametrize(
    "options", [{}, {"compression": "gzip"}, {"compression": "lzf"}, {"compression": "gzip", "shuffle": True}]
)
@pytest.mark.parametrize("workers", [1, 3])
def test_compressed_files(options, workers, tmp_path):
    adata = example()
    source = open_source(write(adata, tmp_path / "a.h5ad", **options), workers=workers)
    assert_equal(everything(source), everything(AnnDataSource(adata)))


@pytest.mark.parametrize("name", STORES)
def test_files_without_x(name, tmp_path):
    adata = anndata.AnnData(obs=pd.DataFrame(index=["a", "b"]), var=pd.DataFrame(index=["g"]))
    source = open_source(write(adata, tmp_path / name))
    assert source.expression() is None
    assert source.gene_names() == ["g"]
    assert not source.has_raw()


def test_empty_obs_and_var(tmp_path):
    source = open_source(write(anndata.AnnData(np.zeros((0, 0))), tmp_path / "a.h5ad"))
    assert source.n_cells == 0
    assert source.gene_names() == []
    assert source.expression().shape == (0, 0)


def test_nullable_text_is_missing_where_masked(tmp_path):
    obs = pd.DataFrame({"t": pd.array(["b", None, "a", "b"], "string")}, index=list("wxyz"))
    with anndata.settings.override(allow_write_nullable_strings=True):
        path = write(anndata.AnnData(np.eye(4), obs), tmp_path / "a.h5ad")
    column = open_source(path).obs("t")
    assert column.categories == ["a", "b"]
    assert column.codes.tolist() == [1, -1, 0, 1]


def test_categories_may_be_nullable_text(tmp_path):
    path = write(example(), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        labels = file["obs/declared/categories"][()]
        del file["obs/declared/categories"]
        group = file.create_group("obs/declared/categories")
        group.attrs.update({"encoding-type": "nullable-string-array", "encoding-version": "0.1.0"})
        group["values"], group["mask"] = np.sort(labels), np.zeros(len(labels), bool)
    assert open_source(path).obs("declared").categories == ["", "B", "b", "unused", "ü"]


def test_codes_may_be_unsigned(tmp_path):
    path = write(example(), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        group = file["obs/ordered"]
        codes = group["codes"][()]
        del group["codes"]
        group["codes"] = codes.astype("u1")
    column = open_source(path).obs("ordered")
    assert column.codes.dtype.kind == "i"
    np.testing.assert_array_equal(column.codes, codes)


def test_keys_with_slashes_of_older_files(tmp_path):
    path = write(example(), tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        file["obs"].create_group("a")["b"] = np.arange(40.0)
        file["obs"].attrs["column-order"] = [*file["obs"].attrs["column-order"], "a/b", "/X", "../X", "a/../bool"]
    source = open_source(path)
    assert source.obs("a/b").values[3] == 3
    for name in ("/X", "../X", "a/../bool"):
        with pytest.raises(InputError, match="is missing"):
            source.obs(name)
    for name in ("a", "_index", "bool/..", "declared/codes"):
        with pytest.raises(InputError, match="does not exist"):
            source.obs(name)
    with pytest.raises(InputError, match="does not exist"):
        source.expression(layer="../X")


@pytest.mark.parametrize("kind", ["memory", *STORES])
def test_unknown_keys_list_those_that_exist(kind, tmp_path):
    adata = example()
    del adata.obsm["words"]
    source = open_source(adata if kind == "memory" else write(adata, tmp_path / kind))
    for call, where, known in [
        (lambda: source.obs("no"), "obs['no']", "'text', 'declared'"),
        (lambda: source.gene_names("no"), "var['no']", "'symbol', 'number'"),
        (lambda: source.gene_names("no", raw=True), "raw.var['no']", "'symbol', 'number'"),
        (lambda: source.expression(layer="no"), "layers['no']", "'csc'"),
        (lambda: source.obsm_array("no"), "obsm['no']", "'X_umap'"),
        (lambda: source.obsp_matrix("no"), "obsp['no']", "'graph'"),
    ]:
        with pytest.raises(InputError) as caught:
            call()
        assert caught.value.problems[0].where == where
        assert caught.value.problems[0].found == "does not exist"
        assert known in caught.value.problems[0].remedy


@pytest.mark.parametrize("kind", ["memory", "a.h5ad", "v2.zarr"])
def test_parts_that_cannot_be_shown_are_refused(kind, tmp_path):
    adata = example()
    adata.raw = None
    source = open_source(adata if kind == "memory" else write(adata, tmp_path / kind))
    for key, found in (("cube", "dim|shape"), ("mixed", "not numbers"), ("words", "not real numbers")):
        with pytest.raises(InputError, match=rf"obsm\['{key}'\].*({found})"):
            source.obsm_array(key)
    with pytest.raises(InputError, match="6 of 12 values are missing"):
        source.gene_names("gaps")
    for call in (lambda: source.gene_names(raw=True), lambda: source.expression(raw=True)):
        with pytest.raises(InputError, match="has no raw"):
            call()


def test_other_objects_are_refused():
    for other in (3, None, np.eye(2)):
        with pytest.raises(InputError, match="input: is a"):
            open_source(other)


@needs_shared
@pytest.mark.parametrize(("name", "reader"), OLD_AND_NEW)
def test_real_files(name, reader):
    path = SHARED / "data" / "h5ad" / name
    source = open_source(path)
    assert isinstance(source, reader)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = anndata.read_h5ad(path)
    assert_equal(everything(source), everything(AnnDataSource(adata)))
    source.close()


@needs_shared
def test_old_files_keep_graph_categories_and_missing_values():
    old = open_source(SHARED / "data/h5ad/cellbrowser_pbmc_small.h5ad")
    assert "connectivities" in old.obsp()
    assert old.obsp_matrix("connectivities").nnz == 602
    assert old.obs("louvain").categories == ["0", "1", "2", "3", "4"]
    assert len(old.obsm()) == 10
    gaps = open_source(SHARED / "data/h5ad/cellxgene_nan.h5ad")
    with h5py.File(gaps.location) as file:
        np.testing.assert_array_equal(gaps.expression(), file["X"][()])
        np.testing.assert_array_equal(gaps.obs("percent_mito").values, file["obs"]["percent_mito"])
    assert np.isnan(gaps.expression()).any()


@needs_shared
def test_real_atlas():
    path = SHARED / "data/xenium_pancreas.h5ad"
    found, expected = everything(open_source(path)), everything(AnnDataSource(anndata.read_h5ad(path)))
    assert_equal(found, expected)
    assert found["obs", "cluster"][1][-1] == "<NA>"
    assert found["X", False].nnz == 2_607_981


@needs_shared
def test_current_files_are_read_without_slow_imports():
    code = """
import sys
from atlaswriter.sources.open import open_source
source = open_source(sys.argv[1])
source.expression(), source.obs("cluster"), source.gene_names(), source.obsm_array("X_umap"), source.obsp()
print(sorted({"anndata", "pandas", "zarr", "scipy"} & set(sys.modules)))
"""
    run = [sys.executable, "-c", code, str(SHARED / "data/xenium_pancreas.h5ad")]
    assert subprocess.run(run, capture_output=True, text=True, check=True).stdout.strip() == "[]"


# Reading HDF5 chunks


@st.composite
def layouts(draw):
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    return {
        "dtype": draw(st.sampled_from(["?", "u1", "<i2", ">i4", "<i8", "f2", "<f4", ">f8"])),
        "shape": shape,
        "chunks": tuple(draw(st.integers(1, size)) for size in shape),
        "compression": draw(st.sampled_from([None, "gzip", "lzf"])),
        "shuffle": draw(st.booleans()),
        "fletcher32": draw(st.booleans()),
        "fillvalue": draw(st.sampled_from([0, 1])),
    }


@given(layouts(), st.data())
@settings(deadline=None, max_examples=150)
def test_chunked_datasets_equal_h5py(layout, data):
    values = np.random.default_rng(0).integers(0, 255, layout["shape"]).astype(layout["dtype"])
    some = tuple(slice(data.draw(st.integers(0, size)), size) for size in layout["shape"])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        with h5py.File(f"{folder}/a.h5", "w") as file:
            file.create_dataset("x", **layout)[some] = values[some]
        patch.setattr(h5chunks, "TASK_BYTES", 16)
        assert_read_as_h5py(f"{folder}/a.h5")
        patch.delattr(os, "pread", raising=False)
        assert_read_as_h5py(f"{folder}/a.h5")


def assert_read_as_h5py(path):
    with h5py.File(path) as file:
        expected = file["x"][()]
        for workers in (1, 2):
            found = h5read.read_dataset(file["x"], workers)
            assert found.dtype == expected.dtype.newbyteorder("=")
            np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "options",
    [
        {"data": np.arange(10.0)},
        {"data": np.array(7)},
        {"data": np.zeros((0, 3)), "chunks": (1, 1), "maxshape": (None, 3)},
        {"data": np.arange(10), "chunks": (64,), "maxshape": (None,), "compression": "gzip"},
        {"data": np.arange(10), "chunks": (4,), "scaleoffset": 0},
        {"data": ["a", "b"], "chunks": (1,), "compression": "gzip"},
        {"data": np.array([(1, 2.0)], "i4,f8"), "chunks": (1,), "compression": "gzip"},
        {"data": np.array([1 + 2j]), "chunks": (1,), "compression": "gzip"},
    ],
)
def test_unusual_datasets_equal_h5py(options, tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", **options)
    assert_read_as_h5py(tmp_path / "a.h5")


@pytest.mark.parametrize("mask", [0, 1, 2, 3])
def test_chunks_that_skip_filters(mask, tmp_path):
    values = np.arange(6, dtype="<i4")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("x", (12,), "<i4", chunks=(6,), compression="gzip", shuffle=True)
        stored = values.tobytes() if mask & 1 else values.view("u1").reshape(6, 4).T.tobytes()
        dataset.id.write_direct_chunk((6,), stored if mask & 2 else zlib.compress(stored), mask)
    assert_read_as_h5py(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5") as file:
        assert h5read.read_dataset(file["x"], 1).tolist() == [0] * 6 + values.tolist()


def test_file_types_that_are_converted_on_reading(tmp_path):
    narrow = h5py.h5t.STD_I32LE.copy()
    narrow.set_precision(24)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        layout.set_chunk((4,))
        dataset = h5py.h5d.create(file.id, b"x", narrow, h5py.h5s.create_simple((10,)), layout)
        dataset.write(h5py.h5s.ALL, h5py.h5s.ALL, np.arange(-5, 5, dtype="i4"))
    assert_read_as_h5py(tmp_path / "a.h5")


def test_user_blocks_and_files_open_for_writing(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w", userblock_size=512) as file:
        file.create_dataset("x", data=np.arange(99), chunks=(10,), compression="gzip")
    assert_read_as_h5py(tmp_path / "a.h5")
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["x"][:] = 5
        assert_read_as_h5py(tmp_path / "a.h5")


def test_zlib_takes_the_place_of_isal(tmp_path, monkeypatch):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("x", data=np.arange(99), chunks=(10,), compression="gzip")
    monkeypatch.setattr(h5chunks, "inflater", zlib)
    assert_read_as_h5py(tmp_path / "a.h5")


@pytest.mark.parametrize("values", [np.full(300, 1, np.uint8), np.array([100, 100], np.int8), np.array([1, -1.0])])
def test_repeated_coo_entries_add_up_beyond_their_dtype(values):
    rows = np.zeros(values.size, int)
    matrix = matrix_of(sp.coo_array((values, (rows, rows)), shape=(2, 2)), "x")
    assert matrix.nnz == values.size
    sums = np.zeros((2, 2))
    columns = np.repeat(np.arange(2), np.diff(matrix.indptr))
    np.add.at(sums, (matrix.indices, columns), matrix.data.astype(float))
    assert sums.tolist() == [[float(values.astype(float).sum()), 0], [0, 0]]


@pytest.mark.parametrize("part", ["data", "codes", "categories"])
def test_arrays_with_too_many_dimensions_are_refused(tmp_path, part):
    adata = anndata.AnnData(sp.random_array((6, 4), density=0.5, format="csr", rng=np.random.default_rng(0)))
    adata.obs["kind"] = pd.Categorical(list("aabbab"))
    adata.write_h5ad(tmp_path / "a.h5ad")
    place = {"data": "X/data", "codes": "obs/kind/codes", "categories": "obs/kind/categories"}[part]
    with h5py.File(tmp_path / "a.h5ad", "r+") as file:
        attributes, content = dict(file[place].attrs), file[place][:]
        kind = file[place].dtype
        del file[place]
        file.create_dataset(place, data=np.stack([content, content], axis=1), dtype=kind).attrs.update(attributes)
    source = open_source(tmp_path / "a.h5ad")
    with pytest.raises(InputError):
        source.expression() if part == "data" else source.obs("kind")
    source.close()
