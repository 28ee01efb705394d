"""A measurement as a picture: bars for the stages, and how time grows with the data. matplotlib is loaded only here."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any

from atlaswriter.bench.show import percent
from atlaswriter.errors import InputError, Problem

WIDTH, HEIGHT, DPI = 11.0, 4.2, 150  # inches, the height for each format
# Okabe and Ito's colours, which everyone can tell apart; what the yardstick alone would take is dark.
_COLOURS = {"memcpy": "#0072B2", "ISA-L": "#009E73", "write": "#E69F00", "sync": "#CC79A7", None: "#9a9a9a"}
_OURS, _THEIRS, _DARK = "#0072B2", "#D55E00", "#222222"
_NAMES = {"cellucid": ("Cellucid export", "non-zeros"), "landscape": ("LandscapeFiles export", "transcripts")}
_STYLE: dict[Any, Any] = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 9.5,
    "axes.grid": True,
    "axes.axisbelow": True,
    "font.size": 9.5,
    "grid.color": "#e6e6e6",
    "legend.frameon": False,
    "legend.fontsize": 8.5,
}


def check(path: Path) -> None:
    """Raise `InputError` unless a picture can be drawn and has a place."""
    if find_spec("matplotlib") is None:
        raise InputError(Problem("--plot", "matplotlib is not installed", "pip install 'atlaswriter[plot]'"))
    if path.suffix.lower() != ".png":
        raise InputError(Problem("--plot", f"{path} is no name of a PNG file", "end it in .png"))
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InputError(Problem("--plot", f"{path} cannot be a file", "give a file in a folder that exists"))


def draw(result: Mapping[str, Any], path: Path) -> None:
    """Draw all formats of a measurement, and write the PNG file when it is complete."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    halves = [verb for verb in _NAMES if verb in result]
    with mpl.rc_context({**dict(mpl.rcParamsDefault), **_STYLE, "backend": "agg"}):
        figure = Figure(figsize=(WIDTH, HEIGHT * len(halves)), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(len(halves), 2, squeeze=False, width_ratios=(1.25, 1))
        for (left, right), verb in zip(axes, halves, strict=True):
            _bars(left, verb, result[verb])
            _growth(right, verb, result[verb])
        _legend(figure)
        figure.suptitle(_caption(result), x=0.01, ha="left", fontsize=9, color="#555555")
        content = BytesIO()
        figure.savefig(content, format="png", dpi=DPI)
    path.write_bytes(content.getvalue())


def _caption(result: Mapping[str, Any]) -> str:
    machine, settings = result["machine"], result["settings"]
    program = f"atlaswriter {result['versions']['atlaswriter']}"
    return f"{program}, {result['date']}: {machine['cpu']}, {settings['workers']} threads, {machine['file_system']}"


def _legend(figure: Any) -> None:
    """What the colours of bars mean, below all of them."""
    from matplotlib.patches import Patch

    handles = [Patch(color=colour, label=f"yardstick: {name or 'none'}") for name, colour in _COLOURS.items()]
    handles.append(Patch(color=_DARK, alpha=0.6, label="what the yardstick alone would take"))
    figure.legend(handles=handles, loc="outside lower left", ncols=len(handles))


def _bars(axes: Any, verb: str, half: Mapping[str, Any]) -> None:
    """Stages from top to bottom, with nanoseconds at their ends."""
    stages, (title, unit) = half["stages"], _NAMES[verb]
    places = range(len(stages))
    seconds = [stage["seconds"] for stage in stages]
    axes.barh(places, seconds, color=[_COLOURS[stage["bound"]] for stage in stages], height=0.72)
    least = [min(stage["bound_seconds"] or 0, stage["seconds"]) for stage in stages]
    axes.barh(places, least, color=_DARK, alpha=0.45, height=0.72)
    for place, stage in zip(places, stages, strict=True):
        share = stage["share_of_bound"]
        text = f" {stage['ns_per_unit']:,.1f} ns" + (f" · {percent(share)}" if share is not None else "")
        axes.text(stage["seconds"], place, text, va="center", fontsize=8.5, color="#333333")
    axes.set_yticks(places, [stage["stage"] for stage in stages])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.32 * max(seconds))
    axes.set_xlabel(f"seconds   (at the bars: ns per {unit[:-1]}, share of the yardstick)")
    axes.set_title(f"{title}: {half['data']['cells']:,} cells, {half['data'][half['unit']]:,} {unit}", loc="left")
    axes.grid(visible=False, axis="y")


def _growth(axes: Any, verb: str, half: Mapping[str, Any]) -> None:
    """Seconds of whole exports over the size, both logarithmic, with slope 1 as a guide."""
    title, unit = _NAMES[verb]
    rows = half["growth"]
    units = [row["units"] for row in rows]
    whole, size = half["whole"], half["data"][half["unit"]]
    for key, power, style, label in (
        ("seconds", "exponent", "o-", "whole process"),
        ("work_seconds", "work_exponent", "s-", "without start, opening, kernels"),
    ):
        slope = "" if half[power] is None else f" (slope {half[power]:.2f})"
        colour = _OURS if key == "seconds" else _COLOURS["ISA-L"]
        axes.plot(units, [row[key] for row in rows], style, color=colour, label=f"{label}{slope}")
    guide = [whole["work_seconds"] * value / size for value in units]
    axes.plot(units, guide, "--", color=_COLOURS[None], label="slope 1")
    for name, theirs in half["against"].items():
        ratio = f"{name} ({theirs['ratios']['seconds']:,.1f} times ours)"
        axes.plot([size], [theirs["seconds"]], "D", color=_THEIRS, label=ratio)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(units, [_short(value) for value in units])
    axes.set_xticks([], minor=True)
    _plain(axes.yaxis)
    axes.set_xlabel(unit)
    axes.set_ylabel("seconds")
    axes.set_title(f"{title}: growth", loc="left")
    axes.margins(0.12, 0.15)
    lowest, highest = axes.get_ylim()
    axes.set_ylim(lowest, highest * (highest / lowest) ** 0.45)  # room for the legend
    axes.legend(loc="upper left")


def _plain(axis: Any) -> None:
    """Numbers of a logarithmic axis as 0.5, 1, 2 ... instead of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _short(count: float) -> str:
    """62500 as ``62.5k``, 1000000 as ``1M``."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return f"{count:.3g}"
