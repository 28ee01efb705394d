"""`atlaswriter finish`: verify the tasks of a plan, and publish the export."""

from __future__ import annotations

import json
from pathlib import Path

import click

from atlaswriter.cli._options import FOLDER, as_json, patience, show_report
from atlaswriter.errors import InputError, Problem


@click.command("finish")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--force", is_flag=True, help="Replace an export that is there already.")
@click.option("--checksums", is_flag=True, help="Read every file again and compare its CRC-32, not only its size.")
@click.option("--discard", is_flag=True, help="Give up: delete DIR and what is done; what is published stays.")
@patience
@as_json
def command(folder: Path, force: bool, checksums: bool, discard: bool, patience: float, as_json: bool) -> None:
    """List what is missing of the plan in DIR (exit code 1), or verify it, write the manifests and publish."""
    from atlaswriter.formats import tasks

    if not discard:
        show_report(tasks.finish(folder, force=force, checksums=checksums, patience=patience), as_json)
    elif force or checksums:
        raise InputError(Problem("--discard", "is given with other options", "decide on one"))
    else:
        tasks.discard(folder)
        if as_json:
            click.echo(json.dumps({"ok": True, "deleted": str(folder)}))
        click.echo(f"{folder} is deleted", err=True)
