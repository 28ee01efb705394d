"""`landscape`: from a spatial data set, whatever wrote it, to Celldega's LandscapeFiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from os import PathLike
from pathlib import Path
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, Literal

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.record import Record
from atlaswriter.engine.resources import Resources, check_engine
from atlaswriter.errors import Problems, listed
from atlaswriter.formats.landscape.options import Options, check_segmentation_names
from atlaswriter.formats.landscape.target import check_early, check_place
from atlaswriter.report import Report
from atlaswriter.sinks import fs
from atlaswriter.sinks.folder import target_path
from atlaswriter.units import usable_cpus

if TYPE_CHECKING:
    import numpy as np
    from anndata import AnnData
    from numpy.typing import NDArray

    from atlaswriter.formats.landscape.model import Export
    from atlaswriter.sources.spatial import Segmentation, Spatial


def landscape(
    bundle: str | PathLike[str] | AnnData,
    out: str | PathLike[str],
    *,
    channels: Sequence[str] | None = None,
    image_max: Mapping[str, float] | None = None,
    genes: Sequence[str] | None = None,
    drop_controls: bool = False,
    min_qv: float | None = None,
    region: Sequence[float] | None = None,
    segmentations: Sequence[str | PathLike[str]] = (),
    tile_size: int = 250,
    row_groups: bool = False,
    max_row_groups_per_file: int = 400,
    compat: bool = False,
    preview: bool = False,
    force: bool = False,
    clusters: str | None = None,
    positions: str | tuple[str, str] | None = None,
    layer: str | None = None,
    use_raw: bool | None = None,
    transcripts: str | PathLike[str] | None = None,
    gene_column: str | None = None,
    x_column: str | None = None,
    y_column: str | None = None,
    quality_column: str | None = None,
    polygons: str | PathLike[str] | None = None,
    polygon_cell: str | None = None,
    polygon_x: str | None = None,
    polygon_y: str | None = None,
    images: str | PathLike[str] | Sequence[str | PathLike[str]] = (),
    channel_names: Sequence[str] | None = None,
    pixel_size: float | None = None,
    transform: str | PathLike[str] | NDArray[np.float64] | Sequence[Sequence[float]] | None = None,
    technology: str | None = None,
    table: str | None = None,
    points: str | None = None,
    shapes: str | None = None,
    image: str | None = None,
    coordinate_system: str | None = None,
    z: int | None = None,
    memory_budget: str | int | None = None,
    workers: int | None = None,
    progress: bool | None = None,
    strategy: Literal["auto", "memory", "spill"] = "auto",
    spill_dir: str | PathLike[str] | None = None,
    resume: bool = False,
    engine: Literal["fast", "dask"] = "fast",
    dask: Any = None,
) -> Report:
    """Export a spatial data set as Celldega LandscapeFiles.

    Parameters
    ----------
    bundle
        Output folder of Xenium (versions 1 to 4) or MERSCOPE, a SpatialData Zarr store, or an AnnData (an object, an
        ``.h5ad`` file or a Zarr store) to which `transcripts`, `polygons` and `images` are given. It is only read.
        An AnnData alone, without positions, becomes a data set without image (technology ``"Chromium"``) whose cells
        are placed by their UMAP.
    out
        Folder to write.
    channels
        Channels of the image to export, by key (``"dapi"``, ``"bound"``, ``"rna"``, ``"prot"`` of Xenium), in this
        order; None: all.
    image_max
        Value of a channel, by key, that is shown brightest. By default what the instrument suggests, or the 99.9th
        percentile of every eighth pixel that is not 0.
    genes
        Features to export; None: all.
    drop_controls
        Leave out features that are no genes: control probes, blanks, unassigned codewords.
    min_qv
        Leave out transcripts of lower quality. By default all are exported, as the original writer does.
    region
        ``(x0, y0, x1, y1)`` in the coordinates of the cells (Xenium, MERSCOPE: microns): only cells whose position,
        outlines whose cell, transcripts and pixels that lie there. Its corner becomes the origin.
    segmentations
        Folders of further segmentations, as Celldega's custom segmentation takes them.
    tile_size
        Edge of a data tile, pixels.
    row_groups
        Few files whose row groups are the tiles, for servers that answer range requests, instead of a file a tile.
    max_row_groups_per_file
        Tiles or genes in one of these.
    compat
        Parquet exactly as the original writer's: 64 bits, Snappy, statistics. The viewer reads both alike.
    preview
        Also write ``preview.html``: the image with outlines and transcript density, counts and sizes on one page.
    force
        Replace an existing export, as a whole.
    clusters
        Xenium: name of a clustering below ``analysis/clustering``, or a file with two columns, cell and label; by
        default ``gene_expression_graphclust``. AnnData and SpatialData: a column of obs.
    positions, layer, use_raw
        AnnData: obsm key or two obs columns with the cells' positions (default: ``spatial``); which counts.
    transcripts, gene_column, x_column, y_column, quality_column
        AnnData: a table of transcripts (Parquet, CSV, Arrow), and its columns; usual names are found.
    polygons, polygon_cell, polygon_x, polygon_y
        AnnData: outlines as a table of vertices, GeoParquet or GeoJSON, and its columns.
    images, channel_names
        AnnData: files of the image (OME-TIFF, TIFF, PNG, Zarr), and keys for its channels.
    pixel_size, transform
        AnnData: size of a pixel in units of the coordinates, or the 3 × 3 matrix from coordinates to pixels, or a
        text file of it; by default coordinates are pixels.
    technology
        AnnData and SpatialData: what the viewer takes the instrument for.
    table, points, shapes, image, coordinate_system
        SpatialData: names of the elements, where there are several.
    z
        MERSCOPE: the plane of images and outlines; by default the middle one.
    memory_budget, workers, progress, strategy, spill_dir
        As in `atlaswriter.prepare`. Transcripts and outlines wait for their tile in memory as far as there is room, or
        all in temporary files with ``strategy="spill"``.
    resume
        Go on where an interrupted export of the same bundle with the same options stopped; what is done is proven,
        and anything that was changed is named and refused. If this export is interrupted, what is done stays.
    engine, dask
        ``engine="dask"`` runs the export in tasks on a Dask cluster: `dask` is the address of its scheduler, a
        ``distributed.Client``, or ``"local"`` (also by default, unless there is a client already).

    Returns
    -------
    Report
        What was written, how long it took, and what deserves a second look.

    Raises
    ------
    InputError
        Something is missing or wrong with the input; everything that was found is said at once.
    BudgetError
        The memory budget is too small; says what would do.
    OutputError
        The output cannot be written; the target is as it was.
    """
    given = dict(locals())
    check_engine(engine, dask)
    if engine == "dask":
        from atlaswriter.formats.on_dask import export_on_dask

        return export_on_dask("landscape", given)
    with opened(given) as prepared:
        from atlaswriter.formats.landscape.write import export

        return export(prepared)


@contextmanager
def opened(given: Mapping[str, Any], *, load_kernels: bool = True) -> Iterator[Export]:
    """An export that has been checked; its source is open while the context lasts."""
    options, resources, problems = Options.of(given), Resources.of(given), Problems()
    target = problems.attempt(target_path, given["out"], "out")
    options.check(problems)
    resources.check(problems)
    if target is not None and isinstance(options.force, bool):
        check_early(target, force=options.force, problems=problems)
    if target is not None:
        check_place(target, _inputs(given), resources.spill_dir, problems)
    budget = problems.attempt(Budget, resources.memory_budget) or Budget()
    report = Report(str(target), "celldega landscape")
    problems.raise_if_any()
    assert target is not None  # noqa: S101 - no target is a problem
    stop = Event()
    loading = Thread(target=_prepare_kernels, args=(stop,), daemon=True)
    if load_kernels:
        loading.start()
    close = _nothing
    try:
        with report.phase("open"):
            made_of = record(given)
            spatial = _spatial(given, resources.workers or usable_cpus(), problems)
            close = spatial.close
            prepared = _checked(spatial, target, options, resources, budget, report, problems)
            prepared.record = made_of
        with report.phase("kernels"):
            if loading.is_alive():
                loading.join()
        yield prepared
    finally:
        stop.set()
        if loading.is_alive():
            loading.join()
        close()


def _inputs(given: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    """Options, and everything in them that may be the path of an input."""
    for name in ("bundle", "clusters", "transcripts", "polygons", "transform", "segmentations", "images"):
        value = given[name]
        yield from ((name, item) for item in (value if isinstance(value, list | tuple) else [value]))


def record(given: Mapping[str, Any]) -> Record | None:
    """What tells that an export is of the same input and options; None where that is in memory."""
    if not isinstance(given["bundle"], str | PathLike):
        return None
    paths = [Path(item) for _, item in _inputs(given) if isinstance(item, str | PathLike)]
    with suppress(OSError, ValueError):  # said where it is read
        existing = [path for path in paths if path.exists()]
        return Record.of("landscape", {name: value for name, value in given.items() if name != "bundle"}, existing)
    return None


def _nothing() -> None:
    """Nothing is open."""


def _prepare_kernels(stop: Event) -> None:
    from atlaswriter.engine.warmup import warm_up
    from atlaswriter.formats.landscape.warmup import typical_kernels

    warm_up(typical_kernels(), stop)


def _spatial(given: Mapping[str, Any], workers: int, problems: Problems) -> Spatial:
    from dataclasses import replace

    from atlaswriter.sources.bundle import INPUT_OPTIONS, open_bundle, open_others

    spatial = open_bundle(given["bundle"], {name: given[name] for name in INPUT_OPTIONS}, workers=workers)
    try:
        others = problems.attempt(open_others, given["segmentations"], spatial) or {}
    except BaseException:
        spatial.close()
        raise
    check_segmentation_names(list(others), problems)
    if others and given["row_groups"]:
        remedy = "use loose tiles"
        problems.add("row_groups", "the viewer finds further segmentations in loose tiles only", remedy)
    return replace(spatial, others={**spatial.others, **others})


def _checked(
    spatial: Spatial, target: Path, options: Options, resources: Resources, budget: Budget, report: Report,
    problems: Problems,
) -> Export:  # fmt: skip
    """Everything that can be said without reading transcripts, outlines, counts and pixels."""
    from atlaswriter.formats.landscape.catalogue import Catalogue
    from atlaswriter.formats.landscape.model import (
        Export,
        as_drawn,
        check_image,
        in_region,
        segmented,
        with_channels,
    )

    spatial = with_channels(as_drawn(spatial), options, problems)
    check_image(spatial, options, problems)
    problems.raise_if_any()
    spatial, size_px = in_region(spatial, options)
    catalogue = Catalogue(options.genes, drop_controls=options.drop_controls)
    every: list[tuple[str | None, Segmentation]] = [(None, spatial.segmentation), *spatial.others.items()]
    parts = [segmented(name, part, spatial.to_px, size_px, catalogue, problems) for name, part in every]
    catalogue.check_wanted(problems)
    if (same := catalogue.case_only()) and not options.row_groups and not fs.case_sensitive(target):
        found = f"{listed(same)} differ only by case, which this file system ignores"
        problems.add("genes", found, "use row groups (row_groups=True, --row-groups), or rename them")
    problems.raise_if_any()
    complete = [part for part in parts if part is not None]
    return Export(spatial, complete, catalogue, size_px, options, resources, target, budget, report)
