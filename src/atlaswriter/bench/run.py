"""One measurement from begin to end."""

from __future__ import annotations

import datetime as dt
import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import h5py
import numpy as np

from atlaswriter.bench import atlas, process, signals, stages, yardsticks
from atlaswriter.bench.bundle import make_bundle
from atlaswriter.bench.machine import machine, versions
from atlaswriter.bench.rivals import Rival, ratios
from atlaswriter.bench.settings import NEIGHBORS, PANEL, Settings
from atlaswriter.bench.yardsticks import Yardsticks
from atlaswriter.sinks import fs
from atlaswriter.units import usable_cpus

log = logging.getLogger(__name__)

# Version of the form of the result.
FORM = 2
_COSTS = ("seconds", "cpu_seconds", "peak_bytes")


def bench(settings: Settings, rivals: Sequence[Rival] = ()) -> dict[str, Any]:
    """Measure this machine.

    Everything is written below a temporary folder, which is removed whatever is raised; where SIGTERM shall do so too,
    call this in `signals.ending_cleanly`. Inputs are in the page cache, kernels are compiled before, every export is a
    process of its own.

    Parameters
    ----------
    settings
        What to measure; `Settings.check` has found nothing.
    rivals
        Original programs to run as well, turn by turn with ours, at the size of `settings`.

    Returns
    -------
    dict
        ``form``, ``date``, ``settings``, ``versions``, ``machine``, ``yardsticks`` (bytes a second), and for each
        format that was measured, under the name of its verb: ``data``, ``unit`` (what nanoseconds are counted for),
        ``whole`` (medians: seconds of the process, of these before the export began and when data was gone through; CPU
        seconds, peak memory, bytes, files), ``stages``, ``growth`` (a whole export for each size), ``exponent`` (of its
        seconds) and ``work_exponent``, and ``against`` with the costs and ratios of originals.

    Raises
    ------
    OutputError
        There is no room on the disk, or it cannot be written to.
    InputError, BudgetError, MeasurementError
        As the measured process ended.
    """
    place = settings.folder or Path(tempfile.gettempdir())
    settings.refuse_full_disk(place, len(rivals))
    workers = settings.workers or usable_cpus()
    with _scratch(place) as folder:
        log.info("compiling kernels, which is not counted")
        kernels = _child({"do": "warm"}, "compiling kernels", folder)["result"]
        log.info("measuring memory, disk and ISA-L")
        sticks = yardsticks.measure(folder, workers, settings.seed)
        result = {
            "form": FORM,
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "settings": {**settings.to_dict(), "workers": workers},
            "versions": versions(),
            "machine": {**machine(folder), "kernels_kept": kernels["kept"]},
            "yardsticks": sticks.to_dict(),
        }
        for verb, wanted in (("cellucid", settings.cells), ("landscape", settings.transcripts)):
            if wanted:
                opponents = [rival for rival in rivals if rival.verb == verb]
                result[verb] = _Half(verb, settings, folder, sticks, opponents).measure()
    return result


@contextmanager
def _scratch(place: Path) -> Iterator[Path]:
    """A temporary folder; its removal is not interrupted."""
    folder = Path(tempfile.mkdtemp(prefix="atlaswriter-bench-", dir=place))
    try:
        yield folder
    finally:
        with signals.held():
            shutil.rmtree(folder)


