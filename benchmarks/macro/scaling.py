"""How exports in tasks scale: measured where we are, predicted for clusters, compared where both can be had.

    python -m benchmarks.macro.scaling --folder DISK --json benchmarks/results/scaling.json

1. Atlases of growing size are exported in tasks (`atlaswriter plan`, `run`, `finish`; one thread a process). The
   journal says what each task cost; `scaling_model.Cost` is fitted to that, stage by stage.
2. The largest size is left out of the fit and predicted, for one and for two processes, as a cluster of one machine;
   then it is run so, and both are written side by side.
3. 100 million cells × 20,000 genes are planned by the real planner, from a file that has the header of such an atlas
   and no data, and the model says what 1 to 256 nodes of a stated cluster would take, and what bounds them.

`--plot-only` draws again from the JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks import big, plots
from benchmarks.macro.scaling_hollow import hollow_atlas
from benchmarks.macro.scaling_model import Cluster, Cost, Load, Prediction, predict
from benchmarks.process import circumstances, program, to_disk, warm_up, workplace, write_json

from atlaswriter import plan_tasks
from atlaswriter.bench import yardsticks
from atlaswriter.formats.cellucid import tasks
from atlaswriter.units import format_bytes, parse_bytes

# Nodes of which a usual cluster is made, and a disk such as Lustre or GPFS gives to all of them.
# What a second thread adds is that of `prepare` in results/workers.json.
CLUSTER = {
    "cores": 32, "memory": 256 * 2**30, "disk": 20e9, "node_disk": 2.5e9, "metadata": 20e3, "launch": 10.0,
    "thread_efficiency": 0.77,
}  # fmt: skip
NODES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
HUGE = {"cells": 100_000_000, "genes": 20_000, "density": 0.05}
_HOW = ("--latent", "X_pca", "--graph", "none", "--name", "scaling")
_STAGES = ("tables", "regroup", "genes")
# Reading 800 GB of a shared disk while others do is not what a page cache gives; the model's disk is for that.
# Every range of genes is read from every file of sorted rows: large tasks make few of these.
_HUGE_TASK, _HUGE_BUDGET, _HUGE_THREADS = "16GiB", "16GiB", 4


def in_tasks(source: Path, folder: Path, n_processes: int, n_tasks: int) -> dict[str, Any]:
    """Export in tasks, each stage by so many processes at once; what everything took."""
    out, run = folder / "export", folder / "run"
    for path in (out, run):
        shutil.rmtree(path, ignore_errors=True)
    size = max(source.stat().st_size // n_tasks, 1 << 20)
    _command("plan", source, out, "--plan", run, "--task-size", size, "-j", 1, *_HOW)
    plan = json.loads((run / "plan.json").read_text())
    walls = {}
    for stage in _STAGES:
        begin = time.perf_counter()
        slices = [f"{number}/{n_processes}" for number in range(n_processes)]
        commands = [[program(), "-q", "run", str(run), "--stage", stage, "--tasks", slice_] for slice_ in slices]
        processes = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"stage {stage} failed")
        walls[stage] = time.perf_counter() - begin
    begin = time.perf_counter()
    _command("finish", run)
    walls["finish"] = time.perf_counter() - begin
    entries = {}
    for path in (run / "journal").iterdir():
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            entries[entry["work"]] = entry
    done = list(_tasks(plan, entries))
    return {"processes": n_processes, "seconds": walls, "tasks": done, "n_files": sum(task["files"] for task in done)}


def _tasks(plan: Mapping[str, Any], entries: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for stage in plan["stages"]:
        for task in stage["tasks"]:
            entry = entries[f"{stage['name']}-{task['number']}"]
            yield {
                "stage": stage["name"],
                "bytes_in": task["bytes_in"],
                "memory": task["memory"],
                "files": len(entry["files"]),
                "bytes_out": sum(size for size, _ in entry["files"].values()) + _parts(entry),
                **{key: entry["cost"][key] for key in ("seconds", "process_cpu_seconds", "peak_memory")},
            }


def _parts(entry: Mapping[str, Any]) -> int:
    return sum(entry["result"].get("parts", {}).values()) if isinstance(entry["result"], dict) else 0


def _command(*words: object) -> None:
    subprocess.run([program(), "-q", *map(str, words)], check=True, stdout=subprocess.DEVNULL)


def starting(runs: list[dict[str, Any]]) -> float:
    """Seconds that a process takes beside its tasks, median over stages of runs of one process."""
    rests = []
    for run in runs:
        for stage in _STAGES:
            working = sum(task["seconds"] for task in run["tasks"] if task["stage"] == stage)
            rests.append(run["seconds"][stage] - working)
    return max(statistics.median(rests), 0.0)


def finishing(runs: list[dict[str, Any]]) -> float:
    """Seconds that `finish` takes, median of runs: mostly those of starting."""
    return statistics.median(run["seconds"]["finish"] for run in runs)


def fitted(runs: list[dict[str, Any]], stage: str) -> Cost:
    """Cost of the tasks of a stage, over all runs."""
    done = [task for run in runs for task in run["tasks"] if task["stage"] == stage]
    return Cost.fit([task["bytes_in"] for task in done], [task["seconds"] for task in done])


def loads_of_run(run: Mapping[str, Any], costs: Mapping[str, Cost], start: float) -> dict[str, Load]:
    """What a measured run had to do, for the model."""
    found = {}
    for stage in _STAGES:
        done = [task for task in run["tasks"] if task["stage"] == stage]
        columns = ([task[key] for task in done] for key in ("bytes_in", "bytes_out", "files"))
        # One stage after the other, as it is run here.
        after = _STAGES[: _STAGES.index(stage)]
        found[stage] = Load(after, *columns, 0.0, 1.0, 1, 1, costs[stage], start)
    return found


def loads_of_plan(plan: Mapping[str, Any], costs: Mapping[str, Cost], start: float, genes: int) -> dict[str, Load]:
    """What a plan has to do, for the model."""
    shares = sum(len(task["arguments"]["shares"]) for task in _stage(plan, "regroup")["tasks"])
    ranges = plan["facts"]["sorting"]["n_ranges"]
    found = {}
    for stage in plan["stages"]:
        planned, name = stage["tasks"], stage["name"]
        units = [len(task["arguments"].get("units", [])) for task in planned]
        files = {"tables": sum(units) / len(planned), "regroup": shares / len(planned), "genes": genes / len(planned)}[
            name
        ]
        # Every range of genes is read from the file of every share.
        # Every task looks at the file of every share twice, and then opens it for each of its ranges of genes.
        opened = {"tables": 0.0, "regroup": 0.0, "genes": float(shares * (ranges + 2 * len(planned)))}[name]
        memory = max(task["memory"] for task in planned)
        columns = [[task[key] for task in planned] for key in ("bytes_in", "bytes_out")]
        every = tuple(stage["after"])
        # A table is written by one thread.
        busy = min(plan["workers"], *units) if name == "tables" else plan["workers"]
        found[name] = Load(
            every, *columns, [files] * len(planned), opened, memory, plan["workers"], busy, costs[name], start
        )
    return found


def opening(arguments: Mapping[str, Any]) -> float:
    """Seconds that opening the source of a plan takes, in a process that is warm."""
    begin = time.perf_counter()
    with tasks.opened({**arguments, "progress": False}, ("genes",)):
        return time.perf_counter() - begin


def _stage(plan: Mapping[str, Any], name: str) -> Any:
    return next(stage for stage in plan["stages"] if stage["name"] == name)


def shown(found: Mapping[str, Prediction]) -> dict[str, Any]:
    """A prediction as plain values."""
    stages = {
        name: {
            "seconds": part.seconds, "bound": part.bound, "processes": part.processes, "alone": dict(part.parts),
        }
        for name, part in found.items()
    }  # fmt: skip
    return {"seconds": sum(part.seconds for part in found.values()), "stages": stages}


def compare(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Steps 1 and 2."""
    runs = []
    for cells in options.cells:
        source = folder / f"scaling-{cells}.h5ad"
        data = big.ensure(source, big.Recipe(cells, options.genes, options.density))
        to_disk(source)
        found = in_tasks(source, folder, 1, options.tasks)
        runs.append({"data": data, **found})
        print(f"{cells:,} cells, one process: {_line(found['seconds'])}", flush=True)
    known = runs[:-1]
    start, costs = starting(known), {stage: fitted(known, stage) for stage in _STAGES}
    ending = finishing(known)
    found = yardsticks.measure(folder, 1)
    largest, comparisons = runs[-1], []
    for processes in (1, 2):
        real = largest if processes == 1 else in_tasks(source, folder, processes, options.tasks)
        # The disk here is the page cache, so what tasks were seen to take has it in it already.
        here = Cluster(1, processes, 1e12, 1e12, 1e12, found.files)
        predicted = predict(loads_of_run(largest, costs, start), here, largest["n_files"], ending)
        walls = real["seconds"]
        comparisons.append({"processes": processes, "predicted": shown(predicted), "real": walls})
        print(f"{processes} processes: predicted {_line({k: v.seconds for k, v in predicted.items()})}", flush=True)
        print(f"{' ' * 12} real {_line(walls)}", flush=True)
    return {
        "runs": runs,
        "left_out": largest["data"]["cells"],
        "comparisons": comparisons,
        "files_per_second": found.files,
    }


