"""`atlaswriter plan`: what an export will take, before it starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import show
from atlaswriter.cli.cellucid import arguments, export_options


@click.command("plan")
@export_options
def command(ctx: click.Context, /, source: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Say what exporting SOURCE to OUT will take: time, memory, temporary files, output.

    Takes the options of `atlaswriter cellucid`. Nothing is written. The numbers are estimates, but
    for memory, which is a promise; when the budget cannot work the smallest that would is said.
    """
    from atlaswriter.formats.cellucid.convert import plan

    show(plan(source, out, **arguments(ctx, given)), as_json)
