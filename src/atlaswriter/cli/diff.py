"""`atlaswriter diff`: whether two exports hold the same."""

from __future__ import annotations

from pathlib import Path

import click

from atlaswriter.cli._options import FOLDER, as_json, show


@click.command("diff")
@click.argument("first", type=FOLDER)
@click.argument("second", type=FOLDER)
@click.option("--rtol", type=float, default=0.0, show_default=True, help="Relative tolerance of values.")
@click.option("--atol", type=float, default=0.0, show_default=True, help="Absolute tolerance of values.")
@click.option("--steps", type=float, help="Cellucid: tolerance in quantisation steps.  [default: 0]")
@click.option("--px", type=float, help="LandscapeFiles: tolerance of positions in pixels.  [default: 0.01]")
@click.option("--grey", type=float, help="LandscapeFiles: tolerated mean difference of image tiles.  [default: 0]")
@as_json
@click.pass_context
def command(
    ctx: click.Context,
    first: Path,
    second: Path,
    rtol: float,
    atol: float,
    steps: float | None,
    px: float | None,
    grey: float | None,
    as_json: bool,
) -> None:
    """Compare the exports FIRST and SECOND (folders, project zips) by decoded content; exit code 1 when they differ."""
    from atlaswriter.formats.detect import diff

    result = diff(first, second, rtol=rtol, atol=atol, steps=steps, px=px, grey=grey)
    show(result, as_json)
    if not result.equal:
        ctx.exit(1)
