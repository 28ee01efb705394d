"""Large benchmarks, small: files of any size, measured processes, and what is made of the numbers."""

import sys
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

import atlaswriter as aw
from atlaswriter.bench import atlas as big
from atlaswriter.bench.sampling import Genes
from atlaswriter.bench.settings import number

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import plots, process, readme
from benchmarks.macro import any_size, growth, workers

SMALL = big.Recipe(3000, 50, 0.1)


def made(folder, **changes):
    path = folder / "atlas.h5ad"
    big.generate(path, big.Recipe(**{**vars(SMALL), **changes}))
    return anndata.read_h5ad(path)


@pytest.mark.parametrize("compression", ["none", "gzip", "lzf"])
@pytest.mark.parametrize("layout", ["csr", "csc", "dense"])
def test_anndata_reads_what_is_generated(tmp_path, layout, compression):
    atlas = made(tmp_path, layout=layout, compression=compression, neighbors=15)
    assert atlas.shape == (3000, 50)
    assert atlas.X.dtype == np.float32
    if layout != "dense":
        assert atlas.X.format == layout
        assert atlas.X.has_canonical_format  # sorted and unique
        assert (atlas.X.indices.dtype, atlas.X.indptr.dtype) == (np.int32, np.int32)
        assert (atlas.X.indptr[0], atlas.X.indptr[-1]) == (0, atlas.X.nnz)
        assert atlas.X.data.min() > 0
    assert np.count_nonzero(atlas.X.toarray() if layout != "dense" else atlas.X) == pytest.approx(15_000, rel=0.05)
    assert {key: array.shape for key, array in atlas.obsm.items()} == {
        "X_pca": (3000, 10), "X_umap_2d": (3000, 2), "X_umap_3d": (3000, 3),
    }  # fmt: skip
    assert {array.dtype for array in atlas.obsm.values()} == {np.dtype(np.float32)}
    assert atlas.obs_names.is_unique
    assert atlas.obs_names[[0, -1]].tolist() == ["c0000", "c2999"]
    assert list(atlas.obs) == ["cell_type", "donor", "n_counts", "n_genes", "pct_mito", "score"]
    assert [len(atlas.obs[key].cat.categories) for key in ("cell_type", "donor")] == [30, 200]
    assert atlas.obs["pct_mito"].between(0, 100).all()
    assert np.isfinite(atlas.obs.iloc[:, 2:].to_numpy()).all()


def test_dense_is_the_same_matrix_as_csr(tmp_path):
    rows = made(tmp_path).X
    np.testing.assert_array_equal(made(tmp_path, layout="dense").X, rows.toarray())


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_every_gene_has_its_density(tmp_path, layout):
    cells = 40_000
    matrix = made(tmp_path, cells=cells, layout=layout, obs=()).X.tocsc()
    shares = -np.expm1(-np.diff(Genes.of(50, 0.1, 0).hazards))
    assert shares.max() > 4 * shares.min()
    deviations = (np.diff(matrix.indptr) / cells - shares) / np.sqrt(shares * (1 - shares) / cells)
    assert np.abs(deviations).max() < 4.5
    assert deviations.std() < 1.4


def test_many_genes_and_few(tmp_path):
    wide = made(tmp_path, cells=2000, genes=10_000, density=0.05, obs=()).X
    assert wide.nnz == pytest.approx(0.05 * 2000 * 10_000, rel=0.02)
    assert wide.has_canonical_format
    assert made(tmp_path, genes=1, density=0.5).X.shape == (3000, 1)
    assert made(tmp_path, genes=0).X is None


def test_a_recipe_means_its_bytes(tmp_path, monkeypatch):
    first, second = tmp_path / "first.h5ad", tmp_path / "second.h5ad"
    big.generate(first, SMALL)
    big.generate(second, SMALL)
    assert first.read_bytes() == second.read_bytes()
    monkeypatch.setattr(big, "_THREADS", 1)
    monkeypatch.setattr(big, "_ENTRIES", 1000)
    big.generate(second, SMALL)
    assert first.read_bytes() == second.read_bytes()
    big.generate(second, big.Recipe(**{**vars(SMALL), "seed": 1}))
    assert first.read_bytes() != second.read_bytes()


def test_columns_of_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(big, "_BLOCK", 1 << 10)
    monkeypatch.setattr(big, "_COLUMN_PART", 1 << 10)
    atlas = made(tmp_path, layout="csc", chunk=777, compression="lzf")
    assert atlas.X.has_canonical_format
    assert atlas.X.nnz == pytest.approx(0.1 * 3000 * 50, rel=0.05)
    assert len(np.unique(atlas.obs["score"])) > 2990  # no block repeats another
    assert atlas.obs_names.is_unique


