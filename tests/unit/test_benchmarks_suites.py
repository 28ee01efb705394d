"""The suites of benchmarks: every kernel and codec is timed; what is compared with ours does the same job."""

import ast
import importlib
import inspect
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import atlaswriter as aw
import atlaswriter.codecs
from atlaswriter.kernels import _jit

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks import readme, synthetic
from benchmarks.macro import rivals

ROOT = Path(__file__).parents[2]
MICRO = ROOT / "benchmarks" / "micro"
# Functions of codecs that pass no content on.
NOT_TIMED = {
    "gzip.encoder_name",
    "sparse_gzip.longest",
    "sparse_gzip.takes",
    "sparse_gzip.wanted_by_repeats",
    "sparse_gzip.wanted_kernels",
}


def timed_in(path):
    """All that a module's benchmarks name in the work they measure, also where that is a function inside of them."""
    module = importlib.import_module(f"benchmarks.micro.{path.stem}")
    for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        inner = {one.name: one for one in ast.walk(function) if isinstance(one, ast.FunctionDef)}
        for call in ast.walk(function):
            if isinstance(call, ast.Call) and ast.unparse(call.func) in {"measure", "measure_fresh"}:
                work = call.args[1]
                work = inner.get(work.id, work) if isinstance(work, ast.Name) else work
                yield from named_in(work, module)


def named_in(work, module):
    """Attributes of modules, such as ``gzip.compress``."""
    for node in ast.walk(work):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield getattr(getattr(module, node.value.id, None), node.attr, None)


def timed():
    # Not in a set: not all that benchmarks name can be hashed.
    return [one for path in sorted(MICRO.glob("test_*.py")) for one in timed_in(path)]


def test_every_kernel_is_timed():
    found = {id(one) for one in timed()}
    kernels = [one for one in _jit._load_all() if one.function.__module__.startswith("atlaswriter.kernels.")]
    assert len(kernels) > 50
    assert {one.name for one in kernels if id(one) not in found} == set()


def test_every_codec_is_timed():
    found, missing = {id(one) for one in timed()}, set()
    for info in pkgutil.iter_modules(atlaswriter.codecs.__path__):
        module = importlib.import_module(f"atlaswriter.codecs.{info.name}")
        for name, function in vars(module).items():
            public = (
                not name.startswith("_") and inspect.isfunction(function) and function.__module__ == module.__name__
            )
            if public and id(function) not in found:
                missing.add(f"{info.name}.{name}")
    assert missing == NOT_TIMED


def test_the_baseline_writes_what_we_write(tmp_path):
    atlas = synthetic.atlas(300, 12, 0.3)
    atlas.obs["cell_type"] = atlas.obs["cell_type"].cat.remove_categories(["type 3"])  # some cells without one
    source, mine, theirs = (tmp_path / name for name in ("atlas.h5ad", "mine", "theirs"))
    atlas.write_h5ad(source)
    aw.cellucid(source, mine, latent="X_pca", compression=6, progress=False)
    command = [sys.executable, ROOT / "benchmarks" / "rivals" / "baseline.py", source, theirs]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=120).stdout)
    assert {"python", "anndata", "numpy"} <= set(report["versions"])
    assert 0 < report["seconds"] < 120
    assert report["peak_bytes"] > 1 << 20
    files = [path for path in theirs.rglob("*") if path.is_file()]
    assert (report["files"], report["output_bytes"]) == (len(files), sum(path.stat().st_size for path in files))
    assert aw.check(theirs).ok
    parts = aw.diff(mine, theirs, steps=1.0, atol=1e-6).parts
    assert [part.name for part in parts if not part.equal] == ["identity"]  # the folder's name


def program(name, does, seconds):
    cost = {"seconds": seconds, "cpu_seconds": seconds, "peak_bytes": 1 << 30, "output_bytes": 1 << 20, "files": 7}
    return rivals.Program(name, does, lambda source, out: {"exit_code": 0, **cost, "report": {}})


def test_nothing_is_put_in_relation_to_another_job(tmp_path, monkeypatch):
    def run_once(one, source, folder):
        out = folder / one.name / "atlas"
        out.mkdir(parents=True, exist_ok=True)
        return one.run(source, out), out

    monkeypatch.setattr(rivals, "run_once", run_once)
    monkeypatch.setattr(rivals, "differences", lambda mine, theirs: ["3 genes"])
    ours, slow = program("atlaswriter", rivals.EXPORT, 2.0), program("slow", rivals.EXPORT, 5.0)
    found = rivals.compare([ours, slow, program("other", rivals.ANNDATA, 9.0)], tmp_path, tmp_path, 2)
    assert found["slow"]["over_ours"]["seconds"] == 2.5
    assert found["slow"]["differs_from_ours_in"] == ["3 genes"]
    assert found["other"]["over_ours"] is None
    assert "differs_from_ours_in" not in found["other"]
    rows = readme.rival_table(found)
    assert [row for row in rows if "×" in row] == ["| slow | 5.0 | 5.0 | 1 GiB | 1 MiB | 7 | **2.5×** | 2.5× |"]
    assert rows[-1] == f"other does {rivals.ANNDATA}."


def told(*seconds):
    cost = {"seconds": seconds[0], "cpu_seconds": 1.0, "peak_bytes": 1 << 30, "output_bytes": 1 << 20, "files": 7}
    return {**cost, "all_seconds": list(seconds), "does": rivals.EXPORT, "over_ours": None}


@pytest.mark.parametrize(
    ("seconds", "options", "written"),
    [((2.0, 2.9), (), True), ((2.0, 3.1), (), False), ((2.0, 3.1), ("--keep-noisy",), True)],
    ids=["steady", "noisy", "noisy, kept"],
)
def test_noisy_results_are_not_written(tmp_path, monkeypatch, capsys, seconds, options, written):
    result = tmp_path / "rivals.json"
    result.write_text("old")
    monkeypatch.setattr(sys, "argv", ["rivals", "--json", str(result), "--folder", str(tmp_path), *options])
    monkeypatch.delenv("CELLDEGA027_PYTHON", raising=False)
    for name in ("warm_up", "make_atlas"):
        monkeypatch.setattr(rivals, name, lambda *_: None)
    monkeypatch.setattr(rivals, "describe_atlas", lambda _: {"cells": 5})
    monkeypatch.setattr(rivals, "compare", lambda *_: {"atlaswriter": told(1.0, 1.0), "slow": told(*seconds)})
    if written:
        rivals.main()
        assert json.loads(result.read_text())["jobs"]["atlas"]["programs"]["slow"]["all_seconds"] == list(seconds)
    else:
        with pytest.raises(SystemExit, match=r"nothing is written: slow \(atlas\): 1.55 times$"):
            rivals.main()
        assert result.read_text() == "old"
    assert "slow" in capsys.readouterr().out
