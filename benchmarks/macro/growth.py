"""What an export costs as atlases grow: seconds, CPU and peak memory of whole processes at 1 to 16 times a size.

    python -m benchmarks.macro.growth --json benchmarks/results/growth.json

With the default budget and with a small one that stays the same. Beside the JSON goes a plot of the same name
(PNG and SVG). The exponent printed is the slope of log(time) over log(non-zeros + cells): 1 is linear, less is
start-up. Times are medians of `-n` runs; `--plot-only` draws anew from the JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks import big, plots
from benchmarks.process import circumstances, export, line, to_disk, warm_up, workplace, write_json

from atlaswriter.units import format_bytes, parse_bytes

_HOW = ("--latent", "X_pca", "--quantize", 8, "--compression", 6)
_TIMES = ("seconds", "cpu_seconds")
_NAMES = {"unlimited": "default budget", "budget": "-M {}"}


def measure(folder: Path, cells: int, options: argparse.Namespace) -> dict[str, Any]:
    """Both ways of exporting one size."""
    path = folder / f"growth-{cells}.h5ad"
    data = big.ensure(path, big.Recipe(cells, options.genes, options.density))
    to_disk(path)
    print(f"\n{cells:,} cells, {data['nonzeros']:,} non-zeros, {format_bytes(data['input_bytes'])}", flush=True)
    limits: dict[str, tuple[object, ...]] = {"unlimited": (), "budget": ("-M", options.budget)}
    result: dict[str, Any] = {"data": data}
    for name, limit in limits.items():
        costs = [
            export(path, folder / "export", *_HOW, "-j", options.workers, *limit) for _ in range(options.repetitions)
        ]
        result[name] = median(costs)
        print(line(_NAMES[name].format(options.budget), result[name]), flush=True)
    shutil.rmtree(folder / "export", ignore_errors=True)
    if options.folder is None:
        path.unlink()
    return result


def median(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several runs: median times, the largest peak, all else of the last; a run that failed, if one did."""
    failed = [cost for cost in costs if cost["exit_code"]]
    if failed:
        return failed[0]
    times = {key: statistics.median(cost[key] for cost in costs) for key in _TIMES}
    peak = max(cost["peak_bytes"] for cost in costs)
    return {**costs[-1], **times, "peak_bytes": peak, "all_seconds": [round(cost["seconds"], 4) for cost in costs]}


