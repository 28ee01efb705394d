"""Whole processes that write DeepCell Label projects: `atlaswriter deepcell` against the original backend.

    python -m benchmarks.macro.deepcell_vs_original --reference-python PYTHON --reference-source CHECKOUT/backend

Both jobs of the server, turn by turn, from start to end and on disk: a submission (an ``.npz`` with images and labels)
becomes a project, and an export request becomes a project whose labels are made anew. Ours runs as it does by default
(images as 8 bit), and with images kept as they are, as the original keeps them. One run of ours goes first, which
compiles kernels; before each other run the input is read once, so that both find it in memory. Times are medians: of
whole processes for ours, without imports, as a running server would take them, for the original. `--large` frames of
4096 x 4096 pixels are written by ours alone, in a budget of 1 GiB. Outputs are deleted; inputs made in `--folder` stay.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.macro.growth import median
from benchmarks.macro.prepare_vs_cellucid import ROOT
from benchmarks.process import atlaswriter, circumstances, line, measured, warm_up, workplace, write_json

GENERATOR = ROOT.parent / "shared" / "data" / "make_deepcell_inputs.py"
PYTHON, SOURCE = "DEEPCELL_LABEL_PYTHON", "DEEPCELL_LABEL_SOURCE"
_RIVAL = ROOT / "benchmarks" / "rivals" / "deepcell_label.py"
_TIMES = ("seconds", "cpu_seconds")
# What the server does: the input's kind, our verb and options, and what the original is asked for.
_JOBS = {
    "load": ("npz_Xy.npz", ["deepcell"], "load"),
    "load, kept": ("npz_Xy.npz", ["deepcell", "--image-dtype", "keep"], "load"),
    "export": ("client_export.zip", ["deepcell-export"], "export"),
}


def make_inputs(folder: Path, generator: Path, kinds: list[str], **recipe: int) -> Path:
    """Inputs of that recipe below a folder, made where they are not there yet; the generator is not part of ours."""
    path = folder / "-".join(["deepcell", *(f"{value}{name[0]}" for name, value in recipe.items())])
    if not (path / "manifest.json").is_file():
        if not generator.is_file():
            raise SystemExit(f"there is no generator at {generator}; give --generator")
        print(f"making {path.name}", flush=True)
        arguments = [text for name, value in recipe.items() for text in (f"--{name}", str(value))]
        subprocess.run([sys.executable, generator, path, "--kinds", ",".join(kinds), *arguments], check=True)
        (path / "truth.npz").unlink()
    return path


def make_large(path: Path, n_frames: int, edge: int = 4096) -> Path:
    """A movie of one channel and its labels, written frame by frame: noise with squares of 64 pixels on it."""
    if path.is_file():
        return path
    print(f"making {path.name}", flush=True)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 3000, (edge + 64, edge + 64), np.uint16)
    row, column = np.divmod(np.arange(edge * edge, dtype=np.int32).reshape(edge, edge), edge)
    cells = (row // 128 * (edge // 128) + column // 128 + 1) * ((row % 128 < 64) & (column % 128 < 64))
    with zipfile.ZipFile(path, "w") as file:
        for name, dtype in (("X", np.dtype("<u2")), ("y", np.dtype("<i4"))):
            with file.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": dtype.str, "fortran_order": False, "shape": (n_frames, edge, edge, 1)}
                np.lib.format.write_array_header_1_0(member, header)
                for frame in range(n_frames):
                    at = frame % 64
                    image = noise[at : at + edge, at : at + edge] + (cells > 0) * np.uint16(20_000)
                    member.write((image if name == "X" else cells).astype(dtype).tobytes())
    return path


def read_once(path: Path) -> None:
    """Bring a file into memory, which systems may have dropped meanwhile."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass


def with_output(cost: dict[str, Any], out: Path, name: str) -> dict[str, Any]:
    """Print what a process cost, and add what it wrote, which is deleted; it must have succeeded."""
    if cost["exit_code"]:
        raise SystemExit(f"{name}:\n{cost['error']}")
    cost |= {"output_bytes": out.stat().st_size, "files": 1}
    out.unlink()
    print(line(name, cost), flush=True)
    return cost


