"""Bad arguments: one error that names everything, and nothing left behind."""

import os

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter import cellucid, check, open_export, prepare
from atlaswriter.errors import InputError

N = 40


def example(**changed):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(["a", "b"] * (N // 2)), "score": rng.random(N)})
    arguments = {
        "latent_space": rng.normal(size=(N, 4)),
        "obs": obs,
        "var": pd.DataFrame(index=list("ABCDE")),
        "gene_expression": sp.random(N, 5, 0.4, "csr", np.float32, rng=rng),
        "X_umap_2d": rng.normal(size=(N, 2)),
        "centroid_min_points": 3,
        "workers": 2,
    }
    return arguments | changed


def with_obs(**columns):
    return example()["obs"].assign(**columns)


def named(**columns):
    return pd.DataFrame(np.ones((N, len(columns))), columns=list(columns))


def spoiled(array, value, where=(7, 0)):
    array = np.array(array)
    array[where] = value
    return array


def listing(folder):
    """Every file and folder, with the bytes of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


DAMAGED = example()["gene_expression"]
DAMAGED.indices[0] = 99
GRAPH = sp.random(N, N, 0.1, "csr")
BAD = {
    # lengths
    "latent too short": ({"latent_space": np.ones((N - 1, 3))}, ["latent_space", f"({N - 1}, 3)"]),
    "embedding too short": ({"X_umap_3d": np.ones((N - 1, 3))}, ["X_umap_3d", f"({N - 1}, 3)"]),
    "obs too short": ({"obs": example()["obs"][:-1]}, ["obs", str(N - 1), str(N)]),
    "obs too short and empty": ({"obs": pd.DataFrame(index=range(N - 1))}, ["obs", str(N - 1)]),
    "no column of a short obs": ({"obs": example()["obs"][:-1], "obs_keys": []}, ["obs", str(N - 1)]),
    "var too short": ({"var": pd.DataFrame(index=list("ABCD"))}, ["var", "4 rows", "5 columns"]),
    "genes of other cells": ({"gene_expression": np.ones((N + 1, 5))}, ["gene_expression", f"({N + 1}, 5)"]),
    "graph of other cells": ({"connectivities": GRAPH[:, :-1]}, ["connectivities", f"({N}, {N - 1})"]),
    "vectors of other cells": ({"vector_fields": {"v": np.ones((N - 1, 2))}}, ["'v'", f"({N - 1}, 2)"]),
    "embedding of another width": ({"X_umap_2d": np.ones((N, 3))}, ["X_umap_2d", f"({N}, 3)"]),
    "embedding of one axis": ({"X_umap_1d": np.ones(N)}, ["X_umap_1d", "dimension"]),
    # missing parts
    "no embedding": ({"X_umap_2d": None}, ["embedding", "X_umap_2d"]),
    "no obs": ({"obs": None}, ["obs"]),
    "no latent space": ({"latent_space": None}, ["latent_space"]),
    "no var": ({"var": None}, ["var"]),
    "obs is a dict": ({"obs": {"a": [1]}}, ["obs", "dict"]),
    # values
    "NaN coordinate": ({"X_umap_2d": spoiled(np.ones((N, 2)), np.nan)}, ["X_umap_2d", "[7]"]),
    "infinite coordinate": ({"X_umap_2d": spoiled(np.ones((N, 2)), np.inf)}, ["X_umap_2d", "[7]"]),
    "NaN in the latent space": ({"latent_space": spoiled(np.ones((N, 2)), np.nan)}, ["latent_space", "[7]"]),
    "infinity in vectors": ({"vector_fields": {"v": spoiled(np.ones((N, 2)), -np.inf)}}, ["'v'", "[7]"]),
    "complex embedding": ({"X_umap_2d": np.ones((N, 2), complex)}, ["X_umap_2d", "complex"]),
    "object matrix": ({"gene_expression": np.full((N, 5), "x", object)}, ["gene_expression", "object"]),
    "complex genes": ({"gene_expression": np.ones((N, 5), complex)}, ["gene_expression", "complex"]),
    "genes of three axes": ({"gene_expression": np.ones((N, 5, 1))}, ["gene_expression", "3"]),
    "genes beyond float32": ({"gene_expression": np.full((N, 5), 1e300)}, ["'A'", "'B'", "3.4e+38"]),
    "number beyond float32": ({"obs": with_obs(big=1e300, huge=-1e300)}, ["'big'", "'huge'", "3.4e+38"]),
    "damaged sparse matrix": ({"gene_expression": DAMAGED}, ["gene_expression"]),
    # names
    "duplicate genes": ({"var": pd.DataFrame(index=list("ABABE"))}, ["genes", "'A', 'B'", "make_unique"]),
    "colliding genes": ({"var": pd.DataFrame(index=["a/b", "a_b", "β", "γ", "E"])}, ["a/b", "a_b", "β", "γ", "field"]),
    "path-like gene": ({"var": pd.DataFrame(index=["../../x", "B", "C", "D", "/etc"])}, ["../../x", "/etc"]),
    "gene name too long": ({"var": pd.DataFrame(index=["x" * 300, "B", "C", "D", "E"])}, ["too long"]),
    "duplicate obs columns": ({"obs": pd.DataFrame(np.ones((N, 2)), columns=["q", "q"])}, ["obs columns", "'q'"]),
    "colliding obs columns": ({"obs": named(**{"p q": 1, "p_q": 1})}, ["'p q', 'p_q'"]),
    "number and text column": ({"obs": pd.DataFrame(np.ones((N, 2)), columns=[1, "1"])}, ["obs columns", "'1'"]),
    "vector name": ({"vector_fields": {"my field": np.ones((N, 2))}}, ["my field", "my_field"]),
    "vector with path": ({"vector_fields": {"../v_2d": np.ones((N, 2))}}, ["../v"]),
    "vector of wrong width": ({"vector_fields": {"v_3d": np.ones((N, 2))}}, ["v_3d", "2 columns"]),
    # columns
    "too many categories": (
        {"obs": with_obs(id=pd.Categorical(["x"] * N, ["x", *map(str, range(65534))]))},
        ["65,535"],
    ),
    "too many for uint8": (
        {"obs": with_obs(id=pd.Categorical(["x"] * N, ["x", *map(str, range(254))])), "obs_categorical_dtype": "uint8"},
        ["255", "254", "uint16"],
    ),
    "equal categories": ({"obs": with_obs(m=pd.Categorical([1, "1"] * (N // 2)))}, ["'m'", "'1'", "merge_equal"]),
    "dates": ({"obs": with_obs(d=pd.date_range("2020", periods=N))}, ["'d'", "datetime64"]),
    "durations": ({"obs": with_obs(d=pd.timedelta_range("1s", periods=N))}, ["'d'", "timedelta64"]),
    "complex column": ({"obs": with_obs(c=1j)}, ["'c'", "complex"]),
    "lists in a column": ({"obs": with_obs(o=[[1]] * N)}, ["'o'"]),
    # choices
    "unknown genes": ({"gene_identifiers": ["A", "y", "z"]}, ["gene_identifiers", "'y', 'z'"]),
    "genes chosen twice": ({"gene_identifiers": ["A", "A"]}, ["gene_identifiers", "more than once"]),
    "genes as one text": ({"gene_identifiers": "A"}, ["gene_identifiers"]),
    "unknown columns": ({"obs_keys": ["type", "nope"]}, ["obs_keys", "'nope'"]),
    "columns as one text": ({"obs_keys": "type"}, ["obs_keys"]),
    "unknown id column": ({"var_gene_id_column": "symbol"}, ["var_gene_id_column", "'symbol'"]),
    "vectors as a list": ({"vector_fields": [np.ones((N, 2))]}, ["vector_fields"]),
    # options
    "compression 10": ({"compression": 10}, ["compression", "10"]),
    "compression True": ({"compression": True}, ["compression", "True"]),
    "bits 4": ({"var_quantization": 4}, ["var_quantization", "4"]),
    "bits False": ({"obs_continuous_quantization": False}, ["obs_continuous_quantization"]),
    "categorical dtype": ({"obs_categorical_dtype": "uint32"}, ["obs_categorical_dtype", "uint32"]),
    "quantile 0.5": ({"centroid_outlier_quantile": 0.5}, ["centroid_outlier_quantile", "0.5"]),
    "min points True": ({"centroid_min_points": True}, ["centroid_min_points"]),
    "workers 0": ({"workers": 0}, ["workers"]),
    "memory": ({"memory_budget": "lots"}, ["memory_budget", "lots"]),
    "quantizer": ({"quantizer": "floor"}, ["quantizer", "floor"]),
    "engine": ({"engine": "slow"}, ["engine", "slow"]),
    "manifest name": ({"obs_manifest_filename": "../x.json"}, ["../x.json"]),
    "manifest is the identity": ({"obs_manifest_filename": "dataset_identity.json"}, ["dataset_identity.json"]),
    # no cells
    "no cells": (
        {
            "obs": example()["obs"][:0],
            "latent_space": np.ones((0, 3)),
            "X_umap_2d": np.ones((0, 2)),
            "gene_expression": np.ones((0, 5)),
        },
        ["cells"],
    ),
}


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("case", BAD)
def test_one_error_and_nothing_left_behind(tmp_path, case, existing):
    changed, words = BAD[case]
    if existing:
        prepare(**example(), out_dir=tmp_path / "out")
    before = listing(tmp_path)
    with pytest.raises(InputError) as caught:
        prepare(**example(**changed), out_dir=tmp_path / "out", force=existing)
    for word in words:
        assert word in str(caught.value)
    assert listing(tmp_path) == before


def test_all_problems_of_one_call_are_reported_together(tmp_path):
    """Options, target, tables and numbers: what can be found is found in one go."""
    (tmp_path / "out").write_text("a file")
    bad = example(
        compression=99,
        workers=0,
        memory_budget="lots",
        latent_space=None,
        X_umap_2d=spoiled(np.ones((N, 2)), np.nan),
        X_umap_3d=np.ones((N - 1, 3)),
        obs=with_obs(**{"a/b": 1, "a_b": 2}, d=pd.date_range("2020", periods=N)),
        var=pd.DataFrame(index=list("ABABE")),
        connectivities=GRAPH[:-1],
        vector_fields={"my field": np.ones((N, 2))},
    )
    with pytest.raises(InputError) as caught:
        prepare(**bad, out_dir=tmp_path / "out")
    text = str(caught.value)
    missing = [
        word
        for word in (
            "compression", "workers", "memory_budget", "is a file", "latent_space", "X_umap_2d", "X_umap_3d",
            "'a/b', 'a_b'", "datetime64", "'A', 'B'", "connectivities", "my field",
        )
        if word not in text
    ]  # fmt: skip
    assert missing == []


def test_data_problems_are_reported_together(tmp_path):
    bad = example(
        X_umap_2d=spoiled(np.ones((N, 2)), np.nan),
        obs=with_obs(**{"a/b": 1, "a_b": 2}, m=pd.Categorical([1, "1"] * (N // 2))),
        var=pd.DataFrame(index=list("ABABE")),
        connectivities=GRAPH[:-1],
    )
    with pytest.raises(InputError) as caught:
        prepare(**bad, out_dir=tmp_path / "out")
    assert len(caught.value.problems) == 5


def test_no_embedding_does_not_hide_the_rest(tmp_path):
    with pytest.raises(InputError) as caught:
        prepare(**example(X_umap_2d=None, var=pd.DataFrame(index=list("ABABE"))), out_dir=tmp_path / "out")
    text = str(caught.value)
    assert "'A', 'B'" in text
    assert "there are 0" not in text


@pytest.mark.parametrize("form", ["dense", "fortran", "strided", "csr", "csc"])
def test_genes_beyond_float32_are_named(tmp_path, form):
    genes = np.ones((N, 5))
    genes[3, 1], genes[N - 1, 4], genes[0, 0] = -1e39, 1e300, np.inf
    forms = {
        "dense": genes,
        "fortran": np.asfortranarray(genes),
        "strided": np.repeat(genes, 2, axis=1)[:, ::2],
        "csr": sp.csr_matrix(genes),
        "csc": sp.csc_matrix(genes),
    }
    with pytest.raises(InputError) as caught:
        prepare(**example(gene_expression=forms[form]), out_dir=tmp_path / "out")
    assert "'B', 'E' " in f"{caught.value} "
    assert "'A'" not in str(caught.value)
    prepare(**example(gene_expression=forms[form], gene_identifiers=["A", "C"]), out_dir=tmp_path / "out")


@pytest.mark.parametrize("place", ["root", "home", "here", "above", "file", "link", "nothing", "number", "nul"])
def test_bad_targets(tmp_path, monkeypatch, place):
    here, home = tmp_path / "w" / "here", tmp_path / "home"
    here.mkdir(parents=True)
    home.mkdir()
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(home)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(home))
    targets = {"root": "/", "home": home, "here": ".", "above": here.parent, "nothing": "", "number": 5, "nul": "a\0b"}
    before = listing(tmp_path)
    with pytest.raises(InputError):
        prepare(**example(), out_dir=targets.get(place, tmp_path / place), force=True)
    assert listing(tmp_path) == before


def test_folder_with_other_things_is_never_replaced(tmp_path):
    prepare(**example(), out_dir=tmp_path / "out")
    (tmp_path / "out" / "thesis.docx").write_text("precious")
    before = listing(tmp_path)
    with pytest.raises(InputError, match=r"thesis\.docx"):
        prepare(**example(), out_dir=tmp_path / "out", force=True)
    assert listing(tmp_path) == before


# ---------------------------------------------------------------- odd but good


def roundtrip(tmp_path, **changed):
    prepare(**example(**changed), out_dir=tmp_path / "out")
    result = check(tmp_path / "out")
    assert result.ok, str(result)
    return open_export(tmp_path / "out")


def test_strange_names_stay_inside(tmp_path):
    names = ["a/b", "..a", "nul\0l", "🙂", "x" * 230]
    export = roundtrip(tmp_path, var=pd.DataFrame(index=names), obs=named(**dict.fromkeys([*names, "é:*?1"], 1)))
    assert list(export.genes) == names
    dense = example()["gene_expression"].toarray()
    for column, name in enumerate(names):
        np.testing.assert_allclose(export.gene(name), dense[:, column])
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_empty_name(tmp_path):
    assert roundtrip(tmp_path, var=pd.DataFrame(index=["", "B", "C", "D", "E"])).genes == ["", "B", "C", "D", "E"]


def test_names_that_are_not_text(tmp_path):
    obs = pd.DataFrame(np.ones((N, 3)), columns=[1.0, 2, ("a", "b")])
    export = roundtrip(tmp_path, var=pd.DataFrame(index=range(5)), obs=obs)
    assert list(export.genes) == ["0", "1", "2", "3", "4"]
    assert list(export.obs_keys) == ["1.0", "2", "('a', 'b')"]
    assert (tmp_path / "out" / "obs" / "1.0.values.f32").is_file()


def test_huge_and_strange_labels(tmp_path):
    labels = ["x" * 1_000_000, '🙂\u2028\\"', "</script>", "a\0b", " padded ", ""]
    obs = with_obs(label=pd.Categorical.from_codes(np.arange(N) % 6, labels))
    found = roundtrip(tmp_path, obs=obs).obs("label")
    assert list(found.cat.categories) == labels
    assert list(found.cat.codes) == [i % 6 for i in range(N)]


def test_obs_without_columns(tmp_path):
    export = roundtrip(tmp_path, obs=pd.DataFrame(index=range(N)))
    assert list(export.obs_keys) == []
    assert export.n_cells == N


@pytest.mark.parametrize("matrix", [np.ones((N, 0)), sp.csr_matrix((N, 0)), sp.csc_matrix((N, 0))])
def test_no_genes(tmp_path, matrix):
    assert list(roundtrip(tmp_path, gene_expression=matrix, var=pd.DataFrame(index=[])).genes) == []


def test_no_gene_chosen(tmp_path):
    assert list(roundtrip(tmp_path, gene_identifiers=[]).genes) == []


@pytest.mark.parametrize("bits", [None, 8, 16])
def test_one_cell(tmp_path, bits):
    export = roundtrip(
        tmp_path,
        obs=example()["obs"][:1],
        latent_space=np.ones((1, 3)),
        X_umap_2d=np.array([[3.0, 4.0]]),
        gene_expression=sp.csr_matrix([[0, 1, 2, 0, 3]]),
        connectivities=sp.csr_matrix((1, 1)),
        var_quantization=bits,
        obs_continuous_quantization=bits,
    )
    assert export.points(2).tolist() == [[0, 0]]
    assert [export.gene(gene).item() for gene in "ABCDE"] == [0, 1, 2, 0, 3]
    assert len(export.edges()[0]) == 0


@pytest.mark.parametrize("bits", [None, 8, 16])
def test_columns_of_nothing_but_nan(tmp_path, bits):
    obs = with_obs(nan=np.nan, none=pd.Categorical([None] * N), inf=np.inf, null=pd.array([pd.NA] * N, "Int64"))
    genes = np.full((N, 5), np.nan, np.float32)
    export = roundtrip(
        tmp_path, obs=obs, gene_expression=genes, var_quantization=bits, obs_continuous_quantization=bits
    )
    for key in ("nan", "none", "inf", "null"):
        assert export.obs(key).isna().all()
    assert np.isnan(export.gene("A")).all()


def test_no_category_used_at_all(tmp_path):
    obs = pd.DataFrame({"c": pd.Categorical([None] * N, categories=["a", "b"])})
    assert list(roundtrip(tmp_path, obs=obs).obs("c").cat.categories) == ["a", "b"]


@pytest.mark.parametrize("n_categories", [254, 255, 65534])
def test_as_many_categories_as_fit(tmp_path, n_categories):
    labels = [f"c{i}" for i in range(n_categories)]
    codes = np.linspace(0, n_categories - 1, N).astype(int)
    found = roundtrip(tmp_path, obs=pd.DataFrame({"c": pd.Categorical.from_codes(codes, labels)})).obs("c")
    assert list(found) == [labels[code] for code in codes]


def test_the_same_embedding_everywhere(tmp_path):
    """1D, 2D, 3D and 4D at once, of every kind of number."""
    rng = np.random.default_rng(1)
    given = {
        "X_umap_1d": rng.integers(0, 9, (N, 1)),
        "X_umap_2d": rng.random((N, 2)).astype(np.float16),
        "X_umap_3d": sp.csr_matrix(rng.random((N, 3))),
        "X_umap_4d": pd.DataFrame(rng.random((N, 4))),
    }
    prepare(**example(**given), out_dir=tmp_path / "out")
    export = open_export(tmp_path / "out")
    assert list(export.dimensions) == [1, 2, 3, 4]
    for dim in (1, 2, 3, 4):
        assert np.abs(export.points(dim)).max() == 1


# ---------------------------------------------------------------- from an AnnData


def adata(**parts):
    rng = np.random.default_rng(0)
    made = anndata.AnnData(
        rng.random((N, 4)).astype(np.float32),
        obs=pd.DataFrame({"type": pd.Categorical(["a", "b"] * (N // 2))}, index=[f"c{i}" for i in range(N)]),
        var=pd.DataFrame(index=list("ABCD")),
        obsm={"X_umap": rng.random((N, 2)), "X_pca": rng.random((N, 3))} | parts.get("obsm", {}),
    )
    for name in ("obsp", "layers"):
        for key, value in parts.get(name, {}).items():
            getattr(made, name)[key] = value
    return made


BAD_CHOICES = {
    "unknown layer": ({"layer": "counts"}, ["counts"]),
    "no raw": ({"use_raw": True}, ["raw"]),
    "layer and raw": ({"layer": "x", "use_raw": True}, ["layer", "raw"]),
    "unknown gene": ({"genes": ["A", "Z"]}, ["'Z'"]),
    "unknown gene column": ({"gene_names": "symbol"}, ["symbol"]),
    "unknown obs": ({"obs": ["nope"]}, ["'nope'"]),
    "obs as text": ({"obs": "type"}, ["obs"]),
    "unknown excluded": ({"exclude_obs": ["nope"]}, ["exclude_obs", "'nope'"]),
    "unknown embedding": ({"embeddings": ["X_tsne"]}, ["X_tsne", "X_umap"]),
    "unknown latent": ({"latent": "X_scVI"}, ["X_scVI", "X_pca"]),
    "unknown vectors": ({"vector_fields": ["v"]}, ["'v'"]),
    "unknown graph": ({"graph": "connectivities"}, ["connectivities"]),
    "bad option": ({"var_quantization": 7}, ["var_quantization"]),
}


@pytest.mark.parametrize("existing", [False, True], ids=["new", "existing"])
@pytest.mark.parametrize("case", BAD_CHOICES)
def test_bad_choices(tmp_path, case, existing):
    changed, words = BAD_CHOICES[case]
    if existing:
        cellucid(adata(), tmp_path / "out")
    before = listing(tmp_path)
    with pytest.raises(InputError) as caught:
        cellucid(adata(), tmp_path / "out", force=existing, **changed)
    for word in words:
        assert word in str(caught.value)
    assert listing(tmp_path) == before


def test_all_bad_choices_at_once(tmp_path):
    bad = {"layer": "L", "genes": ["Z"], "obs": ["O"], "embeddings": ["E"], "latent": "T", "vector_fields": ["V"]}
    with pytest.raises(InputError) as caught:
        cellucid(adata(), tmp_path / "out", graph="G", compression=99, **bad)
    missing = [
        word for word in ("'L'", "'Z'", "'O'", "'E'", "'T'", "'V'", "'G'", "99") if word not in str(caught.value)
    ]
    assert missing == []


def test_unreadable_sources(tmp_path):
    (tmp_path / "text.h5ad").write_text("hello")
    adata().write_h5ad(tmp_path / "good.h5ad")
    whole = (tmp_path / "good.h5ad").read_bytes()
    (tmp_path / "half.h5ad").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.h5ad").write_bytes(b"")
    before = listing(tmp_path)
    for name in ("text.h5ad", "half.h5ad", "empty.h5ad", "none.h5ad", "."):
        with pytest.raises(InputError):
            cellucid(tmp_path / name, tmp_path / "out")
    for wrong in (None, 5, {"X": 1}):
        with pytest.raises(InputError):
            cellucid(wrong, tmp_path / "out")
    assert listing(tmp_path) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_read_only_place(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="not writable"):
        prepare(**example(), out_dir=tmp_path / "out")
