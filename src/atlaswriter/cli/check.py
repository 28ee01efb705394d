"""`atlaswriter check`: whether an export is complete, unaltered and readable by the viewer."""

from __future__ import annotations

from pathlib import Path

import click

from atlaswriter.cli._options import FOLDER, as_json, show


@click.command("check")
@click.argument("export", type=FOLDER)
@click.option("--strict", is_flag=True, help="Cellucid: also apply the rules of the stricter viewer that followed.")
@as_json
@click.pass_context
def command(ctx: click.Context, export: Path, strict: bool, as_json: bool) -> None:
    """Check every byte of EXPORT, a folder or project zip; exit code 1 when something is wrong."""
    from atlaswriter.formats.detect import check

    result = check(export, strict=strict)
    show(result, as_json)
    if not result.ok:
        ctx.exit(1)
