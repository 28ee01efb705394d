"""What an export folder holds, at a glance: from its manifests, without reading payloads."""

from __future__ import annotations

from os import PathLike
from typing import Any

from atlaswriter.formats.cellucid import layout as names
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.read import Export, open_export
from atlaswriter.formats.cellucid.rules_entries import Category
from atlaswriter.sinks import fs
from atlaswriter.units import format_bytes


def summarise(directory: str | PathLike[str], *, layout: Layout | None = None) -> dict[str, Any]:
    """Summary of an export as plain values.

    Parameters
    ----------
    directory
        Folder of the export.
    layout
        File and folder names, when they were changed at export.

    Returns
    -------
    dict
        ``path id name writer created_at n_cells n_genes n_edges``, ``dimensions``, ``fields``
        (``{key, kind[, n_categories]}``), ``vector_fields`` (id to dimensions), ``compression``,
        ``gene_bits`` and ``obs_bits`` (None for float32), ``files`` and ``bytes`` by part.
    """
    layout = layout or Layout()
    export = open_export(directory, layout=layout)
    fields = [_field(export, key) for key in export.obs_keys]
    genes = export.genes
    kinds = [export.obs_entry(key) for key in export.obs_keys]
    values = [kind.outliers if isinstance(kind, Category) else kind for kind in kinds]
    settings = export.identity.get("export_settings")
    n_files, sizes = _sizes(export, layout)
    return {
        "path": str(export.path),
        **{key: export.identity.get(key) for key in ("id", "name", "created_at")},
        "writer": export.identity.get("cellucid_data_version"),
        "n_cells": export.n_cells,
        "n_genes": len(genes),
        "n_edges": export.n_edges,
        "dimensions": export.dimensions,
        "fields": fields,
        "vector_fields": export.vector_fields,
        "compression": settings.get("compression") if isinstance(settings, dict) else None,
        "gene_bits": names.BITS_OF_DTYPE.get(export.gene_entry(genes[0]).payload.dtype) if genes else None,
        "obs_bits": names.BITS_OF_DTYPE.get(values[0].payload.dtype) if values else None,
        "files": n_files,
        "bytes": sizes,
    }


def _field(export: Export, key: str) -> dict[str, Any]:
    entry = export.obs_entry(key)
    if isinstance(entry, Category):
        return {"key": key, "kind": "category", "n_categories": len(entry.categories)}
    return {"key": key, "kind": "continuous"}


def _sizes(export: Export, layout: Layout) -> tuple[int, dict[str, int]]:
    """Number of files, and bytes on disk by part."""
    parts = {
        layout.obs_dir: "obs",
        layout.var_dir: "genes",
        layout.connectivity_dir: "edges",
        names.VECTORS_DIR: "vectors",
        **{names.points_file(dim, gz): "points" for dim in names.DIMENSIONS for gz in (False, True)},
        **dict.fromkeys(layout.manifests(), "manifests"),
    }
    sizes = dict.fromkeys(("points", "obs", "genes", "vectors", "edges", "manifests", "other"), 0)
    n_files = 0
    for name, size in fs.file_sizes(export.path):
        n_files += 1
        sizes[parts.get(name.split("/")[0], "other")] += size
    return n_files, sizes


def as_text(summary: dict[str, Any]) -> str:
    """A summary of `summarise` for people."""

    def stored(bits: int | None) -> str:
        return "float32" if bits is None else f"{bits} bit"

    fields = [
        f"{field['key']} ({field['n_categories']:,} categories)" if "n_categories" in field else field["key"]
        for field in summary["fields"]
    ]
    vectors = [f"{field} ({', '.join(f'{dim}D' for dim in dims)})" for field, dims in summary["vector_fields"].items()]
    sizes = {part: size for part, size in summary["bytes"].items() if size}
    rows = {
        "export": summary["path"],
        "name": f"{summary['name']} ({summary['id']})",
        "written": f"{summary['created_at']} by version {summary['writer']}",
        "cells": f"{summary['n_cells']:,}",
        "genes": f"{summary['n_genes']:,}, {stored(summary['gene_bits'])}" if summary["n_genes"] else "none",
        "points": ", ".join(f"{dim}D" for dim in summary["dimensions"]),
        "fields": ", ".join(fields) + f"; {stored(summary['obs_bits'])}" if fields else "none",
        "vectors": ", ".join(vectors) or "none",
        "edges": "none" if summary["n_edges"] is None else f"{summary['n_edges']:,}",
        "compression": "none" if summary["compression"] is None else f"gzip, level {summary['compression']}",
        "size": f"{format_bytes(sum(sizes.values()))} in {summary['files']:,} files: "
        + ", ".join(f"{part} {format_bytes(size)}" for part, size in sizes.items()),
    }
    width = max(map(len, rows))
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows.items())
