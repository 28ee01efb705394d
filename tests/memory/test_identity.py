"""The same bytes for every strategy, budget, number of workers and source."""

import anndata
import pytest

import atlaswriter as aw
from atlaswriter.engine import budget as budgets

from . import inputs as make

RECIPE = {
    "cells": 9000, "genes": 110, "density": 0.15, "latent": 6, "neighbors": 8, "obs": ("kind:12", "half:5", "score"),
}  # fmt: skip
FIXED = {"created_at": "2000-01-01T00:00:00Z", "dataset_name": "atlas"}
SOURCES = ("contiguous", "gzip", "lzf", "zarr 3", "zarr 2", "memory", "backed")
BITS = {"8 bit": 8, "16 bit": 16, "float32": None}


@pytest.fixture(autouse=True)
def _holds_a_gibibyte(monkeypatch):
    """What the process holds is the same each time, so that budgets are exact."""
    monkeypatch.setattr(budgets, "resident_memory", lambda: 1 << 30)


@pytest.fixture(scope="session")
def source(inputs):
    """Opens the atlas from where a name says."""
    options = {"contiguous": {}, "gzip": {"compression": "gzip"}, "lzf": {"compression": "lzf"}}

    def get(name):
        if name.startswith("zarr"):
            return inputs(make.store, **RECIPE, zarr_format=int(name[-1]))
        path = inputs(make.h5ad, **RECIPE, **options.get(name, {}))
        if name in options:
            return path
        return anndata.read_h5ad(path, backed="r" if name == "backed" else None)

    return get


def export(source, folder, **options):
    """Content of every file of an export, which leaves nothing beside it."""
    out = folder / "out"
    given = {**FIXED, **options}
    report = aw.cellucid(source, out, force=True, **given)
    assert [path.name for path in folder.iterdir()] == ["out"]
    files = {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return files, report


@pytest.fixture(scope="session")
def expected(source, tmp_path_factory):
    """What an export from memory without a limit on one thread gives."""
    known = {}

    def get(bits):
        if bits not in known:
            options = {"workers": 1, "strategy": "memory", "var_quantization": BITS[bits]}
            known[bits], _ = export(source("memory"), tmp_path_factory.mktemp("expected"), **options)
            assert len(known[bits]) > 115
        return known[bits]

    return get


def limits(source, folder, **options):
    """Smallest budget that works, one between, and one with which nothing is gained by more."""
    given = {**FIXED, "force": True, **options}
    least = aw.plan(source, folder / "out", **given).least
    most = aw.plan(source, folder / "out", **given, memory_budget=8 << 30).memory
    assert least < most
    return least, (least + most) // 2, 8 << 30


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.mark.parametrize("strategy", ["auto", "memory", "spill"])
@pytest.mark.parametrize("name", SOURCES)
def test_strategies_budgets_and_workers(name, strategy, source, expected, tmp_path):
    opened, wanted = source(name), expected("8 bit")
    for workers in (1, 2, 4):
        options = {"workers": workers, "strategy": strategy, "var_quantization": 8}
        for budget in limits(opened, tmp_path, **options):
            found, report = export(opened, tmp_path, **options, memory_budget=budget)
            assert_same(found, wanted)
            assert strategy == "auto" or ("spill" in report.contents["regrouping"]) is (strategy == "spill")


@pytest.mark.parametrize("bits", ["16 bit", "float32"])
@pytest.mark.parametrize("strategy", ["memory", "spill"])
def test_other_outputs(bits, strategy, source, expected, tmp_path):
    opened, options = source("gzip"), {"workers": 2, "strategy": strategy, "var_quantization": BITS[bits]}
    for budget in limits(opened, tmp_path, **options):
        assert_same(export(opened, tmp_path, **options, memory_budget=budget)[0], expected(bits))


def test_small_room_for_tables_and_graph(source, expected, tmp_path, monkeypatch):
    """Distances are ranked by way of temporary files, the lower half of the graph is read in parts."""
    from atlaswriter.formats.cellucid import graph, groups, ranks

    monkeypatch.setattr(ranks, "_LEAST_RUN", 4)
    monkeypatch.setattr(groups, "BLOCK_BYTES", 1 << 12)
    monkeypatch.setattr(graph, "_BLOCK_ENTRIES", 1 << 12)
    options = {"workers": 2, "genes": False}
    wanted, _ = export(source("memory"), tmp_path, **options)
    least = limits(source("contiguous"), tmp_path, **options)[0]
    found, _ = export(source("contiguous"), tmp_path, **options, memory_budget=least)
    assert_same(found, wanted)
