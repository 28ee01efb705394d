"""`atlaswriter plan`: what an export will take, and its tasks for a cluster."""

from __future__ import annotations

import logging
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import FOLDER, as_json, regroup_options, show

log = logging.getLogger(__name__)

_FORMATS = ("cellucid", "landscape")

_OWN = (
    click.argument("source", type=FOLDER),
    click.argument("out", type=FOLDER),
    click.option(
        "--to", type=click.Choice(_FORMATS), default="cellucid", show_default=True, help="Format to export to."
    ),
    click.option("--plan", "folder", type=FOLDER, help="Write a plan in tasks to this folder, for a cluster."),
    click.option(
        "--task-size", metavar="SIZE", default="4GiB", show_default=True, help="With --plan: bytes that a task reads."
    ),
    click.option("--slurm", is_flag=True, help="With --plan: print a script that submits all tasks to Slurm."),
)


class _ByFormat(click.Command):
    """Takes the options of the export that ``--to`` names."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Look for ``--to`` first."""
        words = [word.removeprefix("--to=") for word in args if word.startswith("--to=")]
        words += [after for word, after in pairwise(args) if word == "--to"]
        if words and words[-1] in _FORMATS:
            ctx.meta["to"] = words[-1]
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Own options, and those of the export."""
        return [*_params(ctx.meta.get("to", "cellucid")), *super().get_params(ctx)]


def _params(to: str) -> list[click.Parameter]:
    def nothing() -> None:
        """Only carries options."""

    command: Any = regroup_options(as_json(nothing))
    for option in reversed((*_OWN, *import_module(f"atlaswriter.cli.{to}").OPTIONS)):
        command = option(command)
    return click.command()(command).params


@click.command("plan", cls=_ByFormat)
@click.pass_context
def command(
    ctx: click.Context, /, source: Path, out: Path, as_json: bool, to: str, folder: Path | None, task_size: str,
    slurm: bool, **given: Any,
) -> None:  # fmt: skip
    """Say what exporting SOURCE to OUT will take: time, memory, temporary files, output.

    Takes the options of `atlaswriter cellucid`, or with `--to landscape` those of `atlaswriter landscape` (`atlaswriter
    plan --to landscape --help`). The numbers are estimates, but for memory, which is a promise; when the budget cannot
    work the smallest that would is said.

    Nothing is written, unless with `--plan DIR`: then the export is divided into numbered tasks, which `atlaswriter run
    DIR` does on any machines that share the disk, and `atlaswriter finish DIR` publishes. Budget (4 GiB by default) and
    threads are those of each process.
    """
    options = import_module(f"atlaswriter.cli.{to}").arguments(ctx, given)
    if folder is None:
        if slurm:
            raise click.UsageError("--slurm needs --plan DIR")
        from atlaswriter.formats.tasks import plan

        show(plan(source, out, to=to, **options), as_json)
        return
    if slurm and as_json:
        raise click.UsageError("--slurm prints a script, --json a plan: choose one")
    from atlaswriter.engine.slurm import script
    from atlaswriter.formats.tasks import plan_tasks

    made = plan_tasks(source, out, folder, to=to, task_size=task_size, **options)
    if slurm:
        click.echo(str(made), err=True)
        click.echo(script(made, folder), nl=False)
        return
    show(made, as_json)
    log.info("next: atlaswriter run %s (--stage and --tasks for slices), atlaswriter finish %s", folder, folder)
