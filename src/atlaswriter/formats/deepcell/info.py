"""What a project holds, at a glance: from its tables and the headers of its images."""

from __future__ import annotations

from os import PathLike
from typing import Any

import numpy as np

from atlaswriter.codecs.ziprecords import LIMIT
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.content import refused
from atlaswriter.formats.deepcell.read import Project, open_export
from atlaswriter.report import text_table
from atlaswriter.sources.axes import FRAMES
from atlaswriter.sources.files import File
from atlaswriter.sources.members import Member, zip_members
from atlaswriter.sources.movie import Movie
from atlaswriter.units import format_bytes


def summarise(path: str | PathLike[str]) -> dict[str, Any]:
    """Summary of a project as plain values.

    Parameters
    ----------
    path
        The zip file.

    Returns
    -------
    dict
        ``path n_frames height width n_features n_cells n_rows n_divisions``, ``channels`` (names), ``image_dtype``,
        ``label_dtype``, ``cell_types`` (``{name, feature, n_cells}``), ``embeddings`` (shape or None), ``n_spots``
        (None without a list), ``page_order`` of both images (``"CZYX"``, or ``"ZCYX"`` where frames come first),
        ``big_tiff`` (members that are BigTIFFs), ``zip64`` (members that only readers of Zip64 find), ``members``
        (``{name, bytes, stored, method}``), ``files`` and ``bytes`` of the zip.

    Raises
    ------
    FormatError
        It is no project, or damaged.
    """
    with open_export(path) as project:
        movies = {layout.IMAGE: project.images, layout.LABELS: project.segmentation}
        with refused("zip.unreadable"):
            file = File(project.path)
            members = zip_members(file)
        return {
            "path": str(project.path),
            **{name: getattr(project, name) for name in ("n_frames", "height", "width", "channels", "n_features")},
            "image_dtype": str(project.image_dtype),
            "label_dtype": str(project.segmentation.stack.dtype),
            **_tables(project),
            "page_order": {name: _page_order(movie) for name, movie in movies.items()},
            "big_tiff": project.big_tiffs,
            "zip64": [member.name for member in members if _needs_zip64(member)],
            "members": [_member(member) for member in members],
            "files": len(members),
            "bytes": file.size,
        }


def _tables(project: Project) -> dict[str, Any]:
    cells, vectors = project.cells, project.embeddings
    return {
        "n_cells": int(np.unique(cells["cell"]).size),
        "n_rows": len(cells),
        "n_divisions": len(project.divisions),
        "cell_types": [
            {"name": one["name"], "feature": one["feature"], "n_cells": len(one["cells"])} for one in project.cell_types
        ],
        "embeddings": None if vectors is None else list(vectors.shape),
        "n_spots": None if project.spots is None else len(project.spots),
    }


def _page_order(movie: Movie) -> str:
    """Which of the two orders the pages have; the usual one where it is both."""
    n_frames, n_channels = movie.stack.shape[:2]
    first = movie.axes[:1]
    return "ZCYX" if n_frames > 1 and n_channels > 1 and first in FRAMES else "CZYX"


def _needs_zip64(member: Member) -> bool:
    return max(member.size, member.stored, member.offset) >= LIMIT


def _member(member: Member) -> dict[str, Any]:
    method = "deflate" if member.deflated else "store"
    return {"name": member.name, "bytes": member.size, "stored": member.stored, "method": method}


def as_text(summary: dict[str, Any]) -> str:
    """A summary of `summarise` for people."""
    types = [f"{one['name']} ({one['n_cells']:,} cells)" for one in summary["cell_types"]]
    vectors, n_spots = summary["embeddings"], summary["n_spots"]
    rows = [
        ("project", summary["path"]),
        ("frames", f"{summary['n_frames']:,} of {summary['width']:,} × {summary['height']:,} pixels"),
        ("channels", f"{', '.join(summary['channels'])} ({summary['image_dtype']})"),
        ("features", f"{summary['n_features']:,} ({summary['label_dtype']})"),
        ("cells", f"{summary['n_cells']:,} in {summary['n_rows']:,} rows"),
        ("divisions", f"{summary['n_divisions']:,}"),
        ("cell types", ", ".join(types) or "none"),
        ("embeddings", "none" if vectors is None else f"{vectors[0]:,} vectors of {vectors[1]:,}"),
        ("spots", "none" if n_spots is None else f"{n_spots:,}"),
        ("pages", ", ".join(f"{name} {order}" for name, order in summary["page_order"].items())),
        ("size", f"{format_bytes(summary['bytes'])} in {summary['files']:,} members"),
    ]
    rows += [(f"  {one['name']}", _size_text(one)) for one in summary["members"]]
    large = [("BigTIFF", summary["big_tiff"]), ("Zip64", summary["zip64"])]
    return text_table(rows + [(name, ", ".join(found)) for name, found in large if found])


def _size_text(member: dict[str, Any]) -> str:
    if member["method"] == "store":
        return f"{format_bytes(member['bytes'])}, stored"
    return f"{format_bytes(member['bytes'])}, deflated to {format_bytes(member['stored'])}"
