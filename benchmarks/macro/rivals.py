"""Every program that is installed, beside ours, on the same data, turn by turn: whole processes, start to end.

    python -m benchmarks.macro.rivals --cellucid009 PYTHON --cellucid095 PYTHON --celldega027 PYTHON --folder DISK

Options name the Python of each program's environment (or $CELLUCID009_PYTHON, $CELLUCID095_PYTHON and
$CELLDEGA027_PYTHON); programs that are not there are left out. The baseline (anndata, scipy and gzip, in one thread)
runs in this environment. Exports in the same format are compared by content: within one quantisation step of ours.
cellucid 0.9.5 reads the same atlas but does another job, so nothing of it is put in relation to ours. One run of ours
goes first, which compiles kernels and brings the data into memory. Times are medians. Outputs are deleted; data made in
`--folder` stay. Where repeated runs of one program spread by more than 1.5 times, something else ran on the machine:
the results are shown but not written, unless with `--keep-noisy`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
from benchmarks import synthetic
from benchmarks.macro.growth import median
from benchmarks.macro.prepare_vs_cellucid import ROOT
from benchmarks.process import atlaswriter, circumstances, line, measured, warm_up, workplace, write_json
from benchmarks.rivals.adapter import size_of, versions

from atlaswriter.bench.bundle import make_bundle

RIVALS = ROOT / "benchmarks" / "rivals"
EXPORT = "Cellucid export folder, 8 bit, gzip level 6, with graph and outlier quantiles"
ANNDATA = "another job: a Cellucid-ready AnnData (.h5ad), deflate level 6, not quantised"
LANDSCAPE = "LandscapeFiles, loose tiles"
# Programs that have an environment of their own.
_ELSEWHERE = {"cellucid009": "cellucid 0.0.9", "cellucid095": "cellucid 0.9.5", "celldega027": "celldega 0.27.0"}
_PACKAGES = ("atlaswriter", "numba", "numpy", "scipy", "anndata", "pyarrow", "isal")
_OF_OURS = ("seconds", "cpu_seconds", "peak_bytes", "output_bytes")
# The slowest run of a program over its fastest, at most.
MOST_SPREAD = 1.5


@dataclass(frozen=True)
class Program:
    """One that is measured.

    Parameters
    ----------
    name
        With its version.
    does
        What it writes; only programs that do the same are put in relation.
    run
        Takes the data and a path for the output, and tells what it cost.
    """

    name: str
    does: str
    run: Callable[[Path, Path], dict[str, Any]]
    suffix: str = ""


def adapter(name: str, python: str, does: str, module: str, suffix: str = "") -> Program:
    """A program that an adapter starts."""
    command = [python, str(RIVALS / f"{module}.py")]
    return Program(name, does, lambda source, out: measured([*command, str(source), str(out)]), suffix)


def ours(does: str, *arguments: object) -> Program:
    """Our command line."""
    verb, *more = arguments
    return Program("atlaswriter", does, lambda source, out: atlaswriter(verb, source, out, *more))


def exporters(options: argparse.Namespace) -> list[Program]:
    """Programs that take an atlas, ours first."""
    how = ("--latent", "X_pca", "--quantize", 8, "--compression", 6, "-j", options.workers)
    found = [ours(EXPORT, "cellucid", *how), adapter("baseline", sys.executable, EXPORT, "baseline")]
    if options.cellucid009:
        found.append(adapter("cellucid 0.0.9", options.cellucid009, EXPORT, "cellucid009"))
    if options.cellucid095:
        found.append(adapter("cellucid 0.9.5", options.cellucid095, ANNDATA, "cellucid095", ".h5ad"))
    return found


def tilers(options: argparse.Namespace) -> list[Program]:
    """Programs that take a Xenium bundle, ours first; none when there is nothing beside ours."""
    if not options.celldega027:
        return []
    rival = adapter("celldega 0.27.0", options.celldega027, LANDSCAPE, "celldega027")
    return [ours(LANDSCAPE, "landscape", "-j", options.workers), rival]


def run_once(program: Program, source: Path, folder: Path) -> tuple[dict[str, Any], Path]:
    """Run a program; what it cost, and its output."""
    out = folder / program.name.replace(" ", "-") / f"atlas{program.suffix}"
    shutil.rmtree(out.parent, ignore_errors=True)
    out.parent.mkdir()
    cost = program.run(source, out)
    if cost["exit_code"]:
        raise SystemExit(f"{program.name}:\n{cost['error']}")
    cost |= size_of(out)
    print(line(program.name, cost), flush=True)
    return cost, out


def compare(programs: list[Program], source: Path, folder: Path, repetitions: int) -> dict[str, Any]:
    """Run all in turns; medians, and those that do what ours does in relation to it."""
    first, others = programs[0], programs[1:]
    run_once(first, source, folder)
    costs: dict[str, list[dict[str, Any]]] = {program.name: [] for program in programs}
    content: dict[str, Any] = {}
    for turn in range(repetitions):
        made = {}
        for program in programs:
            cost, made[program.name] = run_once(program, source, folder)
            costs[program.name].append(cost)
        if turn == 0:
            same_job = [program for program in others if program.does == EXPORT == first.does]
            content = {program.name: differences(made[first.name], made[program.name]) for program in same_job}
        for out in made.values():
            shutil.rmtree(out.parent)
    results = {name: told(median(runs)) for name, runs in costs.items()}
    results[first.name]["versions"] = versions(_PACKAGES)
    for program in programs:
        found = results[program.name]
        found["does"], same = program.does, program.does == first.does and program is not first
        found["over_ours"] = {key: found[key] / results[first.name][key] for key in _OF_OURS} if same else None
        if program.name in content:
            found["differs_from_ours_in"] = content[program.name]
    return results


def told(cost: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a measured process."""
    report = cost["report"] or {}
    kept = {key: cost[key] for key in (*_OF_OURS, "files", "all_seconds")}
    return {**kept, **{key: report[key] for key in ("versions", "stages") if key in report}}


