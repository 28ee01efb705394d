"""Whole processes that write LandscapeFiles: `atlaswriter landscape` against celldega 0.27.0's own writer.

    python -m benchmarks.macro.landscape_vs_celldega --reference-python /path/to/its/python

The same Xenium bundle (20 million transcripts, 100,000 cells, four channels of 4096 × 4096 pixels), turn by turn, both
from start to end and on disk; and of both the transcripts alone, which are timed in the process. One run of ours goes
first, which compiles kernels and brings the files into memory. Times are medians. Outputs go to the temporary folder
(TMPDIR) or to `--folder`, and are deleted; a bundle made there stays.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from benchmarks import big
from benchmarks.macro.growth import median
from benchmarks.macro.prepare_vs_cellucid import ROOT
from benchmarks.process import atlaswriter, circumstances, line, measured, warm_up, workplace, write_json

from atlaswriter.units import format_bytes

GENERATOR = ROOT.parent / "shared" / "data" / "make_xenium_bundle.py"
ENVIRONMENT = "CELLDEGA027_PYTHON"
_RIVALS = ROOT / "benchmarks" / "rivals"
# Parts of an output by the folders they are in, with row groups or without.
_PARTS = {
    "transcript_tiles": "transcript_tiles",
    "transcripts": "transcript_tiles",
    "cell_segmentation": "cell_segmentation",
    "cbg": "cbg",
    "pyramid_images": "pyramid_images",
}
_TIMES = ("seconds", "cpu_seconds")
_NAMES = ("atlaswriter", "celldega")


def make_bundle(folder: Path, generator: Path, **recipe: int) -> Path:
    """A bundle of that recipe below a folder, made where it is not there yet.

    The generator is not part of the repository; `recipe` are its options, such as ``transcripts`` or ``image_size``.
    """
    path = folder / "-".join(["xenium", *(f"{value}{name[0]}" for name, value in recipe.items())])
    if not (path / "metrics_summary.csv").is_file():  # written last
        if not generator.is_file():
            raise SystemExit(f"there is no generator at {generator}; give --generator, or a bundle with --bundle")
        print(f"making {path.name}", flush=True)
        arguments = [text for name, value in recipe.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        subprocess.run([sys.executable, generator, "--out", path, "--no-tar", *arguments], check=True)
    return path


def describe(bundle: Path) -> dict[str, Any]:
    """Transcripts, cells and bytes of a bundle."""
    manifest = json.loads((bundle / "experiment.xenium").read_text(encoding="utf-8"))
    return {
        "transcripts": pq.read_metadata(bundle / "transcripts.parquet").num_rows,
        "cells": manifest["num_cells"],
        "transcripts_bytes": (bundle / "transcripts.parquet").stat().st_size,
        "image_bytes": size_of(bundle / "morphology_focus")["bytes"],
        "input_bytes": size_of(bundle)["bytes"],
    }


def size_of(folder: Path) -> dict[str, int]:
    """Bytes and number of all files below."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {"bytes": sum(path.stat().st_size for path in files), "files": len(files)}


def parts_of(out: Path) -> dict[str, dict[str, int]]:
    """Bytes and number of files of each part of an output, and of the rest."""
    parts = {name: {"bytes": 0, "files": 0} for name in [*_PARTS.values(), "rest"]}
    for path in out.iterdir():
        size = size_of(path) if path.is_dir() else {"bytes": path.stat().st_size, "files": 1}
        part = parts[_PARTS.get(path.name, "rest")]
        part["bytes"], part["files"] = part["bytes"] + size["bytes"], part["files"] + size["files"]
    return parts


def with_output(cost: dict[str, Any], out: Path) -> dict[str, Any]:
    """What a process cost, and what it wrote; the output is deleted."""
    if cost["exit_code"]:
        return cost
    size = size_of(out)
    written = {"output_bytes": size["bytes"], "files": size["files"], "parts": parts_of(out)}
    shutil.rmtree(out)
    return {**cost, **written}


def ours(bundle: Path, out: Path, *arguments: object) -> dict[str, Any]:
    """Run ``atlaswriter landscape`` to its end."""
    return with_output(atlaswriter("landscape", bundle, out, *arguments), out)


def theirs(python: str, bundle: Path, out: Path, *arguments: object) -> dict[str, Any]:
    """Run the original to its end; its report has stages."""
    command = [python, str(_RIVALS / "celldega027.py"), str(bundle), str(out), *map(str, arguments)]
    return with_output(measured(command), out)


def ours_stages(bundle: Path, out: Path, *arguments: object) -> dict[str, Any]:
    """Run `atlaswriter.landscape` in a process that times its phases; its report has stages."""
    command = [sys.executable, str(_RIVALS / "ours_landscape.py"), str(bundle), str(out), *map(str, arguments)]
    return with_output(measured(command), out)


def ours_transcripts(bundle: Path, out: Path, *arguments: object) -> dict[str, float]:
    """Seconds and CPU seconds of our transcripts alone, from their file to all their tiles."""
    return transcripts_of(ours_stages(bundle, out, *arguments))


