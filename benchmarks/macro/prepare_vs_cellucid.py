"""`prepare` against that of cellucid 0.0.9: the same arguments, the same data, turn by turn.

    python -m benchmarks.macro.prepare_vs_cellucid --reference-python /path/to/its/python

Both programs run in processes of their own that hold the data in memory, so only `prepare` is
measured. One run of each goes first and is not counted: it loads kernels and fills caches.
Times are medians. Exports go to the temporary folder (TMPDIR) and are deleted: with one on a disk
that others write to, our fsync waits for their data too; TMPDIR=/dev/shm takes the disk out.
"""

from __future__ import annotations

import argparse
import datetime as dt
import importlib.util
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anndata
from benchmarks import synthetic

from atlaswriter.units import format_bytes, usable_cpus

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data" / "xenium_pancreas.h5ad"
ENVIRONMENT = "CELLUCID009_PYTHON"
BITS = {"8": 8, "16": 16, "none": None}
_NAMES = ("atlaswriter", "cellucid")
_TIMES = {"wall": "seconds", "  fastest": "fastest_seconds", "CPU": "cpu_seconds"}
_SIZES = {"written": "bytes", "  var/": "var_bytes", "peak memory": "peak_bytes"}


class Child:
    """One program in its own process, which exports when told to."""

    def __init__(self, python: str, program: str, *arguments: str) -> None:
        self._name = program
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.child", program, *arguments],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self.versions = self._answer()

    def run(self) -> dict[str, Any]:
        """Export once; what it cost."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._errors.seek(0)
            raise SystemExit(f"{self._name} ended:\n{self._errors.read()[-3000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.communicate()
        self._errors.close()


def compare(path: Path, bits: int | None, options: argparse.Namespace) -> dict[str, Any]:
    """Run both programs on one file, in turns."""
    arguments = {"var_quantization": bits, "obs_continuous_quantization": bits, "compression": options.compression}
    ours, theirs = {**arguments, "workers": options.workers}, {**arguments, "force": True}
    with ExitStack() as stack:
        children = {
            "atlaswriter": Child(sys.executable, "atlaswriter", str(path), json.dumps(ours)),
            "cellucid": Child(options.reference_python, "cellucid", str(path), json.dumps(theirs)),
        }
        for child in children.values():
            stack.callback(child.close)
            child.run()
        runs = [{name: child.run() for name, child in children.items()} for _ in range(options.repetitions)]
        versions = {name: child.versions for name, child in children.items()}
    result = {name: _medians([run[name] for run in runs]) for name in _NAMES}
    ratios = {key: result["cellucid"][key] / result["atlaswriter"][key] for key in _TIMES.values()}
    sizes = {key: result["atlaswriter"][key] / result["cellucid"][key] for key in _SIZES.values()}
    return {"versions": versions, **result, "speedup": ratios, "relative_size": sizes}


def _medians(runs: list[dict[str, Any]]) -> dict[str, Any]:
    medians = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    seconds = [round(run["seconds"], 4) for run in runs]
    return {**medians, "fastest_seconds": min(seconds), "all_seconds": seconds}


@contextmanager
def _inputs(options: argparse.Namespace) -> Iterator[Iterator[tuple[str, Path, int | None]]]:
    """Names and files of the atlases to export, and in how many bits; made-up ones live as long as the context."""
    with tempfile.TemporaryDirectory() as folder:

        def each() -> Iterator[tuple[str, Path]]:
            if "real" in options.data:
                for bits in options.quantize:
                    yield f"{options.file.stem}, {_stored(BITS[bits])}", options.file, BITS[bits]
            if "synthetic" in options.data:
                path = Path(folder, "synthetic.h5ad")
                synthetic.atlas(options.cells, options.genes, options.density).write_h5ad(path)
                for bits in options.quantize:
                    yield f"synthetic, {_stored(BITS[bits])}", path, BITS[bits]

        yield each()


def _stored(bits: int | None) -> str:
    return "float32" if bits is None else f"{bits} bit"


def _describe(path: Path) -> dict[str, Any]:
    atlas = anndata.read_h5ad(path)
    cells, genes = atlas.shape
    entries = atlas.obsp["connectivities"].nnz
    return {"cells": cells, "genes": genes, "nonzeros": int(atlas.X.nnz), "graph_entries": int(entries)}


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    return {"cpu": model, "usable_cpus": usable_cpus(), "system": platform.platform()}


def show(name: str, result: dict[str, Any]) -> None:
    """Print one comparison as a table."""
    data = result["data"]
    print(f"\n{name}: {data['cells']:,} cells × {data['genes']:,} genes, {data['nonzeros']:,} non-zeros")
    ours, theirs = result["atlaswriter"], result["cellucid"]
    heads = [f"{program} {result['versions'][program][program]}" for program in _NAMES]
    print(f"{'':<12} {heads[0]:>20} {heads[1]:>20}")
    for label, key in _TIMES.items():
        ratio = f"{result['speedup'][key]:.1f} times faster"
        print(f"{label:<12} {ours[key]:>18.3f} s {theirs[key]:>18.3f} s   {ratio}")
    for label, key in _SIZES.items():
        share = f"{result['relative_size'][key]:.3f} of its size"
        print(f"{label:<12} {format_bytes(ours[key]):>20} {format_bytes(theirs[key]):>20}   {share}")


def _reference_python(given: str | None) -> str:
    if given or os.environ.get(ENVIRONMENT):
        return given or os.environ[ENVIRONMENT]
    if importlib.util.find_spec("cellucid") is None:
        raise SystemExit(f"where is cellucid 0.0.9? Give --reference-python, or set {ENVIRONMENT}")
    return sys.executable


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=REAL, help=f"an .h5ad with a graph (default: {REAL})")
    parser.add_argument("--data", nargs="+", choices=["real", "synthetic"], default=["real", "synthetic"])
    parser.add_argument("--quantize", nargs="+", choices=BITS, default=list(BITS), help="bits of expression and obs")
    parser.add_argument("--reference-python", help=f"Python that has cellucid 0.0.9 (default: ${ENVIRONMENT})")
    parser.add_argument("-n", "--repetitions", type=int, default=5)
    parser.add_argument("--compression", type=int, default=6)
    parser.add_argument("-j", "--workers", type=int, default=2)
    parser.add_argument("--cells", type=int, default=200_000, help="of the synthetic atlas")
    parser.add_argument("--genes", type=int, default=2_000, help="of the synthetic atlas")
    parser.add_argument("--density", type=float, default=0.07, help="of the synthetic atlas")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    options.reference_python = _reference_python(options.reference_python)
    return options


def main() -> None:
    """Measure, print, and write the JSON."""
    options = _options()
    results = {}
    with _inputs(options) as inputs:
        for name, path, bits in inputs:
            results[name] = {"data": _describe(path), "bits": bits, **compare(path, bits, options)}
            show(name, results[name])
    if options.json:
        report = {
            "benchmark": "prepare_vs_cellucid",
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
            "machine": {**machine(), "exports_in": tempfile.gettempdir()},
            "arguments": {key: getattr(options, key) for key in ("compression", "workers", "repetitions")},
            "results": results,
        }
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
