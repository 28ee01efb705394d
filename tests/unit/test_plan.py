"""What an export will take, said before it starts."""

import json
import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from anndata import AnnData

import atlaswriter as aw
from atlaswriter.cli.main import run
from atlaswriter.engine import budget
from atlaswriter.engine.strategy import choose, entries_of, is_grouped, least_room, whole_room
from atlaswriter.errors import BudgetError, InputError, OutputError
from atlaswriter.sources.base import Compressed
from atlaswriter.sources.memory import matrix_of


def atlas(n_cells=3000, n_genes=200, density=0.1, graph=True):
    rng = np.random.default_rng(0)
    X = sp.random_array((n_cells, n_genes), density=density, format="csr", dtype=np.float32, rng=rng)
    obs = pd.DataFrame({"kind": pd.Categorical(rng.choice(["a", "b"], n_cells)), "score": rng.normal(size=n_cells)})
    obs.index = [f"c{i}" for i in range(n_cells)]
    result = AnnData(X, obs=obs, var=pd.DataFrame(index=[f"g{i}" for i in range(n_genes)]))
    result.obsm["X_umap"] = rng.normal(size=(n_cells, 2)).astype(np.float32)
    result.obsm["X_pca"] = rng.normal(size=(n_cells, 5)).astype(np.float32)
    if graph:
        result.obsp["connectivities"] = sp.random_array((n_cells, n_cells), density=0.003, format="csr", rng=rng)
    return result


@pytest.fixture
def h5ad(tmp_path):
    path = tmp_path / "a.h5ad"
    atlas().write_h5ad(path)
    return path