def transcripts_of(cost: dict[str, Any]) -> dict[str, float]:
    """Seconds and CPU seconds of the transcripts in a measured process whose report has stages."""
    if cost["exit_code"]:
        raise SystemExit(cost["error"])
    stage = cost["report"]["stages"]["transcripts"]
    return {key: stage[key] for key in _TIMES}


def shown(name: str, cost: dict[str, Any]) -> dict[str, Any]:
    """Print what a process cost; it must have succeeded."""
    if cost["exit_code"]:
        raise SystemExit(f"{name}:\n{cost['error']}")
    print(line(name, cost), flush=True)
    return cost


def medians(runs: list[dict[str, float]]) -> dict[str, float]:
    """Median times."""
    return {key: statistics.median(run[key] for run in runs) for key in _TIMES}


def compare(bundle: Path, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Run both programs on one bundle, in turns."""
    out, mode = folder / "landscape", ["--row-groups"] if options.row_groups else []
    how = [*mode, "-j", options.workers]
    shown("first", ours(bundle, out, *how))
    costs: dict[str, list[dict[str, Any]]] = {name: [] for name in _NAMES}
    stage: dict[str, list[dict[str, float]]] = {name: [] for name in _NAMES}
    for _ in range(options.repetitions):
        costs["atlaswriter"].append(shown("atlaswriter", ours(bundle, out, *how)))
        stage["atlaswriter"].append(ours_transcripts(bundle, out, *how))
        costs["celldega"].append(shown("celldega", theirs(options.reference_python, bundle, out, *mode)))
        stage["celldega"].append(transcripts_of(costs["celldega"][-1]))
    result: dict[str, Any] = {name: median(found) for name, found in costs.items()}
    first, second = (result[name] for name in _NAMES)
    alone = {name: medians(found) for name, found in stage.items()}
    speedup = {key: alone["celldega"][key] / alone["atlaswriter"][key] for key in _TIMES}
    return {
        **result,
        "speedup": {key: second[key] / first[key] for key in _TIMES},
        "relative_size": {key: first[key] / second[key] for key in ("peak_bytes", "output_bytes", "files")},
        "relative_bytes": {
            name: part["bytes"] / second["parts"][name]["bytes"] for name, part in first["parts"].items()
        },
        "transcripts": {**alone, "speedup": speedup},
    }


def show(result: dict[str, Any]) -> None:
    """Print a comparison."""
    data = result["data"]
    size = format_bytes(data["input_bytes"])
    print(f"\n{data['transcripts']:,} transcripts, {data['cells']:,} cells, {size}; medians:")
    for name in _NAMES:
        print(line(name, result[name]))
    for name, part in result["atlaswriter"]["parts"].items():
        other = result["celldega"]["parts"][name]
        sizes = [f"{format_bytes(found['bytes']):>9} in {found['files']:>6,} files" for found in (part, other)]
        print(f"  {name:<20} {'   '.join(sizes)}   {result['relative_bytes'][name]:.3f} of its size")
    alone = result["transcripts"]
    for what, speedup in (("whole process", result["speedup"]), ("transcripts alone", alone["speedup"])):
        print(f"{what}: {speedup['seconds']:.1f} times faster, {speedup['cpu_seconds']:.1f} times less CPU")


def _reference_python(given: str | None) -> str:
    found = given or os.environ.get(ENVIRONMENT)
    if not found:
        raise SystemExit(f"where is celldega 0.27.0? Give --reference-python, or set {ENVIRONMENT}")
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", help=f"Python that has celldega 0.27.0 (default: ${ENVIRONMENT})")
    parser.add_argument("--bundle", type=Path, help="a Xenium bundle, instead of one that is made")
    parser.add_argument("--generator", type=Path, default=GENERATOR, help="makes bundles (default: %(default)s)")
    parser.add_argument("--transcripts", type=big.number, default=20_000_000)
    parser.add_argument("--cells", type=big.number, default=100_000)
    parser.add_argument("--image-size", type=big.number, default=4096, help="of one side, in pixels")
    parser.add_argument("--row-groups", action="store_true", help="row groups instead of loose tiles")
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("-n", "--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the bundle, which stays, and outputs, which do not")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    options.reference_python = _reference_python(options.reference_python)
    return options


def main() -> None:
    """Measure, print, and write the JSON."""
    options = _options()
    warm_up()
    with workplace(options.folder) as folder:
        recipe = {key: getattr(options, key) for key in ("transcripts", "cells", "image_size")}
        bundle = options.bundle or make_bundle(folder, options.generator, **recipe)
        report = {
            "benchmark": "landscape_vs_celldega",
            **circumstances(),
            "outputs_in": tempfile.gettempdir() if options.folder is None else "a folder given",
            "arguments": {key: getattr(options, key) for key in ("workers", "repetitions", "row_groups")},
            "data": describe(bundle),
            **compare(bundle, folder, options),
        }
    show(report)
    write_json(options.json, report)


if __name__ == "__main__":
    main()