@pytest.mark.parametrize("cells", [100, 4096, 3 * 4096 + 5])
def test_the_graph_is_symmetric(tmp_path, cells, monkeypatch):
    monkeypatch.setattr(big, "_ENTRIES", 1)
    graph = made(tmp_path, cells=cells, genes=0, neighbors=15).obsp["connectivities"]
    assert graph.has_canonical_format
    assert (graph != graph.T).nnz == 0
    assert not graph.diagonal().any()
    assert (np.diff(graph.indptr)[: cells // 4096 * 4096] == 15).all()


@pytest.mark.parametrize(("nonzeros", "dtype"), [(2**31 - 1, np.int32), (2**31, np.int64)])
def test_row_pointers_are_wide_where_scipy_makes_them_wide(nonzeros, dtype):
    with h5py.File("nowhere", "w", driver="core", backing_store=False) as file:
        group, indptr, indices, _ = big._Writer(SMALL)._compressed(file, "X", "csr_matrix", 3000, nonzeros)
        assert (indptr.dtype, indices.dtype, indices.shape) == (dtype, np.int32, (nonzeros,))
        assert group.attrs["encoding-type"] == "csr_matrix"


def test_files_are_made_once(tmp_path):
    path = tmp_path / "new" / "atlas.h5ad"
    found = big.ensure(path, SMALL)
    assert found["generated_in_seconds"] is not None
    assert (found["cells"], found["genes"], found["input_bytes"]) == (3000, 50, path.stat().st_size)
    written = path.stat().st_mtime_ns
    assert big.ensure(path, SMALL)["generated_in_seconds"] is None
    assert path.stat().st_mtime_ns == written
    assert big.ensure(path, big.Recipe(2000, 50))["cells"] == 2000
    assert not big.is_made_by(path, SMALL)
    path.write_bytes(b"not HDF5")
    assert not big.is_made_by(path, SMALL)
    assert [file.name for file in path.parent.iterdir()] == ["atlas.h5ad"]


@pytest.mark.parametrize(("text", "value"), [("100_000", 100_000), ("1,000", 1000), ("1e6", 1_000_000), ("12", 12)])
def test_numbers(text, value):
    assert number(text) == value


def test_it_can_be_exported(tmp_path):
    big.generate(tmp_path / "atlas.h5ad", SMALL)
    report = aw.cellucid(tmp_path / "atlas.h5ad", tmp_path / "export", workers=1)
    assert report.contents["cells"] == 3000
    assert aw.check(tmp_path / "export").ok


def test_reading_and_regrouping_finds_every_entry(tmp_path):
    path = tmp_path / "atlas.h5ad"
    found = big.ensure(path, big.Recipe(3000, 50, 0.1, compression="gzip"))
    assert any_size.read_and_regroup(path, 2) == found["nonzeros"]


@pytest.mark.skipif(sys.platform != "linux", reason="as Linux counts")
def test_processes_are_measured_alone():
    held = np.ones(40_000_000)  # 300 MiB here are no memory of the child
    small = process.measured([sys.executable, "-c", "print('{}')"])
    large = process.measured([sys.executable, "-c", "x = b'1' * (200 << 20); sum(range(10**6))"])
    assert held.nbytes > small["peak_bytes"]
    assert 1 << 20 < small["peak_bytes"] < 100 << 20
    assert 200 << 20 < large["peak_bytes"] < 600 << 20
    assert small["exit_code"] == 0
    assert small["report"] == {}
    assert 0 < large["cpu_seconds"] < large["seconds"] * 2
    failed = process.measured([sys.executable, "-c", "import sys; sys.exit('no luck')"])
    assert (failed["exit_code"], failed["error"].strip(), failed["report"]) == (1, "no luck", None)
    assert process.line("name", failed).endswith("exit code 1: no luck")


def test_reports_are_kept_without_paths(tmp_path):
    report = {"output": "/here", "contents": {"source": "/there", "cells": 3}, "findings": [{"rule": "a"}]}
    assert process._kept(report) == {"contents": {"cells": 3}, "findings": ["a"]}


def test_programs_that_are_not_there(tmp_path):
    with pytest.raises(SystemExit, match="gone could not be started"):
        process.measured([str(tmp_path / "gone")])


def test_exports_say_what_they_spilled(tmp_path, monkeypatch):
    reports = iter([{"exit_code": 0, "report": {"spill_bytes": 5}}, {"exit_code": 4, "report": None}])
    monkeypatch.setattr(process, "atlaswriter", lambda *_: next(reports))
    assert process.export(tmp_path / "atlas.h5ad", tmp_path / "out")["spill_bytes"] == 5
    assert process.export(tmp_path / "atlas.h5ad", tmp_path / "out")["spill_bytes"] is None


def test_differences_between_exports(tmp_path):
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        (tmp_path / name / "var").mkdir(parents=True)
        (tmp_path / name / "var" / "gene").write_text(content)
    found = {name: process.hashes(tmp_path / name) for name in "abc"}
    assert any_size.differences({"a": found["a"], "b": found["b"]}) == []
    assert any_size.differences(found) == ["var/gene"]
    assert any_size.differences({"a": found["a"], "b": {}}) == ["var/gene"]


def test_failed_runs_meet_no_goal():
    run = {"exit_code": 4, "seconds": 0.1}
    assert any_size.goal("seconds", any_size.of(run, "seconds"), 600)["met"] is False
    assert any_size.goal("seconds", any_size.of({**run, "exit_code": 0}, "seconds"), 600)["met"] is True


def _size(cells, seconds, exit_code=0):
    cost = {"exit_code": exit_code, "seconds": seconds, "cpu_seconds": 2 * seconds, "peak_bytes": cells * 1000}
    return {"data": {"cells": cells, "nonzeros": 9 * cells, "input_bytes": 100 * cells}, "unlimited": cost,
            "budget": {**cost, "exit_code": exit_code or int(cells > 200_000)}}  # fmt: skip


def test_growth_is_fitted_and_drawn(tmp_path):
    sizes = [_size(100_000 * times, 3 * times**1.1) for times in (1, 2, 4, 8)]
    found = growth.exponents(sizes)
    assert found["unlimited"]["seconds"] == pytest.approx(1.1)
    assert found["budget"]["cpu_seconds_of_largest"] == pytest.approx(1.1)
    assert growth.exponents([_size(10, 1.0, exit_code=4)])["unlimited"]["seconds"] is None
    pytest.importorskip("matplotlib")
    report = {"budget": "1GiB", "sizes": sizes, "exponents": found}
    for name in ("one", "two"):
        growth.plot(report, tmp_path / f"{name}.json")
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


@pytest.mark.parametrize(
    ("cpus", "found"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 3, 4, 5, 6]), (32, [*range(1, 9), 12, 18, 27, 32])]
)
def test_numbers_of_threads(cpus, found):
    assert workers.widths(cpus) == found


