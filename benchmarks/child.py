"""The measured process: loads an atlas, then exports it each time it is told to.

Runs in the environment of whoever is measured, so it may import nothing of ours. One JSON object
a line on standard output: first versions, then one measurement for each line that comes in.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import anndata


def serve(program: str, prepare: Callable[..., Any], **extra: Any) -> None:
    """Answer requests until standard input ends. `extra` is passed to `prepare` beside what all receive."""
    answers, sys.stdout = sys.stdout, open(os.devnull, "w")  # noqa: PTH123, SIM115 - what programs say is not an answer
    atlas = anndata.read_h5ad(sys.argv[1])
    arguments = {**inputs(atlas), **json.loads(sys.argv[2]), **extra}
    packages = {name: version(name) for name in (program, "numpy", "pandas", "scipy", "anndata")}
    _answer(answers, {"python": platform.python_version(), **packages})
    for _ in sys.stdin:
        _answer(answers, measure(prepare, arguments))


def _answer(answers: Any, content: dict[str, Any]) -> None:
    print(json.dumps(content), file=answers, flush=True)


def inputs(atlas: anndata.AnnData) -> dict[str, Any]:
    """The arrays of an atlas as `prepare` takes them."""
    embeddings = {f"X_umap_{array.shape[1]}d": array for key, array in atlas.obsm.items() if key.startswith("X_umap")}
    return {
        "latent_space": atlas.obsm["X_pca"],
        "obs": atlas.obs,
        "var": atlas.var,
        "gene_expression": atlas.X,
        "connectivities": atlas.obsp["connectivities"],
        **embeddings,
    }


def measure(prepare: Callable[..., Any], arguments: dict[str, Any]) -> dict[str, Any]:
    """Seconds, CPU seconds, peak memory and bytes of one export."""
    folder = Path(tempfile.mkdtemp())
    try:
        _reset_peak()
        cpu, start = time.process_time(), time.perf_counter()
        prepare(**arguments, out_dir=folder / "export")
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        return {"seconds": seconds, "cpu_seconds": cpu, "peak_bytes": _peak(), **_written(folder / "export")}
    finally:
        shutil.rmtree(folder)


def _written(folder: Path) -> dict[str, int]:
    sizes = {path.relative_to(folder): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    genes = sum(size for path, size in sizes.items() if path.parts[0] == "var")
    return {"bytes": sum(sizes.values()), "var_bytes": genes, "files": len(sizes)}


def _reset_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak() -> int:
    """Largest resident size since `_reset_peak`; where there is no /proc, since the start."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
