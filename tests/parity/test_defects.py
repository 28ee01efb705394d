"""The 28 defects of cellucid 0.0.9 (formats/cellucid.md, section v): each shown there, and gone here."""

import copy
import hashlib
import time
import tracemalloc

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from atlaswriter import check, prepare
from atlaswriter.errors import InputError

from .compare import quietly
from .viewer import Folder

pytestmark = pytest.mark.usefixtures("original")

N = 20


def arguments(n=N, **changes):
    """A small valid export: n cells in 2D with one number; `changes` are what a test is about."""
    rng = np.random.default_rng(n)
    points = rng.uniform(-1, 1, (n, 2))
    return {"latent_space": points, "obs": pd.DataFrame({"score": rng.uniform(size=n)}), "X_umap_2d": points} | changes


def genes(*columns):
    """Arguments for an export of these gene columns."""
    matrix = np.column_stack(columns)
    names = [f"g{number}" for number in range(matrix.shape[1])]
    return arguments(len(matrix), gene_expression=matrix, var=pd.DataFrame(index=names))


def ours(out, **given):
    prepare(out_dir=out, **given)
    assert check(out).ok
    return Folder(out)


def theirs(original, out, **given):
    quietly(original.prepare, out_dir=out, **given)
    return Folder(out)


def refused(out, match, **given):
    """The export is refused with this message, and nothing is left."""
    with pytest.raises(InputError, match=match):
        prepare(out_dir=out, **given)
    assert not list(out.parent.glob("*"))


