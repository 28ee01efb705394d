"""`atlaswriter landscape`: from a spatial data set to Celldega LandscapeFiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import (
    FOLDER,
    NameList,
    as_json,
    engine_of,
    long_options,
    regroup_options,
    show_report,
)
from atlaswriter.errors import InputError, Problem


def _numbers(text: str, where: str, count: int) -> list[float]:
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        found = []
    if len(found) != count:
        raise InputError(Problem(where, f"{text!r} is not {count} numbers", "separate them by commas"))
    return found


def _maxima(given: tuple[str, ...]) -> dict[str, float] | None:
    pairs = [text.partition("=") for text in given]
    return {key: _numbers(value, "--image-max", 1)[0] for key, _, value in pairs} or None


ARGUMENTS = (click.argument("bundle", type=FOLDER), click.argument("out", type=FOLDER))
OPTIONS = (
    click.option("--channels", type=NameList(), help="Channels of the image, e.g. dapi,bound.  [default: all]"),
    click.option("--image-max", multiple=True, metavar="CHANNEL=VALUE", help="Value that is shown brightest."),
    click.option("--genes", type=NameList(), help="Features to export.  [default: all]"),
    click.option("--drop-controls", is_flag=True, help="Leave out features that are no genes."),
    click.option("--min-qv", type=float, help="Leave out transcripts of lower quality, e.g. 20.  [default: keep all]"),
    click.option("--region", metavar="X0,Y0,X1,Y1", help="Export a rectangle, in the coordinates of the cells."),
    click.option("--segmentation", "segmentations", type=FOLDER, multiple=True, help="Folder of another segmentation."),
    click.option("--tile-size", type=click.IntRange(min=1), default=250, show_default=True, help="Pixels."),
    click.option("--row-groups/--loose-tiles", default=False, help="Few files for range requests, or a file a tile."),
    click.option("--max-row-groups-per-file", type=click.IntRange(min=1), default=400, show_default=True),
    click.option("--compat", is_flag=True, help="Parquet exactly as the original writer makes it (larger)."),
    click.option("--preview", is_flag=True, help="Also write preview.html, to look at."),
    click.option("--clusters", metavar="NAME|FILE", help="Xenium: clustering; AnnData: column of obs."),
    click.option("--positions", metavar="KEY|X,Y", help="AnnData: obsm key or two obs columns.  [default: spatial]"),
    click.option("--layer", help="AnnData: this layer instead of X."),
    click.option("--raw", "use_raw", is_flag=True, default=None, help="AnnData: raw.X instead of X."),
    click.option("--transcripts", type=FOLDER, help="AnnData: table of transcripts (Parquet, CSV, Arrow)."),
    click.option("--gene-column", metavar="COLUMN"),
    click.option("--x-column", metavar="COLUMN"),
    click.option("--y-column", metavar="COLUMN"),
    click.option("--quality-column", metavar="COLUMN"),
    click.option("--polygons", type=FOLDER, help="AnnData: outlines (Parquet, GeoParquet, GeoJSON, CSV)."),
    click.option("--polygon-cell", metavar="COLUMN"),
    click.option("--polygon-x", metavar="COLUMN"),
    click.option("--polygon-y", metavar="COLUMN"),
    click.option("--image", "images", type=FOLDER, multiple=True, help="AnnData: file of the image; may be repeated."),
    click.option("--channel-names", type=NameList(), help="AnnData: keys for its channels."),
    click.option("--pixel-size", type=float, help="AnnData: size of a pixel in units of the coordinates."),
    click.option("--transform", type=FOLDER, help="AnnData: text file with the 3 x 3 matrix to pixels."),
    click.option("--technology", help="AnnData, SpatialData: what the viewer takes the instrument for."),
    click.option("--table", help="SpatialData: name of the table."),
    click.option("--points", help="SpatialData: name of the transcripts."),
    click.option("--shapes", help="SpatialData: name of the outlines."),
    click.option("--image-element", help="SpatialData: name of the image."),
    click.option("--coordinate-system", help="SpatialData: where all elements meet.  [default: global]"),
    click.option("--z", type=int, help="MERSCOPE: plane of images and outlines.  [default: the middle one]"),
    click.option("--force", is_flag=True, help="Replace an existing export, as a whole."),
)


def arguments(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Options of the command line as the Python functions take them."""
    del ctx
    region, positions = given.pop("region"), given.pop("positions")
    images, element = given.pop("images"), given.pop("image_element")
    return {
        "region": None if region is None else _numbers(region, "--region", 4),
        "positions": tuple(positions.split(",")) if positions and "," in positions else positions,
        "image_max": _maxima(given.pop("image_max")),
        "images": list(images) or (),
        "image": element,
        **given,
    }


def _options(command: Any) -> Any:
    command = regroup_options(long_options(as_json(click.pass_context(command))))
    for option in reversed((*ARGUMENTS, *OPTIONS)):
        command = option(command)
    return command


@click.command("landscape")
@_options
def command(ctx: click.Context, /, bundle: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Export BUNDLE to the LandscapeFiles folder OUT, for Celldega.

    BUNDLE is the output folder of Xenium or MERSCOPE, a SpatialData store, or an AnnData (.h5ad, Zarr) to which
    transcripts, polygons and images are given. It is never written to.
    """
    from atlaswriter.formats.landscape.convert import landscape

    engine = engine_of(given.pop("dask"))
    show_report(landscape(bundle, out, **arguments(ctx, given), **engine), as_json)
