"""Whole processes from an uncompressed .h5ad: `atlaswriter cellucid` against a script that reads and calls cellucid.

    python -m benchmarks.macro.whole_process --reference-python /path/to/its/python

Start-up, reading and writing are all counted. One run of ours goes first, which compiles kernels and
brings the file into memory.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import synthetic
from benchmarks.macro.prepare_vs_cellucid import ENVIRONMENT, ROOT, machine

_THEIRS = ROOT / "benchmarks" / "rivals" / "cellucid009.py"


def timed(command: list[str]) -> dict[str, float]:
    """Seconds and CPU seconds of a process."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"seconds": seconds, "cpu_seconds": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


def size_of(folder: Path) -> int:
    """Bytes of all files below."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reference-python", default=os.environ.get(ENVIRONMENT, sys.executable))
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--genes", type=int, default=2_000)
    parser.add_argument("--density", type=float, default=0.07)
    parser.add_argument("-n", "--repetitions", type=int, default=3, help="of ours; cellucid runs once")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder, "atlas.h5ad"), Path(folder, "export")
        synthetic.atlas(options.cells, options.genes, options.density).write_h5ad(path)
        ours = [
            str(Path(sys.executable).with_name("atlaswriter")), "cellucid", str(path), str(out), "--force", "--latent",
            "X_pca", "--quantize", "8", "--compression", "6",
        ]  # fmt: skip
        timed(ours)
        runs = sorted((timed(ours) for _ in range(options.repetitions)), key=lambda run: run["seconds"])
        mine: dict[str, Any] = {**runs[len(runs) // 2], "bytes": size_of(out)}
        copy = Path(folder, "theirs")
        theirs = {**timed([options.reference_python, str(_THEIRS), str(path), str(copy)]), "bytes": size_of(copy)}
        report = {
            "benchmark": "whole_process",
            "machine": {**machine(), "exports_in": tempfile.gettempdir()},
            "data": {"cells": options.cells, "genes": options.genes, "input_bytes": path.stat().st_size},
            "atlaswriter": mine,
            "cellucid": theirs,
            "speedup": theirs["seconds"] / mine["seconds"],
        }
    print(json.dumps(report, indent=2))
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
