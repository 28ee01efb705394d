"""How an export speeds up with threads: `prepare` in process, warm, data in memory; and whole processes.

    python -m benchmarks.macro.workers --json benchmarks/results/workers.json

400,000 cells × 2,000 genes at 7 %, 8 bit, gzip level 6, with 1, 2, 3 ... threads, up to the CPUs that may be used.
Widths take turns, so that a machine that slows down slows down all of them; times are medians. Exports go to the
temporary folder; TMPDIR=/dev/shm takes the disk out. Beside the JSON goes a plot of the same name.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import anndata
from benchmarks import big, plots
from benchmarks.process import circumstances, export, to_disk, warm_up, workplace, write_json
from benchmarks.rivals.adapter import inputs

from atlaswriter import prepare
from atlaswriter.units import usable_cpus

_WAYS = {"prepare": "prepare, in process", "process": "whole process"}


def widths(cpus: int) -> list[int]:
    """1, 2, 3 ... 8, then in steps of about a half, and all."""
    found, width = set(range(1, min(cpus, 8) + 1)), 8
    while (width := width * 3 // 2) < cpus:
        found.add(width)
    return sorted(found | {cpus})


def prepared(atlas: anndata.AnnData, out: Path, workers: int) -> dict[str, float]:
    """One call of `prepare`."""
    arrays = inputs(atlas)
    cpu, begin = time.process_time(), time.perf_counter()
    prepare(
        **arrays,
        out_dir=out,
        compression=6,
        var_quantization=8,
        obs_continuous_quantization=8,
        workers=workers,
        progress=False,
    )
    return {"seconds": time.perf_counter() - begin, "cpu_seconds": time.process_time() - cpu}


def processed(path: Path, out: Path, workers: int) -> dict[str, float]:
    """One process of the command line."""
    cost = export(path, out, "--latent", "X_pca", "--quantize", 8, "--compression", 6, "-j", workers)
    if cost["exit_code"]:
        raise SystemExit(f"atlaswriter failed:\n{cost['error']}")
    return {key: cost[key] for key in ("seconds", "cpu_seconds")}


def measure(path: Path, options: argparse.Namespace) -> dict[str, dict[str, dict[str, Any]]]:
    """Every way with every number of threads, in turns."""
    atlas = anndata.read_h5ad(path)
    runs: dict[str, dict[int, list[dict[str, float]]]]
    runs = {way: {width: [] for width in options.workers} for way in _WAYS}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "export")
        prepared(atlas, out, max(options.workers))
        for _ in range(options.repetitions):
            for width in options.workers:
                for way, one in (("prepare", prepared), ("process", processed)):
                    shutil.rmtree(out, ignore_errors=True)
                    runs[way][width].append(one(atlas if way == "prepare" else path, out, width))
    return {way: scaling(found) for way, found in runs.items()}


def scaling(runs: dict[int, list[dict[str, float]]]) -> dict[str, dict[str, Any]]:
    """Medians, and the speed-up and efficiency over the smallest number of threads."""
    medians = {
        width: {key: statistics.median(one[key] for one in found) for key in found[0]} for width, found in runs.items()
    }
    least = min(medians)
    return {
        str(width): {
            **found,
            "speedup": medians[least]["seconds"] / found["seconds"],
            "efficiency": medians[least]["seconds"] * least / found["seconds"] / width,
            "all_seconds": [round(one["seconds"], 4) for one in runs[width]],
        }
        for width, found in medians.items()
    }


def show(report: dict[str, Any]) -> None:
    """Print a table for each way."""
    print(f"on {report['machine']['usable_cpus']} usable CPUs of {report['cpus']} ({report['machine']['cpu']})")
    for way, label in _WAYS.items():
        print(f"\n{label}\n{'threads':>8} {'wall':>10} {'CPU':>10} {'speed-up':>9} {'efficiency':>11}")
        for width, found in report["results"][way].items():
            print(
                f"{width:>8} {found['seconds']:>8.3f} s {found['cpu_seconds']:>8.3f} s "
                f"{found['speedup']:>8.2f}× {found['efficiency']:>10.0%}"
            )


def plot(report: dict[str, Any], path: Path) -> None:
    """Seconds, and speed-up beside the ideal."""
    cpus = report["machine"]["usable_cpus"]
    with plots.figure(path, 9.6, 4.2) as figure:
        times, gains = figure.subplots(1, 2)
        for (way, label), color in zip(_WAYS.items(), (plots.BLUE, plots.ORANGE), strict=True):
            found = report["results"][way]
            count = [int(width) for width in found]
            times.plot(count, [one["seconds"] for one in found.values()], "o-", color=color, label=label)
            gains.plot(count, [one["speedup"] for one in found.values()], "o-", color=color, label=label)
        gains.plot(count, [width / min(count) for width in count], ":", color=plots.GREY, label="ideal")
        data = report["data"]
        times.set(title=f"{data['cells']:,} cells × {data['genes']:,} genes", ylabel="seconds", ylim=(0, None))
        gains.set(title=f"Speed-up on {cpus} usable CPUs", ylabel=f"times as fast as with {min(count)}", ylim=(0, None))
        for axes in (times, gains):
            axes.set_xlabel("threads")
            axes.set_xticks(count)
        gains.legend(loc="lower right")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cells", type=big.number, default=400_000)
    parser.add_argument("--genes", type=big.number, default=2_000)
    parser.add_argument("--density", type=float, default=0.07)
    parser.add_argument("--neighbors", type=int, default=15, help="of each cell in the graph")
    parser.add_argument("-j", "--workers", type=int, nargs="+", default=widths(usable_cpus()), help="threads to try")
    parser.add_argument("-n", "--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the generated file, which stays there")
    parser.add_argument("--json", type=Path, default=Path("workers.json"), help="the plot goes beside it")
    parser.add_argument("--plot-only", action="store_true", help="draw what the JSON holds")
    options = parser.parse_args()
    options.workers = sorted(set(options.workers))
    return options


def main() -> None:
    """Measure, print, write the JSON and the plot."""
    options = _options()
    if options.plot_only:
        plot(json.loads(options.json.read_text(encoding="utf-8")), options.json)
        return
    warm_up()
    with workplace(options.folder) as folder:
        path = folder / f"workers-{options.cells}.h5ad"
        recipe = big.Recipe(options.cells, options.genes, options.density, neighbors=options.neighbors)
        data = big.ensure(path, recipe)
        to_disk(path)
        results = measure(path, options)
    report = {
        "benchmark": "workers",
        **circumstances(),
        "cpus": os.cpu_count(),
        "repetitions": options.repetitions,
        "data": {**data, "neighbors": options.neighbors},
        "results": results,
    }
    show(report)
    write_json(options.json, report)
    plot(report, options.json)


if __name__ == "__main__":
    main()
