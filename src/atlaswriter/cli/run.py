"""`atlaswriter run`: some tasks of a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import FOLDER, as_json, patience, show


@click.command("run")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--stage", help="Stage whose tasks to do.  [default: all stages, one after the other]")
@click.option(
    "--tasks",
    metavar="0-15|3,7|K/N|auto",
    help="Which tasks; K/N: slice K of N; auto: the slice of this element of a Slurm array.  [default: all]",
)
@click.option("-M", "--memory-budget", metavar="SIZE", help="Most memory to use.  [default: as planned]")
@click.option("-j", "--workers", type=click.IntRange(min=1), help="Threads.  [default: as planned]")
@click.option("--progress/--no-progress", default=None, help="Show progress.  [default: on a terminal]")
@patience
@as_json
def command(folder: Path, as_json: bool, **given: Any) -> None:
    """Do tasks of the plan in DIR, in any order within a stage, on any machines, any number of times.

    What is done already is left alone. Exit code 1 when tasks of an earlier stage are missing.
    """
    from atlaswriter.formats.tasks import run

    show(run(folder, given.pop("stage"), given.pop("tasks"), **given), as_json)
