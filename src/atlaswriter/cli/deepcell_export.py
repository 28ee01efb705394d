"""`atlaswriter deepcell-export`: from what DeepCell Label's client sends to a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import FOLDER, as_json, run_options, show_report


@click.command("deepcell-export")
@click.argument("request", type=FOLDER)
@click.argument("out", type=FOLDER)
@click.option(
    "--image-dtype",
    type=click.Choice(["keep", "uint8"]),
    default="keep",
    show_default=True,
    help="Store pixels as they are, or stretched to 8 bit.",
)
@click.option("--preview", is_flag=True, help="Also write a picture of frames with outlines, NAME.preview.png.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@run_options
@as_json
def command(request: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Make the DeepCell Label project OUT.zip from the export request REQUEST.zip.

    REQUEST holds dimensions.json, labeled.dat, raw.dat, cells.json, and what else the client sends. Labels are made
    anew: values without a cell are removed, and values of one cell become that cell.
    """
    from atlaswriter.formats.deepcell.exchange import deepcell_export

    show_report(deepcell_export(request, out, **given), as_json)
