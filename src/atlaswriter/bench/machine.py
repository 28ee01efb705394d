"""What something was measured on, and with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from atlaswriter import __version__
from atlaswriter.codecs.gzip import encoder_name
from atlaswriter.units import usable_cpus, usable_memory

_PACKAGES = ("numpy", "scipy", "numba", "h5py", "pyarrow", "isal", "zstandard", "imagecodecs")


def versions() -> dict[str, str]:
    """Of this program, Python and the libraries that the time is spent in."""
    found = {"atlaswriter": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def machine(folder: Path) -> dict[str, Any]:
    """Processor, cores and bytes of memory that may be used, system, encoder, and the file system of a folder."""
    return {
        "cpu": _cpu(),
        "architecture": platform.machine(),
        "usable_cpus": usable_cpus(),
        "usable_memory": usable_memory(),
        "system": f"{platform.system()} {platform.release()}",
        "gzip": encoder_name(),
        "file_system": file_system(folder),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def file_system(folder: Path) -> str:
    """Kind of the file system that a folder is on, such as ``ext4``; ``unknown`` where the system does not tell."""
    place, kind, longest = folder.resolve(), "unknown", -1
    try:
        mounts = Path("/proc/self/mounts").read_text().splitlines()
    except OSError:
        return kind
    for line in mounts:
        _, point, name, *_ = line.split(" ")
        point = point.replace("\\040", " ")
        if len(point) > longest and place.is_relative_to(point):
            kind, longest = name, len(point)
    return kind
