"""Whole jobs of the command line, each in a process of its own, from start to end and on disk.

    python -m pytest benchmarks/macro --benchmark-columns=median,stddev,rounds --benchmark-json=jobs.json

Inputs of some seconds are made first and deleted in the end. The time is that of the process and of its small
launcher; ``extra_info`` has its CPU seconds and its peak memory (of all rounds the largest), and the bytes and files
of the output. Kernels are compiled before.
"""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

import shutil

import pytest
from benchmarks import big
from benchmarks.macro.deepcell_vs_original import make_large
from benchmarks.process import atlaswriter, measured, program, warm_up
from benchmarks.rivals.adapter import size_of

from atlaswriter.bench.bundle import make_bundle

ROUNDS = 3
CELLS, GENES = 200_000, 2_000
TRANSCRIPTS = 2_000_000
FRAMES, EDGE = 40, 1024


@pytest.fixture(scope="session", autouse=True)
def _warm():
    warm_up()


@pytest.fixture(scope="module")
def atlas(tmp_path_factory):
    """Makes an atlas of a layout, once."""
    folder = tmp_path_factory.mktemp("atlases")

    def make(layout="csr"):
        path = folder / f"{layout}.h5ad"
        if not path.exists():
            # Dense matrices hold every zero.
            cells = CELLS // 4 if layout == "dense" else CELLS
            big.generate(path, big.Recipe(cells, GENES, 0.07, layout=layout, neighbors=15))
        return path

    yield make
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(folder / "xenium", TRANSCRIPTS, 500)
    yield folder / "xenium"
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def movie(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movie")
    yield make_large(folder / "movie.npz", FRAMES, EDGE)
    shutil.rmtree(folder)


@pytest.fixture
def job(benchmark, tmp_path):
    """Run a job some times; the report of the last run, and its output, which is checked."""
    out = tmp_path / "out.zip"

    def run(*arguments: object, command=atlaswriter, output=True):
        costs = []

        def work():
            costs.append(command(*arguments))

        def setup():
            shutil.rmtree(out, ignore_errors=True)
            out.unlink(missing_ok=True)

        benchmark.pedantic(work, setup=setup, rounds=ROUNDS)
        assert [cost["exit_code"] for cost in costs] == [0] * len(costs), costs[-1].get("error")
        benchmark.extra_info.update(
            cpu_seconds=min(cost["cpu_seconds"] for cost in costs),
            peak_bytes=max(cost["peak_bytes"] for cost in costs),
        )
        if output:
            benchmark.extra_info.update(size_of(out))
            assert atlaswriter("check", out)["exit_code"] == 0
        return costs[-1]["report"]

    run.out = out
    return run


@pytest.mark.parametrize("bits", [8, 16, "none"])
def test_cellucid(job, atlas, bits):
    job("cellucid", atlas(), job.out, "--quantize", bits)


@pytest.mark.parametrize("layout", ["csc", "dense"])
def test_cellucid_layouts(job, atlas, layout):
    job("cellucid", atlas(layout), job.out)


def test_cellucid_spilled(job, atlas):
    report = job("cellucid", atlas(), job.out, "--strategy", "spill")
    assert report["spill_bytes"] > 0


@pytest.mark.parametrize("mode", ["--loose-tiles", "--row-groups"])
def test_landscape(job, bundle, mode):
    job("landscape", bundle, job.out, mode)


@pytest.mark.parametrize("dtype", ["uint8", "keep"])
def test_deepcell(job, movie, dtype):
    job("deepcell", movie, job.out, "--image-dtype", dtype)


def test_version(job):
    """Start-up, of which imports are most."""
    job([program(), "--version"], command=measured, output=False)


def test_info(job):
    job("info", output=False)