def content(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_defect_01_centroids_drift_with_the_number_of_cells(original, tmp_path):
    """float32 sums: the centroid of two million points in one place is elsewhere."""
    place = np.array([0.9, -0.5, 0.1])
    points = np.vstack([np.tile(place, (2_000_000, 1)), [[-1, -1, -1], [1, 1, 1]]])
    label = pd.Categorical.from_codes(np.r_[np.zeros(2_000_000, int), 1, 1], ["crowd", "corner"])
    given = {"latent_space": np.zeros((len(points), 1)), "obs": pd.DataFrame({"label": label}), "X_umap_3d": points}
    (centroid,) = ours(tmp_path / "export", **given).category("label")[4]["3"]
    np.testing.assert_allclose(centroid["position"], place, rtol=0, atol=1e-9)
    assert centroid["n_points"] == 2_000_000
    (drifted,) = original._compute_centroids_for_field(points.astype(np.float32), label.codes, ["crowd"])
    assert np.abs(drifted["position"] - place).max() > 0.005


def test_defect_02_codes_are_cut_off_instead_of_rounded(original, tmp_path):
    """Values come back half a step too low on average, a whole one at worst."""
    values = np.random.default_rng(2).uniform(0, 3, 100_000).astype(np.float32)
    given = arguments(values.size, obs=pd.DataFrame({"x": values}), obs_continuous_quantization=8)
    nearest = ours(tmp_path / "ours", **given).continuous("x")
    cut = theirs(original, tmp_path / "theirs", **given).continuous("x")
    step = (nearest.high - nearest.low) / 254
    errors, errors_before = [(stored.exact() - values) / step for stored in (nearest, cut)]
    assert abs(errors.mean()) < 0.01
    assert abs(errors_before.mean() + 0.5) < 0.01
    assert np.abs(errors).max() < 0.5001 < 0.99 < np.abs(errors_before).max()


def test_defect_03_exact_codes_are_one_too_low(original, tmp_path):
    """Numbers 0..k that fall on a code exactly get the one below; so does the maximum."""
    columns = [np.minimum(np.arange(255), k) for k in range(1, 255)]
    rng = np.random.default_rng(3)
    columns += [rng.uniform(-1, 1, 255) * 10 ** rng.uniform(-3, 3) for _ in range(200)]
    given = genes(*np.float32(columns)) | {"var_quantization": 8}
    mine, other = ours(tmp_path / "ours", **given), theirs(original, tmp_path / "theirs", **given)
    exact = [
        (f"g{k - 1}", value, value * 254 // k) for k in range(1, 255) for value in range(k + 1) if value * 254 % k == 0
    ]
    assert len(exact) == 1013
    assert [mine.gene(name).codes[value] for name, value, _ in exact] == [code for *_, code in exact]
    assert sum(other.gene(name).codes[value] != code for name, value, code in exact) == 44
    tops = [(f"g{number}", np.argmax(np.float32(column))) for number, column in enumerate(columns)]
    assert {mine.gene(name).codes[cell] for name, cell in tops} == {254}
    assert {mine.gene(name).codes.min() for name, _ in tops} == {0}
    assert {other.gene(name).codes[cell] for name, cell in tops} == {253, 254}


def test_defect_04_tiny_ranges_overflow_the_scale(original, tmp_path):
    """A range of 1e-40 has two codes only."""
    given = genes(np.array([0, 1e-40, 5e-41], np.float32)) | {"var_quantization": 8}
    assert ours(tmp_path / "ours", **given).gene("g0").codes.tolist() == [0, 254, 127]
    assert theirs(original, tmp_path / "theirs", **given).gene("g0").codes.tolist() == [0, 254, 254]


@pytest.mark.parametrize("value", [1e17, -1e17, 3.4028234e38, 1e-45, 0.0, 2.0**24])
def test_defect_05_large_constants_divide_by_zero(original, tmp_path, value):
    """1e17 + 1 is 1e17: no range to divide by. A constant must come back as it was."""
    value = np.float32(value)
    given = genes(np.full(N, value)) | {"var_quantization": 8}
    np.testing.assert_array_equal(ours(tmp_path / "ours", **given).gene("g0").decoded(), np.full(N, value))
    if abs(value) > 2.0**53:
        with pytest.raises(ZeroDivisionError):
            theirs(original, tmp_path / "theirs", **given)
        assert (tmp_path / "theirs" / "obs_manifest.json").exists()


@pytest.mark.parametrize("bad", [np.nan, np.inf], ids=["defect_06", "defect_07"])
def test_defect_06_and_07_one_bad_coordinate_spoils_all(original, tmp_path, bad):
    """One NaN (6) or infinity (7) takes every point with it, and the manifest stops being JSON."""
    points = arguments()["X_umap_2d"].copy()
    points[3, 0] = bad
    label = pd.Categorical(["a"] * N)
    given = arguments(X_umap_2d=points, obs=pd.DataFrame({"label": label}))
    refused(tmp_path / "ours", r"X_umap_2d: 1 cells are NaN or infinite.*\[3\]", **given)
    with pytest.raises(ValueError, match="is not JSON"):
        theirs(original, tmp_path / "theirs", **given)
    stored = np.fromfile(tmp_path / "theirs" / "points_2d.bin", "<f4").reshape(-1, 2)
    assert np.isnan(stored[:, 0]).all()


def test_defect_08_far_off_embeddings_collapse(original, tmp_path):
    """Cast to float32 before the middle is subtracted: 400 places become one."""
    points = np.stack(np.divmod(np.arange(400), 20), axis=1) / 19 + 1e8
    given = arguments(400, X_umap_2d=points)
    assert len(np.unique(ours(tmp_path / "ours", **given).points(2), axis=0)) == 400
    assert len(np.unique(theirs(original, tmp_path / "theirs", **given).points(2), axis=0)) == 1


def test_defect_09_tiny_embeddings_are_not_scaled(original, tmp_path):
    """An extent below 1e-8 is taken for 1: all points coincide."""
    given = arguments(X_umap_2d=arguments()["X_umap_2d"] * 1e-10)
    assert np.ptp(ours(tmp_path / "ours", **given).points(2), axis=0).max() == 2
    assert np.ptp(theirs(original, tmp_path / "theirs", **given).points(2), axis=0).max() < 1e-9


@pytest.mark.parametrize("n", [N + 1, N], ids=["defect_10", "defect_11"])
def test_defect_10_and_11_second_call_mixes_two_exports(original, tmp_path, n):
    """The old values under a new identity: of another length (10), or undetectably (11)."""
    first, second = arguments(), arguments(n, obs=pd.DataFrame({"score": np.full(n, 7.0)}))
    ours(tmp_path / "ours", **first)
    before = content(tmp_path / "ours")
    with pytest.raises(InputError, match="not empty"):
        prepare(out_dir=tmp_path / "ours", **second)
    assert content(tmp_path / "ours") == before
    replaced = ours(tmp_path / "ours", force=True, **second)
    assert replaced.continuous("score").codes.tolist() == [7] * n
    theirs(original, tmp_path / "theirs", **first)
    mixed = theirs(original, tmp_path / "theirs", **second)
    assert mixed.identity["stats"]["n_cells"] == n
    np.testing.assert_array_equal(mixed.continuous("score").codes, np.float32(first["obs"]["score"]))


def test_defect_12_old_gz_shadows_new_points(original, tmp_path):
    """Compressed once, plain with force: the viewer finds and draws the old points."""
    for write, shadow in ((ours, False), (lambda *a, **b: theirs(original, *a, **b), True)):
        out = tmp_path / str(shadow)
        write(out, compression=6, **arguments())
        write(out, force=True, **arguments())
        assert (out / "points_2d.bin.gz").exists() is shadow


@pytest.mark.parametrize("names", [("a/b", "a_b"), ("β", "γ")])
def test_defect_13_columns_share_a_file(original, tmp_path, names):
    """Two columns, one file: both show the last one's data."""
    table = pd.DataFrame({names[0]: np.zeros(N), names[1]: np.ones(N)})
    refused(tmp_path / "ours", "share the file name", **arguments(obs=table))
    renamed = ours(tmp_path / "ours", make_unique=True, **arguments(obs=table))
    values = [renamed.continuous(entry[0]).codes[0] for entry in renamed.obs["_continuousFields"]]
    assert values == [0, 1]
    mixed = theirs(original, tmp_path / "theirs", **arguments(obs=table))
    assert [mixed.continuous(name).codes[0] for name in names] == [1, 1]


def test_defect_14_genes_of_one_name_lose_the_first(original, tmp_path):
    """Both entries show the second gene."""
    given = genes(np.zeros(N), np.ones(N), np.full(N, 2.0)) | {"var": pd.DataFrame(index=["MATR3", "MATR3", "X"])}
    refused(tmp_path / "ours", "genes.*'MATR3'", **given)
    renamed = ours(tmp_path / "ours", make_unique=True, **given)
    assert renamed.genes() == ["MATR3", "MATR3-1", "X"]
    assert [renamed.gene(name).codes[0] for name in renamed.genes()] == [0, 1, 2]
    lossy = theirs(original, tmp_path / "theirs", **given)
    assert lossy.genes() == ["MATR3", "MATR3", "X"]
    assert lossy.gene("MATR3").codes[0] == 1


def barcodes(n):
    """A category for every cell."""
    column = pd.Categorical.from_codes(range(n), [f"c{number}" for number in range(n)])
    return arguments(n, obs=pd.DataFrame({"barcode": column}), centroid_outlier_quantile=None)


def test_defect_15_too_many_categories_wrap(original, tmp_path):
    """The 65,536th category reads as missing, the next as the first. And each costs a pass over all cells."""
    refused(tmp_path / "ours", "65,537 categories; uint16 holds 65,534", **barcodes(65_537))
    most = barcodes(65_534) | {"centroid_outlier_quantile": 0.95, "centroid_min_points": 1}
    started = time.perf_counter()
    folder = ours(tmp_path / "ours", **most)
    # 65,534 passes take half a minute.
    assert time.perf_counter() - started < 10
    np.testing.assert_array_equal(folder.codes("barcode"), np.arange(65_534))
    wrapped = theirs(original, tmp_path / "theirs", **barcodes(65_537))
    assert wrapped.codes("barcode")[-2:].tolist() == [65_535, 0]


def test_defect_16_categories_of_one_text(original, tmp_path):
    """1 and "1" become two categories that cannot be told apart."""
    given = arguments(obs=pd.DataFrame({"mixed": pd.Series([1, "1"] * (N // 2), dtype=object)}), centroid_min_points=2)
    refused(tmp_path / "ours", "read the same as text: '1'", **given)
    merged = ours(tmp_path / "ours", merge_equal_categories=True, **given)
    assert merged.category("mixed")[1] == ["1"]
    assert merged.codes("mixed").tolist() == [0] * N
    assert [entry["n_points"] for entry in merged.category("mixed")[4]["2"]] == [N - 1]
    split = theirs(original, tmp_path / "theirs", **given).category("mixed")
    assert split[1] == ["1", "1"]
    assert len(split[4]["2"]) == 2


def test_defect_17_numeric_column_label(original, tmp_path):
    """The label 1.0 names the file 1.0.values.f32; the viewer, given a JSON number, asks for 1.values.f32."""
    given = arguments(obs=pd.DataFrame({1.0: np.ones(N)}))
    assert ours(tmp_path / "ours", **given).continuous("1.0").codes[0] == 1
    assert theirs(original, tmp_path / "theirs", **given).obs["_continuousFields"] == [[1.0]]


@pytest.mark.filterwarnings("ignore")
def test_defect_18_values_are_lost_in_silence(original, tmp_path, capfd):
    """Integers above 2^24 are rounded, imaginary parts dropped."""
    large = np.arange(N) + 2**24
    report = prepare(out_dir=tmp_path / "large", **arguments(obs=pd.DataFrame({"id": large})))
    assert [text for text in report.warnings if "'id'" in text and "16,777,216" in text]
    fits = prepare(out_dir=tmp_path / "fits", **arguments(obs=pd.DataFrame({"id": large - N})))
    assert fits.warnings == []
    (tmp_path / "inside").mkdir()
    refused(tmp_path / "inside" / "complex", "complex128", **arguments(obs=pd.DataFrame({"z": large * 1j})))
    capfd.readouterr()
    for number, table in enumerate([{"id": large}, {"z": large * 1j}]):
        original.prepare(out_dir=tmp_path / str(number), **arguments(obs=pd.DataFrame(table)))
        assert "⚠" not in capfd.readouterr().out


def test_defect_19_dates_become_categories(original, tmp_path):
    """One category for each moment, without a word."""
    given = arguments(obs=pd.DataFrame({"when": pd.date_range("2020-01-01", periods=N)}))
    refused(tmp_path / "ours", r"obs\['when'\].*datetime64.*strftime", **given)
    assert len(theirs(original, tmp_path / "theirs", **given).category("when")[1]) == N


def everything(n=50):
    """All kinds of arguments at once, in the dtypes that invite working in place."""
    rng = np.random.default_rng(20)
    points = rng.normal(size=(n, 3)).astype(np.float32)
    graph = sp.random(n, n, 0.1, format="csr", random_state=1, dtype=np.float32)
    graph.indices[:2], graph.data[:2] = graph.indices[1::-1].copy(), graph.data[1::-1].copy()  # not sorted
    obs = pd.DataFrame({"x": rng.normal(size=n).astype(np.float32), "label": pd.Categorical(rng.choice(list("ab"), n))})
    return {
        "latent_space": rng.normal(size=(n, 4)).astype(np.float32),
        "obs": obs,
        "var": pd.DataFrame({"symbol": list("abc")}, index=list("xyz")),
        "gene_expression": sp.random(n, 3, 0.4, format="csc", random_state=2, dtype=np.float32),
        "connectivities": graph,
        "X_umap_2d": np.asfortranarray(points[:, :2]),
        "X_umap_3d": points,
        "vector_fields": {"velocity_umap_2d": points[:, 1:].copy(), "velocity_umap": points[::-1].copy()},
    }


def fingerprint(value):
    """Changes with every byte of an argument."""
    if isinstance(value, dict):
        return {key: fingerprint(item) for key, item in value.items()}
    if isinstance(value, pd.DataFrame):
        columns = [value.index, value.columns, *(value[key] for key in value)]
        return [hashlib.sha256(repr(column.tolist()).encode()).hexdigest() for column in columns] + [str(value.dtypes)]
    arrays = [value.data, value.indices, value.indptr] if sp.issparse(value) else [value]
    return [(array.dtype, array.flags.f_contiguous, hashlib.sha256(array.tobytes()).hexdigest()) for array in arrays]


@pytest.mark.parametrize("engine", ["fast", "reference"])
def test_defect_20_input_is_modified(original, tmp_path, engine):
    """float32 vectors are scaled in the caller's array, so the next export scales them again."""
    given = everything()
    before = fingerprint(given)
    quietly(prepare, out_dir=tmp_path / "ours", engine=engine, compression=6, var_quantization=8, **given)
    assert fingerprint(given) == before
    theirs(original, tmp_path / "theirs", **given)
    after = fingerprint(given)
    assert {key for key in given if after[key] != before[key]} == {"vector_fields"}


def test_defect_20_read_only_input_is_enough(tmp_path):
    """Proof that nothing is written to, even temporarily."""
    given = everything()
    for array in [
        *given["vector_fields"].values(),
        given["X_umap_3d"],
        given["latent_space"],
        given["connectivities"].data,
    ]:
        array.setflags(write=False)
    ours(tmp_path / "export", **given)


def test_defect_21_nan_in_a_vector_field(original, tmp_path):
    """Written as it is, though strict viewers refuse it."""
    moves = np.ones((N, 2))
    moves[4] = np.nan
    given = arguments(vector_fields={"velocity_umap_2d": moves})
    refused(tmp_path / "ours", r"'velocity_umap' 2D: 1 cells are NaN or infinite.*\[4\]", **given)
    assert np.isnan(theirs(original, tmp_path / "theirs", **given).vectors("velocity_umap", 2)).any()


def test_defect_22_late_errors_leave_half_a_folder(original, tmp_path):
    """The name of a vector field is looked at when points are written already."""
    given = arguments(vector_fields={"my field_2d": np.ones((N, 2))})
    refused(tmp_path / "ours", "'my field': has characters", **given)
    with pytest.raises(ValueError, match="unsupported characters"):
        theirs(original, tmp_path / "theirs", **given)
    assert {path.name for path in (tmp_path / "theirs").iterdir()} == {"obs", "vectors", "points_2d.bin"}


@pytest.mark.parametrize(
    "weights",
    [np.array([[0, 128, 1], [128, 0, 0], [1, 0, 0]], np.uint8), np.array([[0, 0.5, 1], [-0.5, 0, 0], [1, 0, 0]])],
    ids=["wraps", "cancels"],
)
@pytest.mark.parametrize("form", [np.array, sp.csr_matrix, sp.csc_array, sp.coo_matrix])
def test_defect_23_edges_disappear(original, tmp_path, weights, form):
    """Weights are added before they are dropped: 128 + 128 is 0 in uint8, and 0.5 - 0.5 anywhere."""
    given = arguments(3, connectivities=form(weights))
    found = ours(tmp_path / "ours", **given).edges()
    assert np.stack(found).tolist() == [[0, 0], [1, 2]]
    assert len(theirs(original, tmp_path / "theirs", **given).edges()[0]) == 1


def test_defect_24_self_loop_counts_as_neighbour(original, tmp_path):
    """max_neighbors is one too large, though the loop is not written."""
    given = arguments(3, connectivities=sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]])))
    mine, other = ours(tmp_path / "ours", **given), theirs(original, tmp_path / "theirs", **given)
    assert (mine.graph["n_edges"], mine.graph["max_neighbors"]) == (1, 1)
    assert (other.graph["n_edges"], other.graph["max_neighbors"]) == (1, 2)


def test_defect_25_graph_takes_a_python_step_per_entry():
    """0.4 µs and 65 bytes an edge; here a few nanoseconds, and no more than a few copies of the indices."""
    from atlaswriter.formats.cellucid.graph import EdgeStream, whole_room
    from atlaswriter.sources.memory import matrix_of

    def neighbours(n_cells):
        rng = np.random.default_rng(25)
        indices = rng.integers(0, n_cells, (n_cells, 10), dtype=np.int32)
        indptr = np.arange(0, 10 * n_cells + 1, 10, dtype=np.int32)
        indices.sort(axis=1)
        return matrix_of(sp.csr_array((np.ones(indices.size, np.float32), indices.ravel(), indptr)), "graph")

    graph = neighbours(100_000)

    def count():
        return sum(sources.size for sources, _ in EdgeStream(graph, whole_room(graph)))

    count()  # compiles
    started = time.process_time()
    n_edges = count()
    seconds = time.process_time() - started
    tracemalloc.start()
    count()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert n_edges > 990_000
    assert seconds / graph.nnz < 0.2e-6
    assert peak / n_edges < 20


def test_defect_26_equal_exports_differ(original, tmp_path):
    """The gzip header has the time and the file's name."""
    given = everything() | {"compression": 6, "dataset_name": "same"}
    for name in ("one", "two"):
        ours(tmp_path / name, created_at="2026-01-02T03:04:05Z", **copy.deepcopy(given))
    assert content(tmp_path / "one") == content(tmp_path / "two")
    packed = (tmp_path / "one" / "points_2d.bin.gz").read_bytes()
    assert (packed[3], packed[4:8]) == (0, bytes(4))
    theirs(original, tmp_path / "theirs", **given)
    packed = (tmp_path / "theirs" / "points_2d.bin.gz").read_bytes()
    assert packed[3] == 8
    assert packed[4:8] != bytes(4)


def test_defect_27_gene_count_is_the_width_of_the_matrix(original, tmp_path):
    """3 genes announced, 1 written, the unknown one only printed."""
    given = genes(np.zeros(N), np.ones(N), np.full(N, 2.0)) | {"gene_identifiers": ["g1"]}
    mine = ours(tmp_path / "ours", **given)
    assert (mine.identity["stats"]["n_genes"], mine.genes()) == (1, ["g1"])
    assert mine.gene("g1").codes[0] == 1
    (tmp_path / "inside").mkdir()
    refused(tmp_path / "inside" / "unknown", "'zz'", **given | {"gene_identifiers": ["g1", "zz"]})
    other = theirs(original, tmp_path / "theirs", **given | {"gene_identifiers": ["g1", "zz"]})
    assert (other.identity["stats"]["n_genes"], other.genes()) == (3, ["g1"])


def peak_per_cell(export, out, given):
    """Bytes per cell that an export needs beyond its input."""
    n_cells = len(given["obs"])
    tracemalloc.start()
    try:
        export(out, **given)
        return tracemalloc.get_traced_memory()[1] / n_cells
    finally:
        tracemalloc.stop()


def wide(kind, n, columns=20):
    """Many columns of one kind."""
    rng = np.random.default_rng(28)
    names = [f"column {number}" for number in range(columns)]
    sparse = sp.random(n, columns, 0.02, format="csr", random_state=28, dtype=np.float32)
    obs = pd.DataFrame({"one": np.ones(n, np.float32)})
    if kind == "numbers":
        return arguments(n, obs=pd.DataFrame({name: rng.normal(size=n).astype(np.float32) for name in names}))
    if kind == "categories":
        labels = [*map(str, range(20))]
        codes = rng.integers(0, 20, (columns, n), dtype=np.int8)
        table = {name: pd.Categorical.from_codes(row, labels) for name, row in zip(names, codes, strict=True)}
        return arguments(n, obs=pd.DataFrame(table))
    if kind == "genes":
        return arguments(n, obs=obs, gene_expression=sparse, var=pd.DataFrame(index=names))
    return arguments(n, obs=obs.assign(label=pd.Categorical(["a"] * n)), latent_space=sparse)


@pytest.mark.parametrize("kind", ["numbers", "categories", "genes", "sparse latent space"])
def test_defect_28_full_length_temporaries(original, tmp_path, kind):
    """Several temporaries of a column's length for each, and a dense float32 copy of a sparse latent space."""
    # Blocks of a sparse latent space take a few MiB, whatever its size.
    given = wide(kind, 400_000 if kind == "sparse latent space" else 100_000) | {
        "obs_continuous_quantization": 8,
        "var_quantization": 8,
    }
    prepare(out_dir=tmp_path / "warm", **arguments())
    peak = peak_per_cell(lambda out, **given: prepare(out_dir=out, **given), tmp_path / "ours", given | {"workers": 1})
    before = peak_per_cell(lambda out, **given: theirs(original, out, **given), tmp_path / "theirs", given)
    # One column at a time (30 bytes per cell at most), and codes of categories, a byte each.
    assert peak < 30 + 20, f"{peak:.0f} bytes per cell, {before:.0f} by the original"
    assert peak < before


def test_defect_28_categories_are_made_once(original, tmp_path, monkeypatch):
    """Sorting the texts of a column is the dearest part of it, and was done twice."""
    calls = []
    astype = pd.Series.astype
    monkeypatch.setattr(
        pd.Series, "astype", lambda self, dtype, *a, **b: calls.append(dtype) or astype(self, dtype, *a, **b)
    )
    given = arguments(obs=pd.DataFrame({"name": [*map(str, range(N))]}))
    ours(tmp_path / "ours", **given)
    assert calls.count("category") == 1
    theirs(original, tmp_path / "theirs", **given)
    assert calls.count("category") == 1 + 2
