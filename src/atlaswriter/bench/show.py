"""A measurement as text, for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from atlaswriter.report import text_table
from atlaswriter.units import format_bytes

_UNITS = {"nonzeros": "non-zero", "transcripts": "transcript"}
_NAMES = {"cellucid": "Cellucid export", "landscape": "LandscapeFiles export"}
_COMPARED = {
    "seconds": "seconds",
    "work_seconds": "  of data",
    "cpu_seconds": "CPU seconds",
    "peak_bytes": "peak memory",
    "bytes": "written",
}
_HEAD = ("stage", "seconds", "CPU s", "ns/{unit}", "in MB/s", "out MB/s", "written", "files", "peak", "share")
_LEGEND = """\
Stages of the Cellucid export between loading kernels and publishing are measured one by one; in the whole, which is a
process from its start to its end, they run side by side. Written: files that a stage makes; what comes out of others
stays in memory. Share: the part of a stage's time that the yardstick alone would take, with all threads. memcpy: for
the bytes that come in; ISA-L: for the bytes before compression, most of them zeros that our encoder passes over, so it
may take less; write: for the bytes and files made, whichever takes longer, without waiting for the disk; sync: for all
bytes, once written, to reach the disk, which only publishing waits for. Seconds "of data" leave out starting, opening
and loading kernels (of the originals: starting and opening)."""


def as_text(result: Mapping[str, Any]) -> str:
    """Machine, yardsticks, a table for each format, and the ratios to the originals."""
    halves = [_half(verb, result[verb]) for verb in _NAMES if verb in result]
    return "\n\n".join([text_table(_head(result)), *halves, _LEGEND])


def _head(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    machine, sticks, settings = result["machine"], result["yardsticks"], result["settings"]
    speed = {name: value / 1e9 for name, value in sticks.items() if name.endswith("bytes_per_second")}
    threads, runs = settings["workers"], settings["repeats"]
    computer = (
        f"{machine['cpu']}, {machine['usable_cpus']} CPUs and {format_bytes(machine['usable_memory'])} usable, "
        f"{machine['system']}, {machine['file_system']}"
    )
    measured = (
        f"{result['date']}, atlaswriter {result['versions']['atlaswriter']}, Python {result['versions']['python']}, "
        f"{threads} threads, {'medians of ' if runs > 1 else ''}{runs} run{'s' * (runs > 1)}, seed {settings['seed']}"
    )
    kept = "compiled before" if machine["kernels_kept"] else "compiled in every process: no cache can be written"
    return [
        ("machine", computer),
        ("measured", measured),
        ("", f"inputs in the page cache, kernels {kept}"),
        ("memcpy", _pair(speed["memcpy_bytes_per_second"], speed["memcpy_all_bytes_per_second"], threads)),
        (
            "disk",
            f"{speed['write_bytes_per_second']:.3g} GB/s written, {speed['disk_bytes_per_second']:.3g} GB/s with sync, "
            f"{sticks['files_per_second']:,.0f} files of 20 kB a second",
        ),
        (machine["gzip"], _pair(speed["gzip_bytes_per_second"], speed["gzip_all_bytes_per_second"], threads)),
        ("inflate", f"{speed['inflate_bytes_per_second']:.3g} GB/s"),
    ]


def _pair(one: float, every: float, threads: int) -> str:
    return f"{one:.3g} GB/s, {every:.3g} with {threads} threads"


def _half(verb: str, half: Mapping[str, Any]) -> str:
    data, unit = half["data"], _UNITS[half["unit"]]
    counts = ", ".join(f"{data[key]:,} {key}" for key in ("cells", "genes", "nonzeros", "transcripts") if key in data)
    title = f"{_NAMES[verb]}: {counts.replace('nonzeros', 'non-zeros')} ({format_bytes(data['input_bytes'])})"
    rows = [[text.format(unit=unit) for text in _HEAD], *(_row(stage) for stage in half["stages"])]
    rows.append(_row({"stage": "whole", "bytes_written": half["whole"]["bytes"], **half["whole"]}))
    blocks = [f"{title}\n{_aligned(rows)}"]
    if half["exponent"] is not None:
        blocks.append(_growth(half, unit))
    blocks += [_against(name, theirs, half["whole"]) for name, theirs in half["against"].items()]
    return "\n\n".join(blocks)


def _row(stage: Mapping[str, Any]) -> list[str]:
    share, bound = stage.get("share_of_bound"), stage.get("bound")
    return [
        stage["stage"],
        _number(stage["seconds"], ".3f"),
        _number(stage.get("cpu_seconds"), ".3f"),
        _number(stage["ns_per_unit"], ",.1f"),
        _number(stage.get("bytes_in_per_second"), ",.0f", 1e6),
        _number(stage.get("bytes_out_per_second"), ",.0f", 1e6),
        format_bytes(stage["bytes_written"]) if stage.get("bytes_written") else "",
        f"{stage['files']:,}" if stage.get("files") else "",
        format_bytes(stage["peak_bytes"]) if stage.get("peak_bytes") else "",
        "" if share is None else f"{percent(share)} of {bound}",
    ]


def percent(share: float) -> str:
    """A share for people."""
    return "<1 %" if share < 0.005 else f"{100 * share:,.0f} %"


def _number(value: float | None, form: str, unit: float = 1) -> str:
    return "" if value is None else format(value / unit, form)


def _growth(half: Mapping[str, Any], unit: str) -> str:
    rows = [[f"{unit}s", "seconds", "of data", f"ns/{unit}", "peak"]]
    rows += [
        [
            f"{row['units']:,}",
            f"{row['seconds']:.3f}",
            f"{row['work_seconds']:.3f}",
            f"{1e9 * row['work_seconds'] / row['units']:,.1f}",
            format_bytes(row["peak_bytes"]),
        ]
        for row in half["growth"]
    ]
    powers = f"seconds as the power {half['exponent']:.2f} of the size, of data {half['work_exponent']:.2f}"
    return f"Growth: {powers}\n{_aligned(rows)}"


def _against(name: str, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> str:
    rows = [["", "atlaswriter", name, "theirs / ours"]]
    for key, text in _COMPARED.items():
        shown = format_bytes if "bytes" in key else "{:.2f}".format
        rows.append([text, shown(ours[key]), shown(theirs[key]), f"{theirs['ratios'][key]:,.2f}×"])
    versions = ", ".join(f"{package} {version}" for package, version in theirs["versions"].items())
    return f"Against {name}, whole processes ({versions})\n{_aligned(rows)}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, the first to the left, the others to the right."""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)
