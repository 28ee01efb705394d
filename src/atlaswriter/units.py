"""Sizes in bytes, and what this process may really use of the machine."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from atlaswriter.errors import InputError, Problem

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgtp]?)(i?)b?\s*", re.IGNORECASE)
_POWERS = "kmgtp"
_CGROUP = Path("/sys/fs/cgroup")
# Parameters of glibc's mallopt.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def parse_bytes(size: str | int, where: str = "memory_budget") -> int:
    """Bytes meant by a size such as ``"4GiB"``, ``"500 MB"`` or ``1024``.

    ``KiB MiB GiB TiB PiB`` are powers of 1024; ``kB MB GB TB PB`` (the ``B`` may be left out)
    powers of 1000. Raises `InputError` for anything else and for sizes that are not positive.
    """
    if isinstance(size, int) and not isinstance(size, bool):
        value = size
    else:
        match = _SIZE.fullmatch(size) if isinstance(size, str) else None
        if match is None:
            raise InputError(Problem(where, f"{size!r} is not a size", 'write for example "4GiB" or "500MB"'))
        number, prefix, binary = match.groups()
        power = _POWERS.find(prefix.lower()) + 1 if prefix else 0
        value = int(float(number) * (1024 if binary else 1000) ** power)
    if value <= 0:
        raise InputError(Problem(where, f"{size!r} is not a positive size", 'write for example "4GiB"'))
    return value


def format_bytes(size: float) -> str:
    """A size for people: ``"1.5 GiB"``, three significant digits."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.3g} {unit}"
        value /= 1024
    return f"{value:.3g} PiB"


def usable_cpus() -> int:
    """CPUs that this process may use: affinity and the cgroup's quota, at least 1."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _cgroup_cpu_quota()
    return max(1, count if quota is None else min(count, int(quota + 0.5)))


def _cgroup_cpu_quota() -> float | None:
    try:
        quota, period = (_CGROUP / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def usable_memory() -> int:
    """Bytes of memory that this process may use.

    The smallest of: physical memory, the cgroup's limit (v1 or v2), Slurm's allocation for this
    node, and RLIMIT_AS / RLIMIT_DATA.
    """
    limits = [_physical_memory(), *_cgroup_limits(), *_slurm_limits(), *_rlimits()]
    return min(limit for limit in limits if limit > 0)


def _physical_memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 8 * 2**30


def _cgroup_limits() -> list[int]:
    limits = []
    own = _own_cgroup()
    groups = [_CGROUP / group / "memory.max" for group in (own, *own.parents)]
    for path in (*groups, _CGROUP / "memory/memory.limit_in_bytes"):
        try:
            limits.append(int(path.read_text()))
        except (OSError, ValueError):
            continue
    return limits


def _own_cgroup() -> PurePosixPath:
    """The group (v2) of this process, relative to the root of groups; its limit and its parents' all hold."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        lines = []
    return PurePosixPath(next((line[4:] for line in lines if line.startswith("0::/")), ""))


def _slurm_limits() -> list[int]:
    """Slurm states both values in MiB."""
    try:
        if "SLURM_MEM_PER_NODE" in os.environ:
            return [int(os.environ["SLURM_MEM_PER_NODE"]) * 2**20]
        if "SLURM_MEM_PER_CPU" in os.environ:
            cpus = int(os.environ.get("SLURM_CPUS_ON_NODE", "1"))
            return [int(os.environ["SLURM_MEM_PER_CPU"]) * cpus * 2**20]
    except ValueError:
        pass
    return []


def _rlimits() -> list[int]:
    try:
        import resource
    except ImportError:
        return []
    soft = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA)]
    return [limit for limit in soft if limit != resource.RLIM_INFINITY]


def peak_memory() -> int:
    """Largest resident size this process has had, in bytes; 0 where the system does not tell."""
    try:
        # getrusage also counts what the parent held when it forked.
        status = Path("/proc/self/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if os.uname().sysname == "Darwin" else peak * 1024


def resident_memory() -> int:
    """Resident size of this process now, in bytes; its peak where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return peak_memory()


def return_freed_memory() -> None:
    """Let the C library give large blocks back to the system as soon as they are freed.

    glibc raises the size of these up to 32 MiB, and what it keeps at the end of its heap to twice as much, whenever
    such a block is freed (mallopt(3)). A CSR export in 16 bit of 2,000,000 × 200 with a budget of 304 MiB, so in
    batches of some 25 MiB, reached 318 MiB in 3.6 s; with a size that stays at 8 MiB 288 MiB in 4.0 s, at 4 MiB 280
    in 4.3 s, at 1 MiB 270 in 4.7 s. Without a budget there is no difference at 8 MiB. It holds for the whole process
    from then on; other C libraries are left alone.
    """
    mallopt = _from_libc("mallopt")
    for parameter in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD) if mallopt is not None else ():
        mallopt(parameter, 8 << 20)


def trim_memory() -> None:
    """Give what was freed in smaller blocks back to the system too, where the C library can (malloc_trim(3))."""
    malloc_trim = _from_libc("malloc_trim")
    if malloc_trim is not None:
        malloc_trim(0)


def _from_libc(name: str) -> Any:
    try:
        import ctypes

        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, ImportError, OSError, TypeError):
        return None
