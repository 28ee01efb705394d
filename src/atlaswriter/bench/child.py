"""The measured process: ``python -m atlaswriter.bench.child TASK``, where the task is a JSON object.

Does one export, or the parts of one after another, and prints one JSON object. Ends with the exit code of the command
line, and says why on standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from inspect import signature
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from atlaswriter.errors import AtlasWriterError, OutputError
from atlaswriter.report import Phase, Report
from atlaswriter.units import peak_memory

# Choices of `cellucid` that leave out all but one part; embeddings are there always.
_NOTHING: dict[str, Any] = {"genes": False, "obs": [], "graph": False, "vector_fields": False}
_PARTS: dict[str, tuple[str, ...]] = {
    "all": tuple(_NOTHING), "points": (), "genes": ("genes",), "obs": ("obs",), "graph": ("graph",)
}  # fmt: skip
# Runs of what writes nothing, at least: one is taken off the other.
_QUICK_REPEATS = 5


def main() -> int:
    """Do what the first argument says; the exit code."""
    task = json.loads(sys.argv[1])
    works: dict[str, Callable[..., Any]] = {"export": export, "parts": parts, "warm": warm}
    try:
        found = works[task.pop("do")](**task)
    except AtlasWriterError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except OSError as error:
        sys.stderr.write(f"{error}\n")
        return OutputError.exit_code
    json.dump(found, sys.stdout)
    return 0


def warm() -> dict[str, Any]:
    """Compile all kernels, which is done once on a machine; how many, and where they are kept, if anywhere."""
    from atlaswriter.kernels import _jit

    return {"compiled": _jit.warm_all(), "kept": _jit.cache_folder() is not None}


def export(verb: str, source: str, out: str, **options: Any) -> dict[str, Any]:
    """One whole export, by the front door; the report, without paths."""
    from atlaswriter import cellucid, landscape

    write = cellucid if verb == "cellucid" else landscape
    report = asdict(write(source, out, progress=False, **options))
    report["contents"].pop("source", None)
    del report["output"]
    return report


def parts(source: str, folder: str, repeats: int, **options: Any) -> list[dict[str, Any]]:
    """Stages of one Cellucid export, each measured alone, medians of `repeats`.

    Regrouping and encoding of expression write nothing. Genes, obs and the graph are exported beside the embeddings,
    whose share is taken off; what is left of the genes is the writing of their files.
    """
    from atlaswriter.bench.expression import regroup

    _export_part("all", source, folder, options)  # loads what all of them need
    found: dict[str, dict[str, Any]] = {}
    works: dict[str, Callable[[], dict[str, int]]] = {
        "regroup": lambda: regroup(source, encode=False, **options),
        "encode": lambda: regroup(source, encode=True, **options),
    }
    for name, work in works.items():
        found[name] = _median([_timed(work) for _ in range(max(repeats, _QUICK_REPEATS))])
    for name in ("points", "genes", "obs", "graph"):
        found[name] = _median([_export_part(name, source, folder, options) for _ in range(repeats)])
    points = found["points"]
    for name in ("genes", "obs", "graph"):
        found[name] = _without(found[name], points)
    written = _without(found["genes"], found["encode"], kept=("bytes_out", "files"))
    encoded = _without(found["encode"], found["regroup"], kept=("bytes_out",))
    stages = {"read + regroup": found["regroup"], "encode genes": encoded, "write gene files": written}
    stages |= {"points": points, "obs": found["obs"], "graph": found["graph"]}
    return [{"stage": name, **stage} for name, stage in stages.items()]


def _export_part(name: str, source: str, folder: str, options: dict[str, Any]) -> dict[str, Any]:
    """Export the embeddings and one part; times are those of writing, not of opening and publishing. The files stay."""
    from atlaswriter.formats.cellucid.convert import cellucid, opened
    from atlaswriter.formats.cellucid.write import export

    out = Path(mkdtemp(dir=folder), "part")
    chosen = {key: value for key, value in _NOTHING.items() if key not in _PARTS[name]}
    given = signature(cellucid).bind(source, out, progress=False, **chosen, **options)
    given.apply_defaults()
    watched: list[_Watched] = []

    def work() -> dict[str, int]:
        with opened(given.arguments) as prepared:
            begun = prepared.report
            watched.append(_Watched(begun.output, begun.format, begun.contents))
            report = export(replace(prepared, report=watched[0]))
        return {"bytes_out": report.bytes_out, "files": report.files}

    return {**_timed(work), **watched[0].writing}


class _Watched(Report):
    """A report that also notes CPU seconds, and keeps the times of its phase ``write`` in `writing`."""

    @contextmanager
    def phase(self, name: str, size: int = 0) -> Iterator[Phase]:
        """As that of every report."""
        used = time.process_time()
        with super().phase(name, size) as phase:
            yield phase
        if name == "write":
            self.writing = {"seconds": phase.seconds, "cpu_seconds": time.process_time() - used}


def _timed(work: Callable[[], dict[str, int]]) -> dict[str, Any]:
    with _peak() as peak:
        begin, used = time.perf_counter(), time.process_time()
        found = work()
        seconds, used = time.perf_counter() - begin, time.process_time() - used
    return {"seconds": seconds, "cpu_seconds": used, "peak_bytes": peak[0], **found}


@contextmanager
def _peak() -> Iterator[list[int]]:
    """Afterwards the largest resident size within the context; where that cannot be told, since the start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    found: list[int] = []
    yield found
    found.append(peak_memory())


def _median(runs: list[dict[str, Any]]) -> dict[str, Any]:
    from statistics import median

    found = {key: median(run[key] for run in runs) for key in runs[0]}
    return {key: value if key.endswith("seconds") else int(value) for key, value in found.items()}


def _without(whole: dict[str, Any], rest: dict[str, Any], kept: tuple[str, ...] = ()) -> dict[str, Any]:
    """What a part adds to another; never less than nothing, as times are not exact."""
    taken_off = {"seconds", "cpu_seconds", "bytes_out", "files"} - set(kept)
    return {key: max(value - rest[key], 0) if key in taken_off else value for key, value in whole.items()}


if __name__ == "__main__":
    sys.exit(main())