class _Half:
    """One format, at all sizes."""

    def __init__(
        self, verb: str, settings: Settings, folder: Path, sticks: Yardsticks, rivals: Sequence[Rival]
    ) -> None:
        self._verb, self._settings, self._folder = verb, settings, folder
        self._sticks, self._rivals = sticks, rivals
        self._options = {"workers": settings.workers, "memory_budget": settings.memory_budget}

    def measure(self) -> dict[str, Any]:
        """Everything about this format; see `bench`."""
        found: dict[str, Any] = {}
        growth = []
        for size in sorted({*self._settings.sizes, 1.0}):
            source, data = self._generate(size)
            whole = self._whole(source, data, found if size == 1 else None)
            if size in self._settings.sizes:
                growth.append({"size": size, "units": data[self._unit], **whole})
            _remove(source)
        powers = {"exponent": exponent(growth, "seconds"), "work_exponent": exponent(growth, "work_seconds")}
        return {**found, "growth": growth, **powers}

    @property
    def _unit(self) -> str:
        return "nonzeros" if self._verb == "cellucid" else "transcripts"

    def _generate(self, size: float) -> tuple[Path, dict[str, Any]]:
        cells, transcripts = self._settings.scaled(size)
        genes, seed = self._settings.genes, self._settings.seed
        if self._verb == "cellucid":
            log.info("making up %s cells × %s genes", f"{cells:,}", f"{genes:,}")
            source = self._folder / "atlas.h5ad"
            recipe = atlas.Recipe(cells, genes, self._settings.density, neighbors=NEIGHBORS, seed=seed)
            atlas.generate(source, recipe)
            fs.sync_file(source)
            return source, _described(source, recipe)
        log.info("making up %s transcripts", f"{transcripts:,}")
        source = self._folder / "bundle"
        data = make_bundle(source, transcripts, min(genes, PANEL), seed=seed, originals=bool(self._rivals))
        fs.sync_tree(source)
        return source, data

    def _whole(self, source: Path, data: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
        """Medians of whole exports; at the size of the settings also stages and originals, put into `found`."""
        task = {"do": "export", "verb": self._verb, "source": str(source), **self._options}
        rivals = self._rivals if found is not None else ()
        ours: list[dict[str, Any]] = []
        theirs: dict[str, list[dict[str, Any]]] = {rival.name: [] for rival in rivals}
        for turn in range(self._settings.repeats):
            log.info("atlaswriter %s, run %d of %d", self._verb, turn + 1, self._settings.repeats)
            ours.append(self._with_output(lambda out: self._child({**task, "out": str(out)})))
            for rival in rivals:
                log.info("%s, run %d of %d", rival.name, turn + 1, self._settings.repeats)
                theirs[rival.name].append(self._with_output(partial(rival.run, source)))
        whole = {**_medians(ours), "spill_bytes": ours[-1]["result"]["spill_bytes"]}
        whole["start_seconds"] = median(run["seconds"] - run["result"]["seconds"] for run in ours)
        whole["work_seconds"] = median(_work(run["result"]) for run in ours)
        whole["ns_per_unit"] = 1e9 * whole["seconds"] / data[self._unit]
        if found is not None:
            found |= {
                "data": data,
                "unit": self._unit,
                "whole": whole,
                "stages": self._stages(source, data, whole, ours),
            }
            found["against"] = {
                rival.name: self._compared(rival, whole, theirs[rival.name]) for rival in rivals
            }  # fmt: skip
        return whole

    def _stages(
        self, source: Path, data: dict[str, Any], whole: dict[str, Any], runs: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        phases = _median_phases([run["result"]["phases"] for run in runs])
        if self._verb == "landscape":
            return stages.landscape_stages(data, phases, whole, runs[-1]["sizes"], self._sticks)
        log.info("atlaswriter %s, stage by stage", self._verb)
        task = {"do": "parts", "source": str(source), "folder": str(self._folder), "repeats": self._settings.repeats}
        parts = self._child({**task, **self._options})["result"]
        return stages.cellucid_stages(data, phases, parts, whole, self._sticks)

    def _child(self, task: dict[str, Any]) -> dict[str, Any]:
        return _child(task, f"atlaswriter {self._verb}", self._folder)

    def _with_output(self, work: Callable[[Path], dict[str, Any]]) -> dict[str, Any]:
        """What a process cost that writes into a new folder, with the sizes of the files there.

        The folder stays until everything was measured: on ext4 a new file took 50 to 120 µs, and up to 900 µs where
        thousands had been deleted in the minute before.
        """
        out = Path(tempfile.mkdtemp(dir=self._folder), "out")
        cost = work(out)
        sizes = dict(fs.file_sizes(out))
        return {**cost, "bytes": sum(sizes.values()), "files": len(sizes), "sizes": sizes}

    @staticmethod
    def _compared(rival: Rival, ours: dict[str, Any], runs: list[dict[str, Any]]) -> dict[str, Any]:
        theirs = {**_medians(runs), "work_seconds": median(run["result"]["export_seconds"] for run in runs)}
        return {"versions": dict(rival.versions), **theirs, "ratios": ratios(ours, theirs)}


def exponent(growth: Sequence[dict[str, Any]], key: str) -> float | None:
    """Power of the size that some seconds grow with, over all sizes; None for fewer than two."""
    if len(growth) < 2:
        return None
    sizes, seconds = (np.log([row[name] for row in growth]) for name in ("units", key))
    return float(np.polyfit(sizes, seconds, 1)[0])


def _described(source: Path, recipe: atlas.Recipe) -> dict[str, Any]:
    """What an atlas holds, in counts and bytes."""
    found = atlas.describe(source)
    with h5py.File(source) as file:
        edges = int(file["obsp/connectivities/data"].size)
        obs = [file["obs"][name.partition(":")[0]] for name in recipe.obs]
        obs_bytes = sum(
            (column["codes"] if isinstance(column, h5py.Group) else column).dtype.itemsize for column in obs
        )
    kept = {key: found[key] for key in ("cells", "genes", "nonzeros", "input_bytes")}
    return {**kept, "edges": edges, "latent": recipe.latent, "obs_bytes": obs_bytes}


def _child(task: dict[str, Any], what: str, folder: Path) -> dict[str, Any]:
    return process.measured(
        [sys.executable, "-m", "atlaswriter.bench.child", json.dumps(task)], what=what, folder=folder
    )  # fmt: skip


def _work(report: dict[str, Any]) -> float:
    """Seconds of a report in which data is gone through: opening loads libraries, most of all."""
    phases = {phase["name"]: phase["seconds"] for phase in report["phases"]}
    return float(report["seconds"] - phases.get("open", 0) - phases.get("kernels", 0))


def _medians(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    found = {key: median(run[key] for run in runs) for key in _COSTS}
    found |= {"bytes": runs[-1]["bytes"], "files": runs[-1]["files"]}
    return {**found, "peak_bytes": int(found["peak_bytes"]), "all_seconds": [run["seconds"] for run in runs]}


def _median_phases(runs: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Phases of the first run, in its order, with median times."""
    times = [{phase["name"]: phase["seconds"] for phase in run} for run in runs]
    return [{"name": name, "seconds": median(run.get(name, 0.0) for run in times)} for name in times[0]]


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