def test_nothing_is_written(h5ad, tmp_path):
    before = sorted(tmp_path.iterdir())
    plan = aw.plan(h5ad, tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == before
    assert plan.spill_bytes == 0
    assert plan.least < plan.memory <= plan.budget


@pytest.mark.parametrize("options", [{}, {"genes": False, "graph": False}, {"compression": None, "latent": False}])
def test_files_and_bytes_are_those_of_the_export(h5ad, tmp_path, options):
    plan = aw.plan(h5ad, tmp_path / "out", **options)
    report = aw.cellucid(h5ad, tmp_path / "out", **options)
    assert plan.files == report.files
    assert 0.5 < plan.bytes_out / report.bytes_out < 2
    assert report.peak_memory > 0
    assert report.contents.get("regrouping") == (None if plan.choice is None else str(plan.choice))


def test_smallest_budget_works_and_less_is_refused(h5ad, tmp_path, monkeypatch):
    monkeypatch.setattr(budget, "resident_memory", lambda: 2**30)
    least = aw.plan(h5ad, tmp_path / "out").least
    with pytest.raises(BudgetError) as caught:
        aw.plan(h5ad, tmp_path / "out", memory_budget=least - 2**20)
    assert int(re.search(r"about (\d+)MiB", str(caught.value))[1]) <= -(-least // 2**20)
    with pytest.raises(BudgetError):
        aw.cellucid(h5ad, tmp_path / "out", memory_budget=least - 2**20)
    assert not (tmp_path / "out").exists()
    assert aw.plan(h5ad, tmp_path / "out", memory_budget=least).least == least
    assert aw.cellucid(h5ad, tmp_path / "out", memory_budget=least).files > 200


def test_strategy_can_be_chosen(h5ad, tmp_path):
    assert str(aw.plan(h5ad, tmp_path / "out", strategy="memory").choice).startswith("in memory")
    plan = aw.plan(h5ad, tmp_path / "out", strategy="spill")
    assert plan.choice.strategy == "spill"
    assert plan.spill_bytes > 0
    report = aw.cellucid(h5ad, tmp_path / "out", strategy="spill", spill_dir=tmp_path)
    assert 0.3 < plan.spill_bytes / report.spill_bytes < 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5ad", "out"]
    with pytest.raises(InputError, match="strategy"):
        aw.plan(h5ad, tmp_path / "other", strategy="fast")
    with pytest.raises(InputError, match=r"spill_dir.*no folder"):
        aw.plan(h5ad, tmp_path / "other", spill_dir=tmp_path / "nowhere")
    with pytest.raises(TypeError, match=r"'stratgy'"):
        aw.plan(h5ad, tmp_path / "other", stratgy="spill")


def test_full_disk_is_refused_before_anything_is_written(h5ad, tmp_path, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(100, 90, 10))
    with pytest.raises(OutputError, match=r"temporary files are needed, 10 B are free.*--spill-dir"):
        aw.cellucid(h5ad, tmp_path / "out", strategy="spill")
    assert not (tmp_path / "out").exists()
    assert aw.cellucid(h5ad, tmp_path / "out", strategy="memory").spill_bytes == 0


def test_command(h5ad, tmp_path, capsys):
    assert run(["plan", str(h5ad), str(tmp_path / "out"), "-M", "2GiB", "-j", "2"]) == 0
    shown = capsys.readouterr().out
    for part in ("with 2 threads", "of 2 GiB", "smallest budget", "in memory", "temporary files  none", "files"):
        assert part in shown or part == "with 2 threads"
    assert run(["plan", str(h5ad), str(tmp_path / "out"), "--json", "--genes", "none"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["choice"] is None
    assert set(plan) >= {"seconds", "memory", "least", "spill_bytes", "files", "bytes_out"}
    assert run(["plan", str(h5ad), str(tmp_path / "out"), "-M", "10MiB"]) == 4
    assert "smallest budget that works" in capsys.readouterr().err
    assert "<table>" in aw.plan(h5ad, tmp_path / "out")._repr_html_()


class Stored:
    """An array elsewhere, of any size: only its header is looked at."""

    grain, overhead = 1, 0

    def __init__(self, shape, dtype, speed=8e9):
        self.shape, self.dtype, self.speed = shape, np.dtype(dtype), speed


def stored_csr(n_cells, n_genes, nnz, speed=8e9):
    arrays = Stored((n_cells + 1,), "i8", speed), Stored((nnz,), "i4", speed), Stored((nnz,), "f4", speed)
    return Compressed((n_cells, n_genes), *arrays, 0, "X")


def test_one_batch_where_it_fits_and_a_spill_where_reading_is_dear():
    for speed, expected in ((8e9, "memory"), (1e8, "spill")):
        matrix = stored_csr(1_000_000, 10_000, 500_000_000, speed)
        assert choose(matrix, 10_000, 2, 1 << 40).strategy == "memory"
        assert choose(matrix, 10_000, 2, 1 << 30).strategy == expected
    assert choose(stored_csr(1_000_000, 10_000, 500_000_000, 4e8), 10_000, 2, 1 << 40).load


def test_room_is_kept():
    for matrix in (stored_csr(1_000_000, 10_000, 500_000_000), Stored((100_000, 3000), "f4")):
        for strategy in ("auto", "memory", "spill"):
            least, whole = (limit(matrix, 3000, 2, strategy) for limit in (least_room, whole_room))
            for room in np.linspace(least, whole, 7).astype(int).tolist():
                assert choose(matrix, 3000, 2, room, strategy).needs(0) <= room
            for encoding in (0, 1 << 20, 1 << 30):
                room = least_room(matrix, 3000, 2, strategy, encoding)
                assert choose(matrix, 3000, 2, room, strategy, encoding).needs(encoding) <= room


def test_less_room_is_slower():
    matrix = stored_csr(1_000_000, 10_000, 500_000_000)
    least, whole = least_room(matrix, 10_000, 2, "memory"), whole_room(matrix, 10_000, 2, "memory")
    seconds = [choose(matrix, 10_000, 2, room, "memory").seconds for room in np.linspace(least, whole, 9).astype(int)]
    assert seconds == sorted(seconds, reverse=True)
    assert seconds[0] > seconds[-1]


def test_kinds_of_matrices():
    X = atlas(graph=False).X
    assert is_grouped(matrix_of(X.tocsc(), "X"))
    assert not is_grouped(matrix_of(X, "X"))
    assert is_grouped(np.asfortranarray(X.toarray()))
    assert not is_grouped(X.toarray())
    assert entries_of(matrix_of(X, "X"), 100) == X.nnz // 2
    assert entries_of(X.toarray(), 100) == 300_000