def series(sizes: list[dict[str, Any]], way: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Non-zeros + cells, and one number of each size, where the run succeeded."""
    good = [size for size in sizes if not size[way]["exit_code"]]
    work = [size["data"]["nonzeros"] + size["data"]["cells"] for size in good]
    return np.array(work, float), np.array([size[way][key] for size in good], float)


def exponent(work: np.ndarray, cost: np.ndarray) -> float | None:
    """Slope of log(cost) over log(work), by least squares; None of less than two sizes."""
    return float(np.polyfit(np.log(work), np.log(cost), 1)[0]) if work.size > 1 else None


def exponents(sizes: list[dict[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Of wall-clock and of CPU time: over all sizes, and over the largest three."""
    found: dict[str, dict[str, float | None]] = {}
    for way in _NAMES:
        found[way] = {}
        for key in _TIMES:
            work, cost = series(sizes, way, key)
            found[way][key] = exponent(work, cost)
            found[way][f"{key}_of_largest"] = exponent(work[-3:], cost[-3:])
    return found


def plot(report: dict[str, Any], path: Path) -> None:
    """Time over size, time per unit of work, and peak memory."""
    sizes, budget = report["sizes"], report["budget"]
    colors = {"unlimited": plots.BLUE, "budget": plots.ORANGE}
    labels = {way: text.format(budget) for way, text in _NAMES.items()}
    with plots.figure(path, 9.6, 5.4) as figure:
        grid = figure.add_gridspec(2, 2, height_ratios=[2, 1])
        times, memory = figure.add_subplot(grid[0, 0]), figure.add_subplot(grid[:, 1])
        units = figure.add_subplot(grid[1, 0], sharex=times)
        for way, label in labels.items():
            _draw_times(times, units, report, way, label, colors[way])
            work, peak = series(sizes, way, "peak_bytes")
            memory.plot(work, peak / 2**30, "o-", color=colors[way], label=label)
        _draw_linear(times, sizes)
        work, inputs = [np.array(column, float) for column in zip(*_inputs(sizes), strict=True)]
        memory.plot(work, inputs / 2**30, ":", color=plots.GREY, label="the input file")
        memory.axhline(parse_bytes(budget) / 2**30, color=plots.ORANGE, linestyle="--", linewidth=1.2)
        memory.annotate(
            f"budget {budget}",
            (0, parse_bytes(budget) / 2**30),
            (4, 4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            color=plots.ORANGE,
        )
        times.set(title="Whole process", ylabel="seconds", xscale="log", yscale="log")
        units.set(ylabel="ns per\n(non-zero + cell)", ylim=(0, None))
        memory.set(title="Peak resident memory", ylabel="GiB", xscale="log", yscale="log")
        for axes in (times, memory):
            plots.plain_numbers(axes.yaxis)
            axes.legend(loc="lower right")
        names = [f"{plots.short(w)}\n{plots.short(size['data']['cells'])}" for w, size in zip(work, sizes, strict=True)]
        for axes in (units, memory):
            plots.plain_ticks(axes.xaxis, list(work), names)
            axes.set_xlabel("non-zeros + cells, and cells")
        times.tick_params(labelbottom=False)


def _draw_times(times: Any, units: Any, report: dict[str, Any], way: str, label: str, color: str) -> None:
    work, wall = series(report["sizes"], way, "seconds")
    _, cpu = series(report["sizes"], way, "cpu_seconds")
    slope = report["exponents"][way]["seconds"]
    shown = label if slope is None else f"{label}: exponent {slope:.2f}"
    times.plot(work, wall, "o-", color=color, label=shown)
    times.plot(work, cpu, "o--", color=color, alpha=0.45, markersize=3, linewidth=1.2, label="  its CPU time")
    units.plot(work, wall / work * 1e9, "o-", color=color)
    units.plot(work, cpu / work * 1e9, "o--", color=color, alpha=0.45, markersize=3, linewidth=1.2)


def _draw_linear(times: Any, sizes: list[dict[str, Any]]) -> None:
    """A line of slope 1 through the largest size."""
    work, wall = series(sizes, "unlimited", "seconds")
    if work.size:
        times.plot(work, wall[-1] * work / work[-1], ":", color=plots.GREY, linewidth=1.2, label="linear")


def _inputs(sizes: list[dict[str, Any]]) -> list[tuple[int, int]]:
    return [
        (size["data"]["nonzeros"] + size["data"]["cells"], size["data"]["input_bytes"]) for size in sizes
    ]  # fmt: skip


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=big.number, default=250_000, help="cells of the smallest (default: 250,000)")
    parser.add_argument("--times", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="sizes, in smallest ones")
    parser.add_argument("--genes", type=big.number, default=2_000)
    parser.add_argument("--density", type=float, default=0.07)
    parser.add_argument("--budget", default="1GiB", help="the small budget (default: %(default)s)")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("-n", "--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for generated files, which stay, and exports, which do not")
    parser.add_argument("--json", type=Path, default=Path("growth.json"), help="the plot goes beside it")
    parser.add_argument("--plot-only", action="store_true", help="draw what the JSON holds")
    return parser.parse_args()


def main() -> None:
    """Measure, print, write the JSON and the plot."""
    options = _options()
    if options.plot_only:
        plot(json.loads(options.json.read_text(encoding="utf-8")), options.json)
        return
    warm_up()
    with workplace(options.folder) as folder:
        sizes = [measure(folder, options.base * times, options) for times in sorted(options.times)]
    report = {
        "benchmark": "growth",
        **circumstances(),
        **{key: getattr(options, key) for key in ("workers", "repetitions", "budget")},
        "exponents": exponents(sizes),
        "sizes": sizes,
    }
    print()
    for way, found in report["exponents"].items():
        shown = ", ".join(f"{key} {slope:.3f}" for key, slope in found.items() if slope is not None)
        print(f"exponents, {_NAMES[way].format(options.budget)}: {shown or 'too few runs succeeded'}")
    write_json(options.json, report)
    plot(report, options.json)


if __name__ == "__main__":
    main()
