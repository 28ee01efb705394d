"""Where the time goes: each stage with its bytes, its rates, and the yardstick that bounds it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from atlaswriter.bench.yardsticks import Yardsticks
from atlaswriter.formats.landscape import layout

# What bounds a stage. memcpy: bytes that come in; ISA-L: bytes before compression; write: bytes and files made, without
# waiting for the disk; sync: bytes that were written and then have to reach the disk, which only publishing waits for.
MEMCPY, ISAL, WRITE, SYNC = "memcpy", "ISA-L", "write", "sync"
_CELLUCID = {
    "read + regroup": MEMCPY, "encode genes": ISAL, "write gene files": WRITE, "points": ISAL, "obs": MEMCPY,
    "graph": MEMCPY, "publish": SYNC,
}  # fmt: skip
_LANDSCAPE = {
    "transcripts": MEMCPY,
    "outlines": MEMCPY,
    "genes": WRITE,
    "cells": MEMCPY,
    "image": MEMCPY,
    "publish": SYNC,
}
# Phases of a whole export around the stages of the Cellucid export, and what people call them. What is before is the
# start of Python and of the libraries; kernels are compiled already, but have to be loaded.
_BEFORE, _PUBLISH = ("open", "read", "kernels"), "publish"
_START, _SHOWN = "start", {"kernels": "load kernels"}


def cellucid_stages(
    data: Mapping[str, int], phases: Iterable[Mapping[str, Any]], parts: Iterable[Mapping[str, Any]],
    whole: Mapping[str, Any], sticks: Yardsticks,
) -> list[dict[str, Any]]:  # fmt: skip
    """Stages of a Cellucid export: phases of the whole before and after, parts measured alone between them.

    Parameters
    ----------
    data
        Of the atlas, see `run`.
    phases
        Of a report: ``name`` and ``seconds``.
    parts
        As `child.parts` gives them.
    whole
        ``bytes`` of the export, and ``start_seconds`` before it began.
    sticks
        To compare with.
    """
    cells, nonzeros = data["cells"], data["nonzeros"]
    bytes_in = {
        "read + regroup": 8 * nonzeros,
        "encode genes": cells * data["genes"],
        "points": cells * 4 * 5,
        "obs": cells * (data["obs_bytes"] + 4 * data["latent"]),
        "graph": 8 * data["edges"],
    }
    seconds = {phase["name"]: phase["seconds"] for phase in phases}
    rows = [{"stage": _START, "seconds": whole["start_seconds"]}]
    rows += [{"stage": name, "seconds": seconds[name]} for name in _BEFORE if name in seconds]
    rows += [{**part, "bytes_in": bytes_in.get(part["stage"])} for part in parts]
    rows += [{"stage": _PUBLISH, "seconds": seconds[_PUBLISH], "bytes_out": whole["bytes"]}]
    return [_stage(row, nonzeros, _CELLUCID, sticks) for row in rows]


def landscape_stages(
    data: Mapping[str, int], phases: Iterable[Mapping[str, Any]], whole: Mapping[str, Any], sizes: Mapping[str, int],
    sticks: Yardsticks,
) -> list[dict[str, Any]]:  # fmt: skip
    """Stages of a LandscapeFiles export, which are the phases of its report.

    Parameters
    ----------
    data
        Of the bundle, see `bundle.make_bundle`.
    phases
        ``name`` and ``seconds``.
    whole
        ``start_seconds``, before the export began.
    sizes
        Bytes of every file written, by its relative name.
    sticks
        To compare with.
    """
    bytes_in = {
        "transcripts": 12 * data["transcripts"],
        "outlines": 8 * data["vertices"],
        "genes": 8 * data["nonzeros"],
        "cells": 16 * data["cells"],
        "image": 2 * data["pixels"],
    }
    rows: list[dict[str, Any]] = [{"stage": _START, "seconds": whole["start_seconds"]}]
    for phase in phases:
        row: dict[str, Any] = {
            "stage": phase["name"],
            "seconds": phase["seconds"],
            "bytes_in": bytes_in.get(phase["name"]),
        }
        if phase["name"] == _PUBLISH:
            row["bytes_out"] = sum(sizes.values())
        elif written := _written_by(phase["name"], sizes):
            row |= {"bytes_out": sum(written.values()), "files": len(written)}
        rows.append(row)
    return [_stage(row, data["transcripts"], _LANDSCAPE, sticks) for row in rows]


def _written_by(phase: str, sizes: Mapping[str, int]) -> dict[str, int]:
    """Files of a phase."""
    homes = {
        "transcripts": (layout.transcripts_dir(),),
        "outlines": (layout.outlines_dir(),),
        "genes": (layout.cbg_dir(), layout.meta_gene_file(), layout.signatures_file()),
        "cells": (layout.cell_metadata_file(), layout.clusters_dir()),
        "image": (layout.IMAGES_DIR,),
    }.get(phase, ())
    return {name: size for name, size in sizes.items() if name.partition("/")[0] in homes}


def _stage(row: Mapping[str, Any], units: int, bounds: Mapping[str, str], sticks: Yardsticks) -> dict[str, Any]:
    """A stage with its rates; what is not known is None.

    ``bytes_out`` come out of it, into memory or a file, or on the disk; ``bytes_written`` are in files that it makes.
    """
    seconds, bytes_in, bytes_out, files = row["seconds"], row.get("bytes_in"), row.get("bytes_out"), row.get("files")
    bound = bounds.get(row["stage"])
    least = None
    if bound is not None:
        content = bytes_out if bound in {WRITE, SYNC} else bytes_in
        least = sticks.seconds(bound, content or 0, files or 0)
    return {
        "stage": _SHOWN.get(row["stage"], row["stage"]),
        "seconds": seconds,
        "cpu_seconds": row.get("cpu_seconds"),
        "peak_bytes": row.get("peak_bytes"),
        "bytes_in": bytes_in,
        "bytes_out": bytes_out,
        "bytes_written": bytes_out if files else None,
        "files": files,
        "ns_per_unit": 1e9 * seconds / units,
        "bytes_in_per_second": _rate(bytes_in, seconds),
        "bytes_out_per_second": _rate(bytes_out, seconds),
        "bound": bound,
        "bound_seconds": least,
        "share_of_bound": _rate(least, seconds),
    }


def _rate(amount: float | None, seconds: float) -> float | None:
    return amount / seconds if amount and seconds > 0 else None