def theirs(options: argparse.Namespace, what: str, given: Path, out: Path) -> dict[str, Any]:
    """Run the original; times are those without its imports."""
    command = [options.reference_python, str(_RIVAL), what, str(given), str(out), "--source", options.reference_source]
    cost = with_output(measured(command), out, "original")
    whole = {f"process_{key}": cost[key] for key in _TIMES}
    return {**cost, **whole, **{key: cost["report"][key] for key in _TIMES}}


def compare(folder: Path, inputs: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run every job by both programs, in turns."""
    out, results = folder / "project.zip", {}
    for name, (kind, arguments, what) in _JOBS.items():
        print(f"\n{name}:", flush=True)
        verb, *more = arguments

        def ours(kind: str = kind, verb: str = verb, more: list[str] = more) -> dict[str, Any]:
            cost = atlaswriter(verb, inputs / kind, out, *more, "-j", options.workers, "-M", options.memory_budget)
            return with_output(cost, out, "atlaswriter")

        ours()
        costs: dict[str, list[dict[str, Any]]] = {"atlaswriter": [], "original": []}
        for _ in range(options.repetitions):
            read_once(inputs / kind)
            costs["atlaswriter"].append(ours())
            read_once(inputs / kind)
            costs["original"].append(theirs(options, what, inputs / kind, out))
        first, second = (median(found) for found in costs.values())
        speedup = {key: second[key] / first[key] for key in _TIMES}
        relative = {key: first[key] / second[key] for key in ("peak_bytes", "output_bytes")}
        results[name] = {"atlaswriter": first, "original": second, "speedup": speedup, "relative_size": relative}
        print(f"{speedup['seconds']:.1f} times faster, {speedup['cpu_seconds']:.1f} times less CPU")
    return results


def large(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Ours alone, on frames of 4096 × 4096 pixels, in a budget of 1 GiB."""
    given, out = make_large(folder / f"large-{options.large}.npz", options.large), folder / "large.zip"
    cost = with_output(atlaswriter("deepcell", given, out, "-j", options.workers, "-M", "1GiB"), out, "large")
    return {"frames": options.large, "input_bytes": given.stat().st_size, **cost}


def _required(given: str | None, variable: str, what: str) -> str:
    found = given or os.environ.get(variable)
    if not found:
        raise SystemExit(f"where is {what}? Set {variable}, or see --help")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", help=f"Python of the original's environment (default: ${PYTHON})")
    parser.add_argument("--reference-source", help=f"folder with its package deepcell_label (default: ${SOURCE})")
    parser.add_argument("--generator", type=Path, default=GENERATOR, help="makes inputs (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=30)
    parser.add_argument("--size", type=int, default=2048, help="of one side, in pixels")
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--cells", type=int, default=480)
    parser.add_argument("--large", type=int, default=100, help="frames of 4096 × 4096 pixels; 0 for none")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("-M", "--memory-budget", default="600MiB")
    parser.add_argument("-n", "--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for inputs, which stay, and outputs, which do not")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    options.reference_python = _required(options.reference_python, PYTHON, "the Python of the original")
    options.reference_source = _required(options.reference_source, SOURCE, "the source of the original")
    return options


def main() -> None:
    """Measure, print, and write the JSON."""
    options = _options()
    warm_up()
    recipe = {"frames": options.frames, "height": options.size, "width": options.size, "channels": options.channels}
    with workplace(options.folder) as folder:
        kinds = sorted({kind for kind, _, _ in _JOBS.values()})
        inputs = make_inputs(folder, options.generator, kinds, **recipe, features=1, cells=options.cells)
        sizes = {kind: (inputs / kind).stat().st_size for kind in kinds}
        report = {
            "benchmark": "deepcell_vs_original",
            **circumstances(),
            "arguments": {key: getattr(options, key) for key in ("workers", "memory_budget", "repetitions")},
            "data": {**recipe, "cells": options.cells, "input_bytes": sizes},
            "results": compare(folder, inputs, options),
            **({"large": large(folder, options)} if options.large else {}),
        }
    write_json(options.json, report)


if __name__ == "__main__":
    main()