def differences(mine: Path, theirs: Path) -> list[str]:
    """Parts of two exports whose values differ by more than one quantisation step; not counting their names."""
    cost = atlaswriter("diff", mine, theirs, "--steps", 1.01, "--atol", 1e-5)
    report = cost["report"]
    if report is None:
        raise SystemExit(f"{theirs} cannot be compared:\n{cost['error']}")
    parts = [part["name"] for part in report["parts"] if not part["equal"] and part["name"] != "identity"]
    return [*parts, *report["only_a"], *report["only_b"]]


def make_atlas(folder: Path, cells: int, genes: int, density: float) -> Path:
    """A synthetic atlas below a folder, made where it is not there yet."""
    path = folder / f"rivals-{cells}-{genes}-{density:g}.h5ad"
    if not path.is_file():
        print(f"making {path.name}", flush=True)
        partial = path.with_suffix(".partial")
        synthetic.atlas(cells, genes, density).write_h5ad(partial)
        partial.rename(path)
    return path


def describe_atlas(path: Path) -> dict[str, int]:
    """Its sizes."""
    with h5py.File(path) as file:
        cells, genes = (int(size) for size in file["X"].attrs["shape"])
        nonzeros = file["X/data"].size
    return {"cells": cells, "genes": genes, "nonzeros": nonzeros, "input_bytes": path.stat().st_size}


def ensure_bundle(folder: Path, transcripts: int) -> tuple[Path, dict[str, int]]:
    """A bundle below a folder, made where it is not there yet, and its sizes."""
    path = folder / f"rivals-{transcripts}"
    facts = path.with_suffix(".json")  # written last
    if not facts.is_file():
        print(f"making {path.name}", flush=True)
        shutil.rmtree(path, ignore_errors=True)
        made = make_bundle(path, transcripts, 500, originals=True)
        write_json(facts, {key: made[key] for key in ("transcripts", "cells", "input_bytes")})
    return path, json.loads(facts.read_text(encoding="utf-8"))


def noisy(jobs: dict[str, Any]) -> list[str]:
    """Programs whose runs took too different times, each with how many times longer the slowest took."""
    runs = {
        f"{name} ({job})": one["all_seconds"] for job, found in jobs.items() for name, one in found["programs"].items()
    }
    spreads = {name: max(seconds) / min(seconds) for name, seconds in runs.items()}
    return [f"{name}: {spread:.2f} times" for name, spread in spreads.items() if spread > MOST_SPREAD]


def show(jobs: dict[str, Any]) -> None:
    """Print the results."""
    for job in jobs.values():
        print(f"\n{', '.join(f'{value:,} {name}' for name, value in job['data'].items())}; medians:")
        for name, found in job["programs"].items():
            print(line(name, {"exit_code": 0, **found}))
            if found["over_ours"]:
                shares = ", ".join(f"{value:.2f} × {key}" for key, value in found["over_ours"].items())
                print(f"    of ours: {shares}")
            elif name != "atlaswriter":
                print(f"    {found['does']}")
            if found.get("differs_from_ours_in"):
                print(f"    differs from ours in: {', '.join(found['differs_from_ours_in'])}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, program in _ELSEWHERE.items():
        variable = f"{name.upper()}_PYTHON"
        parser.add_argument(f"--{name}", default=os.environ.get(variable), help=f"Python with {program} (${variable})")
    parser.add_argument("--cells", type=int, default=200_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--density", type=float, default=0.07)
    parser.add_argument("--transcripts", type=int, default=2_000_000, help="of the bundle, with 1 cell for 100")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("-n", "--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for data, which stay, and outputs, which do not")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    parser.add_argument("--keep-noisy", action="store_true", help="also where runs of one program spread widely")
    return parser.parse_args()


def main() -> None:
    """Measure, print, and write the JSON."""
    options = _options()
    warm_up()
    jobs: dict[str, Any] = {}
    with workplace(options.folder) as folder:
        atlas = make_atlas(folder, options.cells, options.genes, options.density)
        programs = compare(exporters(options), atlas, folder, options.repetitions)
        jobs["atlas"] = {"data": describe_atlas(atlas), "programs": programs}
        if found := tilers(options):
            bundle, data = ensure_bundle(folder, options.transcripts)
            jobs["bundle"] = {"data": data, "programs": compare(found, bundle, folder, options.repetitions)}
    show(jobs)
    if (spread := noisy(jobs)) and not options.keep_noisy:
        raise SystemExit(f"runs differ by more than {MOST_SPREAD} times, so nothing is written: {', '.join(spread)}")
    arguments = {key: getattr(options, key) for key in ("workers", "repetitions")}
    where = {"outputs_in": tempfile.gettempdir() if options.folder is None else "a folder given"}
    write_json(options.json, {"benchmark": "rivals", **circumstances(), **where, "arguments": arguments, "jobs": jobs})


if __name__ == "__main__":
    main()
