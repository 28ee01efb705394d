"""`atlaswriter bench`: how fast this machine exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atlaswriter.cli._options import FOLDER, NameList, as_json, memory_budget, workers
from atlaswriter.errors import Problems

if TYPE_CHECKING:
    from atlaswriter.bench.rivals import Rival


class Number(click.ParamType[int]):
    """A whole number such as 100_000, 100e3 or 1.5M."""

    name = "NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Turn the text into a number."""
        from atlaswriter.bench.settings import number

        try:
            return number(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Sizes(click.ParamType[tuple[float, ...]]):
    """Numbers separated by commas."""

    name = "NUMBER,NUMBER"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Turn the text into numbers, ascending, each once."""
        try:
            return tuple(sorted({float(part) for part in str(value).split(",")}))
        except ValueError:
            self.fail(f"{value!r} are not numbers separated by commas", param, ctx)


_OPTIONS = (
    click.option("--cells", type=Number(), default="100k", show_default=True, help="Cells of the atlas; 0: none."),
    click.option("--genes", type=Number(), default="2000", show_default=True, help="Its genes."),
    click.option("--density", type=float, default=0.05, show_default=True, help="Share of X that is not zero."),
    click.option(
        "--transcripts", type=Number(), default="1M", show_default=True, help="Of the spatial data; 0: none."
    ),
    click.option(
        "--sizes", type=Sizes(), default="0.25,0.5,1", show_default=True, help="Multiples of both, for the growth."
    ),
    click.option(
        "-n", "--repeats", type=click.IntRange(1, 100), default=1, show_default=True, help="Runs; medians are shown."
    ),
    workers,
    memory_budget,
    click.option("--folder", type=FOLDER, help="Folder on the disk to measure.  [default: that for temporary files]"),
    click.option(
        "--against",
        type=NameList(),
        metavar="NAME[=PYTHON],...",
        default="",
        help="Run the originals too: cellucid (0.0.9), celldega (0.27.0), with the Python of their environments."
        "  [default: CELLUCID009_PYTHON, CELLDEGA027_PYTHON, this one]",
    ),
    click.option("--plot", type=FOLDER, metavar="OUT.png", help="Draw stages and growth; replaces the file."),
    click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True),
)  # fmt: skip


def _options(command: Any) -> Any:
    command = as_json(command)
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command("bench")
@_options
def command(plot: Path | None, against: list[str], as_json: bool, **given: Any) -> None:
    """Measure how fast this machine exports: made-up data, every stage, and what the hardware could do at most.

    Writes below a temporary folder (--folder), which is removed, also when this is interrupted or told to end. With the
    defaults it takes half a minute.
    """
    from atlaswriter.bench import signals
    from atlaswriter.bench.run import bench
    from atlaswriter.bench.settings import Settings
    from atlaswriter.bench.show import as_text

    settings = Settings(**given)
    rivals = _checked(settings, against, plot)
    with signals.ending_cleanly():
        result = bench(settings, rivals)
    click.echo(json.dumps(result) if as_json else as_text(result))
    if plot is not None:
        from atlaswriter.bench.plot import draw

        draw(result, plot)


def _checked(settings: Any, against: list[str], plot: Path | None) -> list[Rival]:
    """The originals to run; everything that is wrong is refused at once, before anything is measured."""
    from atlaswriter.bench import rivals

    problems = Problems()
    settings.check(problems)
    if plot is not None:
        from atlaswriter.bench.plot import check

        problems.attempt(check, plot)
    found = rivals.find(against, problems)
    for rival in found:
        size = {"cellucid": "cells", "landscape": "transcripts"}[rival.verb]
        if not getattr(settings, size):
            problems.add(f"--against {rival.name}", f"there is nothing to compare with --{size} 0", "leave it out")
    problems.raise_if_any()
    return found