def _line(seconds: Mapping[str, float]) -> str:
    return (
        ", ".join(f"{name} {value:.1f} s" for name, value in seconds.items()) + f", all {sum(seconds.values()):.1f} s"
    )


def foretell(folder: Path, runs: list[dict[str, Any]], options: argparse.Namespace) -> dict[str, Any]:
    """Step 3."""
    source, run = folder / "hollow.h5ad", folder / "hollow-run"
    shutil.rmtree(run, ignore_errors=True)
    hollow_atlas(source, options.huge_cells, HUGE["genes"], HUGE["density"])
    begin = time.perf_counter()
    given = {"memory_budget": _HUGE_BUDGET, "workers": _HUGE_THREADS, "latent": "X_pca", "graph": False}
    # Its temporary files need not fit on this disk.
    with mock.patch("atlaswriter.formats.tasks.refuse_full_disk"):
        plan_tasks(source, folder / "hollow-export", run, task_size=_HUGE_TASK, progress=False, **given)
    planned = time.perf_counter() - begin
    plan = json.loads((run / "plan.json").read_text())
    # A huge source takes longer to open than those that were run.
    opened = opening(plan["arguments"])
    source.unlink()
    shutil.rmtree(run)
    costs = {stage: fitted(runs, stage) for stage in _STAGES}
    start, ending = starting(runs) + opened, finishing(runs) + opened
    loads, n_files = loads_of_plan(plan, costs, start, HUGE["genes"]), HUGE["genes"] + 10
    predictions = {}
    for nodes in NODES:
        found = predict(loads, Cluster(nodes, **CLUSTER), n_files, ending)
        predictions[nodes] = shown(found)
        bounds = ", ".join(f"{name}: {part.seconds:,.0f} s ({part.bound})" for name, part in found.items())
        print(f"{nodes:>4} nodes: {predictions[nodes]['seconds']:>8,.0f} s  {bounds}", flush=True)
    measured = [task["peak_memory"] / task["memory"] for one in runs for task in one["tasks"]]
    stages = {
        stage["name"]: {
            "tasks": len(stage["tasks"]),
            **{f"bytes_{way}": sum(task[f"bytes_{way}"] for task in stage["tasks"]) for way in ("in", "out")},
            "memory": max(task["memory"] for task in stage["tasks"]),
            "opened": loads[stage["name"]].opened,
            "seconds_per_byte": costs[stage["name"]].per_byte,
            "seconds_per_task": costs[stage["name"]].per_task,
        }
        for stage in plan["stages"]
    }
    return {
        "atlas": {**HUGE, "cells": options.huge_cells},
        "cluster": CLUSTER,
        "planned_in_seconds": planned,
        "start_seconds": start,
        "finish_seconds": ending,
        "threads": _HUGE_THREADS,
        "task_size": _HUGE_TASK,
        "stages": stages,
        "largest_peak_of_memory": max(measured),
        "nodes": predictions,
    }


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Wall time over nodes, and what bounds it."""
    nodes = [int(count) for count in report["prediction"]["nodes"]]
    found = list(report["prediction"]["nodes"].values())
    with plots.figure(path, 7.5, 4.2) as drawing:
        axes = drawing.add_subplot()
        walls = [one["seconds"] for one in found]
        axes.loglog(nodes, walls, "o-", color=plots.BLUE, label="predicted")
        axes.loglog(
            nodes, [walls[0] / count for count in nodes], "--", color=plots.GREY, label="if nothing were shared"
        )
        for kind, color in (("disk", plots.ORANGE), ("files", plots.GREEN)):
            alone = [sum(stage["alone"][kind] for stage in one["stages"].values()) for one in found]
            axes.loglog(nodes, alone, ":", color=color, label=f"{kind} alone")
        plots.plain_ticks(axes.xaxis, nodes, [str(count) for count in nodes])
        plots.plain_numbers(axes.yaxis)
        atlas = report["prediction"]["atlas"]
        axes.set_title(
            f"{plots.short(atlas['cells'])} cells × {atlas['genes']:,} genes, {atlas['density']:.0%} non-zeros"
        )
        axes.set_xlabel("nodes")
        axes.set_ylabel("seconds")
        axes.legend()


def main() -> None:
    """Measure, predict, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cells", type=big.number, nargs="+", default=[125_000, 250_000, 500_000])
    parser.add_argument("--genes", type=big.number, default=4000)
    parser.add_argument("--density", type=float, default=HUGE["density"])
    parser.add_argument("--tasks", type=int, default=8, help="of the stages with expression")
    parser.add_argument("--huge-cells", type=big.number, default=HUGE["cells"])
    parser.add_argument("--plot-only", action="store_true")
    options = parser.parse_args()
    if options.plot_only:
        draw(json.loads(options.json.read_text()), options.json.with_suffix(""))
        return
    with workplace(options.folder) as folder:
        warm_up()
        report = {**circumstances(), "measured": compare(folder, options)}
        report["prediction"] = foretell(folder, report["measured"]["runs"], options)
    if options.json:
        write_json(options.json, report)
        draw(report, options.json.with_suffix(""))
    print(
        f"budget of a process {format_bytes(parse_bytes(_HUGE_BUDGET))}, planned in "
        f"{report['prediction']['planned_in_seconds']:.0f} s"
    )


if __name__ == "__main__":
    main()
