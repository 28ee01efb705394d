"""`atlaswriter deepcell`: from images and labels to a DeepCell Label project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import FOLDER, NameList, as_json, run_options, show_report


@click.command("deepcell")
@click.argument("images")
@click.argument("out", type=FOLDER)
@click.option("--labels", help="File, folder or URL of the segmentation, where IMAGES does not hold it.")
@click.option("--axes", metavar="LETTERS", help="Axes of IMAGES in order, e.g. CZYX.  [default: what the file says]")
@click.option("--label-axes", metavar="LETTERS", help="Axes of the labels.  [default: what fits IMAGES]")
@click.option("--channel-names", type=NameList(), help="Names of the channels.  [default: those of an OME-TIFF]")
@click.option(
    "--image-dtype",
    type=click.Choice(["uint8", "keep"]),
    default="uint8",
    show_default=True,
    help="Stretch each channel to 8 bit, or keep pixels as they are.",
)
@click.option("--preview", is_flag=True, help="Also write a picture of the frames beside OUT.")
@click.option("--download-limit", metavar="SIZE", default="10GiB", show_default=True, help="Largest download.")
@click.option("--timeout", type=float, default=60.0, show_default=True, help="Seconds a server may be silent.")
@click.option("--force", is_flag=True, help="Replace OUT.")
@as_json
@run_options
def command(images: str, out: Path, as_json: bool, **given: Any) -> None:
    """Write the DeepCell Label project OUT (a zip) from IMAGES.

    IMAGES is a file, folder or http(s) URL: TIFF, OME-TIFF, PNG, .npy, .npz, .trk, Zarr, a zip of these, or a project.
    """
    from atlaswriter.formats.deepcell.convert import deepcell

    show_report(deepcell(images, out, **given), as_json)
