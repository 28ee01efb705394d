"""What several verbs share: options, and how results are shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from atlaswriter.report import Report

FOLDER = click.Path(path_type=Path)

as_json = click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")


def show(result: Any, as_json: bool) -> None:
    """Print a result with ``to_dict`` on standard output, for people or as one JSON object."""
    click.echo(json.dumps(result.to_dict()) if as_json else str(result))


def show_report(report: Report, as_json: bool) -> None:
    """Print what happened on standard error, unless ``--quiet``, and with ``--json`` on standard output."""
    if as_json:
        click.echo(report.to_json())
    if logging.getLogger("atlaswriter").isEnabledFor(logging.INFO):
        click.echo(str(report), err=True)


class Bits(click.ParamType[int | None]):
    """8, 16 or none."""

    name = "8|16|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        """Turn the text into bits, None for float32."""
        known: dict[str, int | None] = {"8": 8, "16": 16, "none": None}
        text = str(value).lower()
        if text not in known:
            self.fail(f"{value!r} is not 8, 16 or none", param, ctx)
        return known[text]


class Quantile(click.ParamType[float | None]):
    """A number or none."""

    name = "NUMBER|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | None:
        """Turn the text into a number, None for none."""
        if str(value).lower() == "none":
            return None
        try:
            return float(value)
        except ValueError:
            self.fail(f"{value!r} is not a number or none", param, ctx)


class NameList(click.ParamType[list[str]]):
    """Names separated by commas, or ``@FILE`` with one name a line."""

    name = "NAME,NAME|@FILE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Turn the text into names."""
        if isinstance(value, list):
            return value
        if not value.startswith("@"):
            return [name.strip() for name in value.split(",") if name.strip()]
        try:
            lines = Path(value[1:]).read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            self.fail(f"cannot read {value[1:]!r}: {error}", param, ctx)
        return [line.strip() for line in lines if line.strip()]


memory_budget = click.option(
    "-M",
    "--memory-budget",
    "--max-memory",
    metavar="SIZE",
    envvar="ATLASWRITER_MEMORY_BUDGET",
    help="Most memory to use, e.g. 4GiB.  [default: half of what is free]",
)
workers = click.option(
    "-j",
    "--workers",
    type=click.IntRange(min=1),
    envvar="ATLASWRITER_WORKERS",
    help="Threads.  [default: all usable CPUs]",
)

_RUN = (
    memory_budget,
    workers,
    click.option(
        "--spill-dir",
        type=FOLDER,
        envvar="ATLASWRITER_SPILL_DIR",
        help="Folder for temporary files.  [default: beside OUT]",
    ),
    click.option("--progress/--no-progress", default=None, help="Show progress.  [default: on a terminal]"),
)

_STRATEGY = click.option(
    "--strategy",
    type=click.Choice(["auto", "memory", "spill"]),
    default="auto",
    show_default=True,
    help="How expression stored by cell is regrouped by gene; the result is the same.",
)


_LONG = (
    click.option("--resume", is_flag=True, help="Go on where an interrupted export stopped; stay resumable."),
    click.option("--dask", metavar="ADDRESS|local", help="Run in tasks on a Dask cluster, or on one made here."),
)


def long_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """What matters for exports that take long."""
    for option in reversed(_LONG):
        command = option(command)
    return command


patience = click.option(
    "--patience",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Wait so long for tasks that seem to be missing: shared disks may show them late.",
)


def engine_of(dask: str | None) -> dict[str, Any]:
    """What the Python functions take for ``--dask``."""
    return {"engine": "fast" if dask is None else "dask", "dask": dask}


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Memory, workers and progress."""
    for option in reversed(_RUN):
        command = option(command)
    return command


def regroup_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """As `run_options`, and how data is regrouped."""
    return run_options(_STRATEGY(command))
