"""Too small a budget is refused before anything is written; what goes wrong later leaves nothing behind."""

import errno
import os
import re

import pytest

import atlaswriter as aw
from atlaswriter.engine import budget as budgets
from atlaswriter.engine import spill
from atlaswriter.errors import BudgetError, OutputError
from atlaswriter.formats.cellucid.genes import GeneWriter

from . import inputs as make

MIB = 1 << 20
RECIPE = {"cells": 6000, "genes": 150, "density": 0.2, "latent": 5, "neighbors": 6, "obs": ("kind:12", "score")}
KINDS = {
    "csr": (make.h5ad, {}),
    "csr, gzip": (make.h5ad, {"compression": "gzip"}),
    "csc": (make.h5ad, {"layout": "csc"}),
    "dense": (make.h5ad, {"layout": "dense"}),
    "zarr": (make.store, {}),
}
kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def atlas(inputs):
    return lambda kind: inputs(KINDS[kind][0], **RECIPE, **KINDS[kind][1])


@pytest.fixture
def folder(tmp_path):
    """Where exports and, in ``spill``, temporary files go."""
    (tmp_path / "spill").mkdir()
    return tmp_path


def left(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@kinds
@pytest.mark.parametrize("strategy", ["auto", "memory", "spill"])
@pytest.mark.parametrize("workers", [1, 3])
def test_just_too_small_a_budget(kind, strategy, workers, atlas, folder, monkeypatch):
    monkeypatch.setattr(budgets, "resident_memory", lambda: 1 << 30)
    options = {"strategy": strategy, "workers": workers, "spill_dir": folder / "spill"}
    least = aw.plan(atlas(kind), folder / "out", **options).least
    for one in (aw.plan, aw.cellucid):
        with pytest.raises(BudgetError) as caught:
            one(atlas(kind), folder / "out", memory_budget=least - MIB, **options)
        assert left(folder) == ["spill"]
    named = int(re.search(r"smallest budget that works is about (\d+)MiB", str(caught.value))[1])
    assert named <= -(-least // MIB)
    assert aw.cellucid(atlas(kind), folder / "out", memory_budget=f"{named}MiB", **options).files > 150
    assert sorted(path.name for path in folder.iterdir()) == ["out", "spill"]
    assert left(folder / "spill") == []


def failing(monkeypatch, owner, name, error, after):
    """Let a function fail when it was called some times."""
    usual, calls = getattr(owner, name), []

    def call(*args):
        calls.append(1)
        if len(calls) > after:
            raise error
        return usual(*args)

    monkeypatch.setattr(owner, name, call)
    return calls


@pytest.fixture(params=[False, True], ids=["beside", "spill_dir"])
def elsewhere(request, folder):
    return {"spill_dir": folder / "spill"} if request.param else {}


def exported_before(atlas, folder):
    """An export of something else is there already; what must be there afterwards as well."""
    aw.cellucid(atlas("csr"), folder / "out", genes=False, created_at="1999")
    return left(folder), (folder / "out" / "dataset_identity.json").read_bytes()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("strategy", ["memory", "spill"])
def test_a_gene_that_cannot_be_written(strategy, workers, atlas, folder, elsewhere, monkeypatch):
    before = exported_before(atlas, folder)
    calls = failing(monkeypatch, GeneWriter, "_sparse", OSError(errno.EIO, "no luck"), after=1)
    with pytest.raises((OSError, OutputError), match="no luck"):
        aw.cellucid(atlas("csr"), folder / "out", strategy=strategy, workers=workers, force=True, **elsewhere)
    assert len(calls) > 1
    assert (left(folder), (folder / "out" / "dataset_identity.json").read_bytes()) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_no_space_for_temporary_files(workers, atlas, folder, elsewhere, monkeypatch):
    before = exported_before(atlas, folder)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    failing(monkeypatch, spill, "_write_all", full, after=2)
    with pytest.raises(OutputError, match=r"temporary files cannot be written.*--spill-dir"):
        aw.cellucid(atlas("csr"), folder / "out", strategy="spill", workers=workers, force=True, **elsewhere)
    assert (left(folder), (folder / "out" / "dataset_identity.json").read_bytes()) == before


@pytest.mark.parametrize("workers", [1, 2])
def test_damaged_temporary_files(workers, atlas, folder, elsewhere, monkeypatch):
    before = exported_before(atlas, folder)
    monkeypatch.setattr(os, "pread", lambda *_: b"")
    with pytest.raises(OutputError, match="cut short"):
        aw.cellucid(atlas("csr"), folder / "out", strategy="spill", workers=workers, force=True, **elsewhere)
    assert (left(folder), (folder / "out" / "dataset_identity.json").read_bytes()) == before
