"""What every adapter does: takes ``SOURCE OUT``, lets its program do the job once, prints what it took.

It runs in the environment of whoever is measured, so it may import nothing of ours and needs only what that program
needs. One JSON object goes to standard output: `versions`; `seconds` since the process began and `cpu_seconds` of it
and those it waited for, so imports included; `peak_bytes`, its largest resident size; `output_bytes` and `files`. What
the program prints goes to standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import resource
import sys
import time
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

BITS = {"8": 8, "16": 16, "none": None}

_LOADED = time.perf_counter()


def arguments(doc: str | None) -> argparse.ArgumentParser:
    """A parser of ``SOURCE OUT``; an adapter adds its own options."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path, help="is not there yet")
    return parser


def export_arguments(doc: str | None) -> argparse.ArgumentParser:
    """As `arguments`, with what both cellucid 0.0.9's export and the baseline's take."""
    parser = arguments(doc)
    parser.add_argument("--bits", choices=BITS, default="8", help="of expression and obs (default: %(default)s)")
    parser.add_argument("--compression", type=int, default=6, help="of gzip, 1 to 9 (default: %(default)s)")
    return parser


def run(options: argparse.Namespace, packages: Iterable[str], job: Callable[[argparse.Namespace], Any]) -> None:
    """Do the job, and print what it took.

    `job` takes the options; it may return a dict of facts to be told besides.
    """
    with contextlib.redirect_stdout(sys.stderr):
        facts = job(options) or {}
    report = {
        "seconds": seconds(),
        "cpu_seconds": cpu_seconds(),
        "versions": versions(packages),
        "peak_bytes": peak_bytes(),
        **size_of(options.out),
        **facts,
    }
    print(json.dumps(report))


def require(package: str, wanted: str) -> None:
    """End unless that version of a package is here."""
    found = version(package)
    if found != wanted:
        raise SystemExit(f"{package} {found} is installed here; this adapter is for {package} {wanted}")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def seconds() -> float:
    """Seconds since this process began; where there is no /proc, since this module was loaded."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # after boot
    except OSError:
        return time.perf_counter() - _LOADED
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")


def cpu_seconds() -> float:
    """CPU seconds of this process and of those it waited for."""
    return sum(os.times()[:4])


def peak_bytes() -> int:
    """Largest resident size of this process so far."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def size_of(out: Path) -> dict[str, int]:
    """Bytes and number of the files of an output, a folder or one file."""
    files = [path for path in [out, *out.rglob("*")] if path.is_file()]
    return {"output_bytes": sum(path.stat().st_size for path in files), "files": len(files)}


def inputs(atlas: Any) -> dict[str, Any]:
    """The arrays of an `AnnData` as cellucid 0.0.9's `prepare`, and ours, take them."""
    embeddings = {f"X_umap_{array.shape[1]}d": array for key, array in atlas.obsm.items() if key.startswith("X_umap")}
    return {
        "latent_space": atlas.obsm["X_pca"],
        "obs": atlas.obs,
        "var": atlas.var,
        "gene_expression": atlas.X,
        "connectivities": atlas.obsp["connectivities"],
        **embeddings,
    }
