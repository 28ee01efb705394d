"""What LandscapeFiles hold, at a glance: from the tables and the footers of the tiles."""

from __future__ import annotations

from os import PathLike
from typing import Any

from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.read import Landscape, open_export
from atlaswriter.report import text_table
from atlaswriter.sinks import fs
from atlaswriter.units import format_bytes


def summarise(directory: str | PathLike[str]) -> dict[str, Any]:
    """Summary of LandscapeFiles as plain values.

    Parameters
    ----------
    directory
        Folder with ``landscape_parameters.json``.

    Returns
    -------
    dict
        ``path technology tile_size n_transcripts transcript_tiles``, ``row_groups`` (bool),
        ``segmentations`` (``{name, n_cells, n_genes, n_outlines, outline_tiles, clusters}``, clusters
        by name to their cells), ``channels`` (``{name, width, height, levels}``), ``files`` and
        ``bytes`` by part.
    """
    first = open_export(directory)
    sizes = dict(fs.file_sizes(first.path))
    transcripts = first.transcript_counts()
    return {
        "path": str(first.path),
        "technology": first.technology,
        "tile_size": first.tile_size,
        "row_groups": first.row_groups,
        "n_transcripts": sum(transcripts.values()),
        "transcript_tiles": len(transcripts),
        "segmentations": [
            _segmentation(open_export(directory, segmentation=name), sizes) for name in [None, *first.segmentations]
        ],
        "channels": [_channel(first, name) for name in first.channels],
        "files": len(sizes),
        "bytes": _bytes(sizes, first.segmentations),
    }


def _segmentation(landscape: Landscape, sizes: dict[str, int]) -> dict[str, Any]:
    outlines = landscape.outline_counts()
    has_clusters = layout.meta_cluster_file(landscape.segmentation) in sizes
    return {
        "name": landscape.segmentation or layout.DEFAULT_SEGMENTATION,
        "n_cells": landscape.n_cells,
        "n_genes": landscape.n_genes,
        "n_outlines": sum(outlines.values()),
        "outline_tiles": len(outlines),
        "clusters": landscape.cluster_counts() if has_clusters else {},
    }


def _channel(landscape: Landscape, name: str) -> dict[str, Any]:
    size = landscape.image(name)
    return {"name": name, "width": size.width, "height": size.height, "levels": len(size.levels)}


def _bytes(sizes: dict[str, int], segmentations: list[str]) -> dict[str, int]:
    """Bytes on disk by part."""
    parts = {layout.transcripts_dir(): "transcripts", layout.transcripts_dir(True): "transcripts"}
    parts[layout.IMAGES_DIR] = "images"
    for name in [None, *segmentations]:
        parts |= {layout.outlines_dir(name): "outlines", layout.cbg_dir(name): "counts"}
        tables = (layout.cell_metadata_file, layout.meta_gene_file, layout.signatures_file, layout.clusters_dir)
        parts |= dict.fromkeys((table(name) for table in tables), "tables")
    parts |= dict.fromkeys((layout.PARAMETERS, *layout.TRANSFORMS), "tables")
    found = dict.fromkeys(("transcripts", "outlines", "counts", "images", "tables", "other"), 0)
    for name, size in sizes.items():
        found[parts.get(name.split("/")[0], "other")] += size
    return found


def as_text(summary: dict[str, Any]) -> str:
    """A summary of `summarise` for people."""
    channels = [f"{one['name']} ({one['width']:,} × {one['height']:,})" for one in summary["channels"]]
    sizes = {part: size for part, size in summary["bytes"].items() if size}
    rows = [
        ("landscape", summary["path"]),
        ("technology", summary["technology"]),
        ("transcripts", f"{summary['n_transcripts']:,} in {summary['transcript_tiles']:,} tiles"),
    ]
    for one in summary["segmentations"]:
        end = "" if one["name"] == layout.DEFAULT_SEGMENTATION else f" ({one['name']})"
        rows += [
            (f"cells{end}", f"{one['n_cells']:,}"),
            (f"outlines{end}", f"{one['n_outlines']:,} in {one['outline_tiles']:,} tiles"),
            (f"genes{end}", f"{one['n_genes']:,}"),
            (f"clusters{end}", f"{len(one['clusters']):,}" if one["clusters"] else "none"),
        ]
    rows += [
        ("channels", ", ".join(channels) or "none"),
        ("tiles", f"{summary['tile_size']} px, {'row groups' if summary['row_groups'] else 'loose files'}"),
        (
            "size",
            f"{format_bytes(sum(sizes.values()))} in {summary['files']:,} files: "
            + ", ".join(f"{part} {format_bytes(size)}" for part, size in sizes.items()),
        ),
    ]
    return text_table(rows)
