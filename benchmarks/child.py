"""A process that loads an atlas, then exports it each time it is told to, so that only `prepare` is measured.

    python -m benchmarks.child cellucid|atlaswriter ATLAS.h5ad ARGUMENTS

ARGUMENTS are those of `prepare` beside the atlas, as JSON. Runs in the environment of whoever is measured, so it may
import nothing of ours. One JSON object a line on standard output: first versions, then one measurement for each line
that comes in.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
from benchmarks.rivals.adapter import inputs, peak_bytes, versions


def main() -> None:
    """Answer requests until standard input ends."""
    program, path, arguments = sys.argv[1:]
    answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: PTH123, SIM115 - what programs say is not an answer
    prepare = importlib.import_module(program).prepare
    given = {**inputs(anndata.read_h5ad(path)), **json.loads(arguments)}
    _answer(answers, versions((program, "numpy", "pandas", "scipy", "anndata")))
    for _ in sys.stdin:
        _answer(answers, measure(prepare, given))


def _answer(answers: Any, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)


def measure(prepare: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds, CPU seconds, peak memory and bytes of one export."""
    folder = Path(tempfile.mkdtemp())
    try:
        _reset_peak()
        cpu, start = time.process_time(), time.perf_counter()
        prepare(**arguments, out_dir=folder / "export")
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak_bytes(), **_written(folder / "export")}
    finally:
        shutil.rmtree(folder)


def _written(folder: Path) -> dict[str, int]:
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    genes = sum(size for path, size in sizes.items() if path.parts[0] == "var")
    return {"bytes": sum(sizes.values()), "var_bytes": genes, "files": len(sizes)}


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


if __name__ == "__main__":
    main()
