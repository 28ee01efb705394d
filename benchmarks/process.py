"""Whole processes of the command line, measured from outside: seconds, CPU, peak memory, bytes."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.macro.prepare_vs_cellucid import machine

from atlaswriter.bench import signals
from atlaswriter.bench.process import MeasurementError, launched
from atlaswriter.units import format_bytes, usable_memory


def atlaswriter(*arguments: object) -> dict[str, Any]:
    """Run ``atlaswriter ARGUMENTS --json`` to its end.

    Returns
    -------
    dict
        ``exit_code``, ``seconds``, ``cpu_seconds``, ``peak_bytes`` (of exactly that process), ``disk_read_bytes``
        and ``disk_written_bytes`` (what went to and from a device; nothing in ``/dev/shm``); ``report``, what it said,
        or ``error``, the end of what it complained of.
    """
    return measured([program(), *map(str, arguments), "--json"])


def program() -> str:
    """Our command line: that of this environment, if it has one."""
    return shutil.which("atlaswriter", path=str(Path(sys.executable).parent)) or "atlaswriter"


def measured(command: Sequence[str]) -> dict[str, Any]:
    """Run a command to its end, also where it fails; what it cost, and the JSON object that it printed."""
    try:
        ended = launched(command, what=command[0])
    except MeasurementError as error:
        raise SystemExit(str(error)) from None
    cost: dict[str, Any] = {"exit_code": ended.exit_code, **ended.cost, "report": None}
    with suppress(ValueError):
        cost["report"] = _kept(json.loads(ended.said))
    if ended.exit_code:
        cost["error"] = ended.complained[-2000:]
    return cost


def _kept(report: dict[str, Any]) -> dict[str, Any]:
    """A report without the paths of this machine, and without long lists."""
    dropped = {"output", "path", "source", "images", "labels", "renamed"}
    kept = {name: value for name, value in report.items() if name not in dropped}
    if "contents" in kept:
        kept["contents"] = {name: value for name, value in kept["contents"].items() if name not in dropped}
    if "findings" in kept:
        kept["findings"] = [finding["rule"] for finding in kept["findings"][:20]]
    return kept


def warm_up() -> None:
    """Compile all kernels, which is done once on a machine and not what is measured."""
    cost = atlaswriter("info", "--warm")
    if cost["exit_code"]:
        raise SystemExit(f"kernels could not be compiled:\n{cost['error']}")
    print(f"kernels ready after {cost['seconds']:.1f} s", flush=True)


def export(source: Path, out: Path, *arguments: object) -> dict[str, Any]:
    """Run ``atlaswriter cellucid`` into a folder that is not there yet: its cost, and bytes and files written."""
    if out.exists():
        shutil.rmtree(out)
    cost = atlaswriter("cellucid", source, out, *arguments)
    files = [path for path in out.rglob("*") if path.is_file()]
    cost |= {"output_bytes": sum(path.stat().st_size for path in files), "files": len(files)}
    return cost | {"spill_bytes": (cost["report"] or {}).get("spill_bytes")}


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its relative path."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        names = (path.relative_to(folder).as_posix() for path in paths)
        return dict(zip(names, pool.map(_hash, paths), strict=True))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def to_disk(path: Path) -> None:
    """Wait until a file is on the disk, so that writing it does not slow down what is measured next."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def drop_from_cache(path: Path) -> None:
    """Make the system forget the content of a file, so that it is read from the disk again (Linux only)."""
    to_disk(path)
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


@contextmanager
def workplace(given: Path | None) -> Iterator[Path]:
    """The folder given, which stays, or a temporary one, which does not, also where the process is told to end."""
    with signals.ending_cleanly():
        if given is None:
            with tempfile.TemporaryDirectory(prefix="atlaswriter-benchmark-") as folder:
                yield Path(folder)
        else:
            given.mkdir(parents=True, exist_ok=True)
            yield given


def circumstances() -> dict[str, Any]:
    """When and on what something was measured."""
    today = dt.datetime.now(dt.UTC).date().isoformat()
    return {"date": today, "machine": {**machine(), "usable_memory": usable_memory()}}


def line(name: str, cost: dict[str, Any]) -> str:
    """A measured process, for people."""
    if cost["exit_code"]:
        last = (cost["error"].strip().splitlines() or ["nothing said"])[-1]
        return f"{name:<28} exit code {cost['exit_code']}: {last}"
    parts = [f"{cost['seconds']:>8.2f} s", f"{cost['cpu_seconds']:>8.2f} s CPU", f"{_size(cost, 'peak_bytes')} peak"]
    if "output_bytes" in cost:
        parts.append(f"{_size(cost, 'output_bytes')} in {cost['files']:,} files")
    if cost.get("spill_bytes"):
        parts.append(f"{_size(cost, 'spill_bytes')} spilled")
    return f"{name:<28} {'  '.join(parts)}"


def _size(cost: dict[str, Any], key: str) -> str:
    return f"{format_bytes(cost[key]):>9}"


def write_json(path: Path | None, report: dict[str, Any]) -> None:
    """Write a report, where one is wanted."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