def test_scaling_is_computed_and_drawn(tmp_path):
    runs = {1: [{"seconds": 4.0, "cpu_seconds": 4.0}], 2: [{"seconds": 2.5, "cpu_seconds": 4.5}]}
    found = workers.scaling(runs)
    assert (found["1"]["speedup"], found["2"]["speedup"], found["2"]["efficiency"]) == (1, 1.6, 0.8)
    pytest.importorskip("matplotlib")
    report = {
        "machine": {"usable_cpus": 2, "cpu": "some"}, "cpus": 2, "data": {"cells": 10, "genes": 3},
        "results": {"prepare": found, "process": found},
    }  # fmt: skip
    workers.plot(report, tmp_path / "workers.json")
    assert (tmp_path / "workers.svg").exists()


def test_short_numbers():
    assert [plots.short(count) for count in (12, 62_500, 1e6, 2.5e9)] == ["12", "62.5k", "1M", "2.5G"]


def test_the_readme_tells_what_was_measured_at_full_size():
    run = {"exit_code": 0, "seconds": 61.23, "peak_bytes": 3 << 30, "budget_bytes": 4 << 30, "output_bytes": 2 << 30}
    result = {
        "date": "2026-01-01", "machine": {"usable_cpus": 2, "cpu": "some CPU"}, "workers": 2, "full_size": True,
        "ok": True,
        "data": {"cells": 100_000_000, "genes": 40, "nonzeros": 120_000_000, "input_bytes": 6 << 30},
        "runs": {"export": {**run, "spill_bytes": 1 << 30}, "check": run},
    }  # fmt: skip
    text = readme.any_size({"any_size": {"results": {"atlas100m": result}}})
    row = "| 100 million cells | 100,000,000 × 40 | 120,000,000 | 6 GiB | 4 GiB | 3 GiB | 61.2 | 61.2 | 1 GiB | 2 GiB |"
    assert row in text.splitlines()
    assert text.startswith("### At any size\n\n")
    result["runs"]["export"]["exit_code"] = 4
    assert "| 4 GiB | failed |" in readme.any_size({"any_size": {"results": {"atlas100m": result}}})
    small = {"any_size": {"results": {"atlas100m": {**result, "full_size": False}}}}
    assert "100 million" not in readme.any_size(small)
    assert readme.any_size({}) == ""


def test_the_readme_tells_of_growth_and_threads():
    sizes = [_size(100_000 * times, 3.0 * times) for times in (1, 2, 4)]
    found = workers.scaling({1: [{"seconds": 4.0}], 2: [{"seconds": 2.5}]})
    text = readme.any_size(
        {
            "growth": {"budget": "1GiB", "sizes": sizes, "exponents": growth.exponents(sizes)},
            "workers": {"data": {"cells": 400_000, "genes": 2000}, "machine": {"usable_cpus": 2},
                        "results": {"prepare": found, "process": found}},
        }
    )  # fmt: skip
    assert "From 100,000 to 400,000 cells" in text
    assert "1.00 with the default budget, 1.00 in 1GiB" in text
    assert "benchmarks/results/growth.svg" in text
    assert "`prepare` in process 1.60× with 2" in text
