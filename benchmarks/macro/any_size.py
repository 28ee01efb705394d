"""Any size inside the memory budget: whole processes on atlases that are larger than it.

    python -m benchmarks.macro.any_size --folder /some/disk --json benchmarks/results/any_size.json

atlas100m   100,000,000 cells × 40 genes in 4 GiB, and a check of what was written
spill       1,000,000 cells × 10,000 genes (500 million non-zeros): default budget, 2 GiB with spilling,
            2 GiB as the planner likes; all exports must be the same, byte for byte
gzip200k    200,000 cells × 2,000 genes, gzip: reading and regrouping alone, in process, warm

Files are generated where they are not yet; with `--folder` they stay for the next time (15 GiB, and as much
again is needed while it runs). `--scale 0.001` tries everything in seconds. `--json` keeps what the file holds of
targets that are not run. Exit code 1 when a process fails, a check finds something or exports differ.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import big
from benchmarks.process import (
    atlaswriter,
    circumstances,
    drop_from_cache,
    export,
    hashes,
    line,
    to_disk,
    warm_up,
    workplace,
    write_json,
)

from atlaswriter.units import format_bytes, parse_bytes

CREATED_AT = "2000-01-01T00:00:00Z"
_HOW = ("--latent", "X_pca", "--quantize", 8, "--compression", 6, "--created-at", CREATED_AT)


class Place:
    """Where files and exports of one benchmark go, and how exports are made."""

    def __init__(self, folder: Path, options: argparse.Namespace) -> None:
        self.folder, self.options = folder, options
        self.out = folder / "export"  # the same for all runs: an export is named after its folder

    def input(self, name: str, recipe: big.Recipe) -> tuple[Path, dict[str, Any]]:
        """A generated file, and what it holds."""
        path = self.folder / f"{name}.h5ad"
        found = big.ensure(path, recipe)
        to_disk(path)
        print(
            f"\n{name}: {found['cells']:,} cells × {found['genes']:,} genes, {found['nonzeros']:,} non-zeros, "
            f"{format_bytes(found['input_bytes'])}, {found['compression']}",
            flush=True,
        )
        return path, found

    def export(self, name: str, path: Path, *arguments: object, budget: str | None = None) -> dict[str, Any]:
        """One measured export into an empty folder; `budget` None is the default one."""
        if self.options.cold:
            drop_from_cache(path)
        limit = () if budget is None else ("-M", budget)
        cost = export(path, self.out, *_HOW, "-j", self.options.workers, *limit, *arguments)
        cost["budget_bytes"] = None if budget is None else parse_bytes(budget)
        print(line(name, cost), flush=True)
        return cost

    def check(self) -> dict[str, Any]:
        """One measured check of what was exported last."""
        cost = atlaswriter("check", self.out)
        print(line("check", cost), flush=True)
        return cost

    def clear(self) -> None:
        """Delete what was exported last."""
        shutil.rmtree(self.out, ignore_errors=True)


def atlas100m(place: Place) -> dict[str, Any]:
    """100 million cells in 4 GiB."""
    options = place.options
    recipe = big.Recipe(options.cells, options.genes, 0.03, latent=10)
    path, data = place.input("atlas100m", recipe)
    runs = {"export": place.export("export", path, budget=options.budget)}
    if not runs["export"]["exit_code"]:
        runs["check"] = place.check()
    place.clear()
    ok = all(run["exit_code"] == 0 for run in runs.values())
    goals = [
        goal("seconds of export", of(runs["export"], "seconds"), 600),
        goal("seconds of export and check", sum(run["seconds"] for run in runs.values()) if ok else None, 600),
        goal("peak memory of export", of(runs["export"], "peak_bytes"), parse_bytes(options.budget)),
    ]
    return {"data": data, "runs": runs, "goals": goals, "ok": ok}


def spill(place: Place) -> dict[str, Any]:
    """500 million non-zeros with as much memory as there is, and in 2 GiB."""
    options, budget = place.options, place.options.spill_budget
    path, data = place.input("spill", big.Recipe(options.spill_cells, options.spill_genes, 0.05, latent=10))
    where: tuple[object, ...] = ()
    if options.spill_dir is not None:
        options.spill_dir.mkdir(parents=True, exist_ok=True)
        where = ("--spill-dir", options.spill_dir)
    ways: dict[str, tuple[str | None, tuple[object, ...]]] = {
        "unlimited": (None, ()),
        "spill": (budget, ("--strategy", "spill", *where)),
        "planned": (budget, where),
    }
    runs: dict[str, Any] = {}
    content: dict[str, dict[str, str]] = {}
    for name, (limit, arguments) in ways.items():
        runs[name] = place.export(name, path, *arguments, budget=limit)
        if not runs[name]["exit_code"]:
            content[name] = hashes(place.out)
    if "planned" in content:
        runs["check"] = place.check()
    place.clear()
    different = differences(content)
    if different:
        print(f"THE EXPORTS DIFFER in {', '.join(different[:10])}")
    goals, base = [], of(runs["unlimited"], "seconds")
    for name in ("spill", "planned"):
        seconds = of(runs[name], "seconds")
        goals.append(goal(f"peak memory, {name}", of(runs[name], "peak_bytes"), parse_bytes(budget)))
        goals.append(goal(f"time over unlimited, {name}", seconds / base if seconds and base else None, 2.5))
    ok = not different and all(run["exit_code"] == 0 for run in runs.values())
    return {"data": data, "runs": runs, "different_files": different[:100], "goals": goals, "ok": ok}


def differences(content: dict[str, dict[str, str]]) -> list[str]:
    """Files that are not the same in all exports (`hashes` of each)."""
    names = sorted({name for found in content.values() for name in found})
    return [name for name in names if len({found.get(name) for found in content.values()}) > 1]


def gzip200k(place: Place) -> dict[str, Any]:
    """A compressed file, read and regrouped."""
    options = place.options
    path, data = place.input("gzip200k", big.Recipe(options.gzip_cells, options.gzip_genes, 0.07, compression="gzip"))
    entries = read_and_regroup(path, options.workers)
    assert entries == data["nonzeros"], f"{entries:,} entries came of {data['nonzeros']:,}"
    times = []
    for _ in range(options.repetitions):
        begin = time.perf_counter()
        read_and_regroup(path, options.workers)
        times.append(time.perf_counter() - begin)
    seconds = statistics.median(times)
    print(f"{'read and regroup':<28} {seconds:>8.3f} s  ({min(times):.3f} to {max(times):.3f})")
    runs = {"read_and_regroup": {"seconds": seconds, "all_seconds": [round(one, 4) for one in times]}}
    return {"data": data, "runs": runs, "goals": [goal("seconds", seconds, 0.6)], "ok": True}


def read_and_regroup(path: Path, workers: int) -> int:
    """Read X and bring it in order of genes, coded in 8 bit, as an export does before it encodes; entries found."""
    import numpy as np

    from atlaswriter.engine import strategy
    from atlaswriter.engine.budget import Budget
    from atlaswriter.engine.run import Team
    from atlaswriter.formats.cellucid.values import ValueEncoder
    from atlaswriter.sources.open import open_source

    source = open_source(path, workers=workers)
    try:
        matrix = source.expression()
        assert matrix is not None
        genes = np.arange(matrix.shape[1])
        encoder = ValueEncoder(source.n_cells, 8, "nearest")
        budget = Budget()
        choice = strategy.choose(matrix, genes.size, workers, budget.free, "memory")
        with Team(workers, budget) as team:
            grouping = strategy.group(matrix, genes, encoder.rules, team, choice, Path.cwd)
            return sum(int(batch.sizes.sum()) for batch in grouping.batches(choice.batch_room))
    finally:
        source.close()


def of(run: dict[str, Any], key: str) -> float | None:
    """A measured value of a run that succeeded; None of one that failed."""
    return None if run["exit_code"] else run[key]


def goal(what: str, value: float | None, limit: float) -> dict[str, Any]:
    """A measured value, None where the run failed, beside the largest that is wanted."""
    return {"what": what, "value": value, "limit": limit, "met": value is not None and value <= limit}


def show_goals(result: dict[str, Any], full_size: bool) -> None:
    """Print what was wanted; of smaller data it says nothing."""
    for found in result["goals"]:
        shown = format_bytes if "memory" in found["what"] else lambda value: f"{value:,.2f}"
        value = "failed" if found["value"] is None else shown(found["value"])
        mark = "  " if not full_size else "✓ " if found["met"] else "✗ "
        print(f"{mark}{found['what']}: {value}, goal {shown(found['limit'])}")


TARGETS: dict[str, Callable[[Place], dict[str, Any]]] = {
    "gzip200k": gzip200k,
    "spill": spill,
    "atlas100m": atlas100m,
}
_FULL = {
    "gzip200k": {"gzip_cells": 200_000, "gzip_genes": 2_000},
    "spill": {"spill_cells": 1_000_000, "spill_genes": 10_000},
    "atlas100m": {"cells": 100_000_000, "genes": 40},
}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for generated files, which stay, and exports, which do not")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--scale", type=float, default=1, help="share of the cells of every target, to try it")
    for target, sizes in _FULL.items():
        for name, size in sizes.items():
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=big.number, help=f"of {target}; default: {size:,}")
    parser.add_argument("--budget", default="4GiB", help="of atlas100m (default: %(default)s)")
    parser.add_argument("--spill-budget", default="2GiB", help="of spill (default: %(default)s)")
    parser.add_argument("--spill-dir", type=Path, help="passed on; default: atlaswriter's")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("-n", "--repetitions", type=int, default=5, help="of gzip200k")
    parser.add_argument("--cold", action="store_true", help="drop each input from the page cache before it is read")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    for sizes in _FULL.values():
        for name, size in sizes.items():
            scaled = size if name.endswith("genes") else max(1000, round(size * options.scale))
            setattr(options, name, getattr(options, name) or scaled)
    return options


def main() -> None:
    """Measure, print, and write the JSON after each target."""
    options = _options()
    report: dict[str, Any] = {"benchmark": "any_size", "results": {}}
    if options.json and options.json.exists():
        report["results"] = json.loads(options.json.read_text(encoding="utf-8"))["results"]
    ok = True
    warm_up()
    with workplace(options.folder) as folder:
        for name in options.only:
            result = TARGETS[name](Place(folder, options))
            full_size = all(getattr(options, key) == size for key, size in _FULL[name].items())
            show_goals(result, full_size)
            settings = {"workers": options.workers, "cold": options.cold, "full_size": full_size}
            report["results"][name] = {**circumstances(), **settings, **result}
            write_json(options.json, report)
            ok &= result["ok"]
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
