"""`atlaswriter cellucid`: from an AnnData to a Cellucid folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from atlaswriter.cli._options import (
    FOLDER,
    Bits,
    NameList,
    Quantile,
    as_json,
    engine_of,
    long_options,
    regroup_options,
    show_report,
)
from atlaswriter.errors import InputError, Problem

_NONE = "none"


def _named_or_none(value: str | None) -> Any:
    """What the Python function takes: False for ``none``."""
    return False if value == _NONE else value


def _embeddings(given: tuple[str, ...]) -> Any:
    """``("X_umap", "3d=X_umap_3d")`` as a list of keys, or a dict when dimensions are given."""
    pairs = [text.partition("=") for text in given]
    if not any(separator for _, separator, _ in pairs):
        return list(given) or None
    if not all(separator for _, separator, _ in pairs):
        raise InputError(Problem("--embedding", "some have a dimension and some have not", "write 2d=KEY for all"))
    return {dim: key for dim, _, key in pairs}


ARGUMENTS = (click.argument("source", type=FOLDER), click.argument("out", type=FOLDER))
OPTIONS = (
    click.option("--layer", help="Export this layer instead of X."),
    click.option("--raw", "use_raw", is_flag=True, help="Export raw.X instead of X."),
    click.option("--genes", type=NameList(), help='Genes to export, in this order; "none" for none.  [default: all]'),
    click.option("--gene-names", metavar="COLUMN", help="Column of var to name genes by.  [default: the index]"),
    click.option("--obs", type=NameList(), help="obs columns to export.  [default: all]"),
    click.option("--exclude-obs", type=NameList(), default="", help="obs columns to leave out."),
    click.option("--embedding", "embedding", multiple=True, metavar="[DIM=]KEY", help="obsm key; may be repeated."),
    click.option("--latent", metavar="KEY", help='obsm key of the latent space, or "none".'),
    click.option("--vectors", type=NameList(), help='obsm keys of vector fields, or "none".'),
    click.option("--graph", metavar="KEY", help='obsp key of the neighbour graph, or "none".'),
    click.option("--quantize", type=Bits(), default="8", show_default=True, help="Bits of expression and numeric obs."),
    click.option("--quantize-obs", type=Bits(), default=None, help="Bits of numeric obs, if they differ."),
    click.option(
        "--compression", type=click.IntRange(0, 9), default=6, show_default=True, help="gzip level, 0 for none."
    ),
    click.option("--quantizer", type=click.Choice(["nearest", "truncate"]), default="nearest", show_default=True),
    click.option(
        "--categorical-dtype", type=click.Choice(["auto", "uint8", "uint16"]), default="auto", show_default=True
    ),
    click.option("--centroid-quantile", type=Quantile(), default="0.95", show_default=True, help="none: no centroids."),
    click.option("--centroid-min-points", type=click.IntRange(min=1), default=10, show_default=True),
    click.option("--make-unique", is_flag=True, help="Rename keys that would share a file instead of refusing them."),
    click.option("--merge-equal-categories", is_flag=True, help="Merge categories that read the same."),
    click.option("--name", "dataset_name", help="Dataset name.  [default: the folder's]"),
    click.option("--id", "dataset_id", help="Dataset id.  [default: from the name]"),
    click.option("--description", "dataset_description"),
    click.option("--source-name"),
    click.option("--source-url"),
    click.option("--source-citation"),
    click.option("--created-at", metavar="TIME", help="Time stamp to record.  [default: SOURCE_DATE_EPOCH, or now]"),
    click.option("--force", is_flag=True, help="Replace an existing export, as a whole."),
)


def arguments(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Options of the command line as the Python functions take them."""
    quantize, quantize_obs = given.pop("quantize"), given.pop("quantize_obs")
    explicit = ctx.get_parameter_source("quantize_obs") is not click.core.ParameterSource.DEFAULT
    vectors, genes = given.pop("vectors"), given.pop("genes")
    return {
        "genes": False if genes == [_NONE] else genes,
        "embeddings": _embeddings(given.pop("embedding")),
        "latent": _named_or_none(given.pop("latent")),
        "vector_fields": False if vectors == [_NONE] else vectors,
        "graph": _named_or_none(given.pop("graph")),
        "var_quantization": quantize,
        "obs_continuous_quantization": quantize_obs if explicit else quantize,
        "obs_categorical_dtype": given.pop("categorical_dtype"),
        "centroid_outlier_quantile": given.pop("centroid_quantile"),
        **given,
    }


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = regroup_options(long_options(as_json(click.pass_context(command))))
    for option in reversed((*ARGUMENTS, *OPTIONS)):
        command = option(command)
    return command


@click.command("cellucid")
@_options
def command(ctx: click.Context, /, source: Path, out: Path, as_json: bool, **given: Any) -> None:
    """Export SOURCE (.h5ad, Zarr folder or .zarr.zip) to the Cellucid folder OUT.

    Embeddings, latent space, vector fields and the graph are found by name unless you name them;
    what was chosen is said at the end.
    """
    from atlaswriter.formats.cellucid.convert import cellucid

    engine = engine_of(given.pop("dask"))
    show_report(cellucid(source, out, **arguments(ctx, given), **engine), as_json)
