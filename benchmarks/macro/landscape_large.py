"""LandscapeFiles of 400 million transcripts in 4 GiB, and what the transcripts cost as they become more.

    python -m benchmarks.macro.landscape_large --folder /some/disk --json benchmarks/results/landscape_large.json

large     one whole process, ``atlaswriter landscape -M 4GiB``, on 400,000,000 transcripts of 1,000,000 cells, with
          one channel of 44800 × 44800 pixels; seconds of each phase
growth    the transcripts alone, timed in the process, at 1, 5, 20 and 60 million

Bundles are made where they are not yet; with `--folder` they stay for the next time (17 GB, and as much again is
needed while it runs). `--only growth` runs one part, and `--json` keeps what the file holds of the other. Exit code 1
when a process fails or takes more memory than it may.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import big
from benchmarks.macro.any_size import goal, of, show_goals
from benchmarks.macro.growth import exponent
from benchmarks.macro.landscape_vs_celldega import (
    GENERATOR,
    describe,
    make_bundle,
    ours,
    ours_stages,
    transcripts_of,
)
from benchmarks.process import circumstances, line, warm_up, workplace, write_json

from atlaswriter.units import format_bytes, parse_bytes

_FULL = {"transcripts": 400_000_000, "cells": 1_000_000, "image_size": 44_800, "genes": 500}
_TIMES = ("seconds", "cpu_seconds")


def large(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One run inside a budget."""
    recipe = {key: getattr(options, key) for key in _FULL}
    bundle = options.bundle or make_bundle(folder, options.generator, **recipe, channels=1)
    data = describe(bundle)
    print(
        f"\n{data['transcripts']:,} transcripts, {data['cells']:,} cells, {format_bytes(data['input_bytes'])}",
        flush=True,
    )
    mode = ["--row-groups"] if options.row_groups else []
    cost = ours(bundle, folder / "landscape", *mode, "-j", options.workers, "-M", options.budget)
    report = cost["report"] or {}
    cost["spill_bytes"] = report.get("spill_bytes")
    cost["phases"] = {phase["name"]: phase["seconds"] for phase in report.get("phases", [])}
    print(line("landscape", cost), flush=True)
    for name, seconds in cost["phases"].items():
        print(f"  {name:<26} {seconds:>8.2f} s")
    goals = [goal("peak memory", of(cost, "peak_bytes"), parse_bytes(options.budget))]
    return {"data": data, "run": cost, "goals": goals, "ok": all(found["met"] for found in goals)}


def growth(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """The transcripts of several sizes."""
    sizes = [measure(folder, size, options) for size in sorted(options.sizes)]
    work = np.array([size["data"]["transcripts"] for size in sizes], float)
    slopes = {key: exponent(work, np.array([size[key] for size in sizes])) for key in _TIMES}
    print("exponents: " + ", ".join(f"{key} {slope:.3f}" for key, slope in slopes.items() if slope is not None))
    return {"repetitions": options.repetitions, "sizes": sizes, "exponents": slopes, "ok": True}


def measure(folder: Path, transcripts: int, options: argparse.Namespace) -> dict[str, Any]:
    """The transcripts of one size, with as many cells as go with them."""
    recipe = {"transcripts": transcripts, "cells": max(1000, transcripts // 200), "image_size": 4096, "channels": 1}
    bundle = make_bundle(folder, options.generator, **recipe)
    how = ("-j", options.workers, "-M", options.budget)
    costs = [ours_stages(bundle, folder / "landscape", *how) for _ in range(options.repetitions)]
    stages = [transcripts_of(cost) for cost in costs]
    times = {key: statistics.median(stage[key] for stage in stages) for key in _TIMES}
    found = {**times, "peak_bytes": max(cost["peak_bytes"] for cost in costs)}
    each = found["cpu_seconds"] / transcripts * 1e9
    print(
        f"{transcripts:>12,} {found['seconds']:>8.2f} s {found['cpu_seconds']:>8.2f} s CPU {each:>6.0f} ns CPU each, "
        f"{format_bytes(found['peak_bytes'])} peak of the whole process",
        flush=True,
    )
    data = describe(bundle)
    if options.folder is None:
        shutil.rmtree(bundle)
    return {"data": data, **found}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="for bundles, which stay, and outputs, which do not")
    parser.add_argument("--bundle", type=Path, help="of large, instead of one that is made")
    parser.add_argument("--generator", type=Path, default=GENERATOR, help="makes bundles (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=TARGETS, default=list(TARGETS))
    for name, size in _FULL.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=big.number, default=size, help=f"default: {size:,}")
    parser.add_argument("--sizes", type=big.number, nargs="+", default=[1_000_000, 5_000_000, 20_000_000, 60_000_000])
    parser.add_argument("--budget", default="4GiB", help="of both (default: %(default)s)")
    parser.add_argument("--row-groups", action="store_true", help="of large, instead of loose tiles")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("-n", "--repetitions", type=int, default=3, help="of growth")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    return parser.parse_args()


TARGETS = {"growth": growth, "large": large}


def main() -> None:
    """Measure, print, and write the JSON after each part."""
    options = _options()
    report: dict[str, Any] = {"benchmark": "landscape_large", "results": {}}
    if options.json and options.json.exists():
        report["results"] = json.loads(options.json.read_text(encoding="utf-8"))["results"]
    ok = True
    warm_up()
    with workplace(options.folder) as folder:
        for name in options.only:
            result = TARGETS[name](folder, options)
            full_size = result.get("data", {}).get("transcripts") == _FULL["transcripts"] or name == "growth"
            show_goals({"goals": [], **result}, full_size)
            settings = {key: getattr(options, key) for key in ("workers", "budget")}
            report["results"][name] = {**circumstances(), **settings, "full_size": full_size, **result}
            write_json(options.json, report)
            ok &= result["ok"]
    raise SystemExit(0 if ok else 1)


if __name__ == "__main__":
    main()
