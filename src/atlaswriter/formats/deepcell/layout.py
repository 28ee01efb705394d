"""Names and keys of a DeepCell Label project: the one place that spells them."""

from __future__ import annotations

from collections.abc import Iterable

IMAGE = "X.ome.tiff"
LABELS = "y.ome.tiff"
CELLS = "cells.json"
DIVISIONS = "divisions.json"
CELL_TYPES = "cellTypes.json"
EMBEDDINGS = "embeddings.json"
SPOTS = "spots.csv"
LINEAGE = "lineage.json"
CHANNELS = "channels.json"

# Every member that ends so is taken for an image by the client.
OME_TIFF = ".ome.tiff"

# Of what the client sends when it exports or edits.
DIMENSIONS = "dimensions.json"
EDIT = "edit.json"
RAW = "raw.dat"
LABELED = "labeled.dat"

# Written in this order, after the images.
MEMBERS = (SPOTS, DIVISIONS, CELL_TYPES, CELLS, EMBEDDINGS)

# What the server adds to an export; the client ignores it.
EXPORTED = (CHANNELS,)

# Bytes of a table beyond which it is not read: cells.json takes some 45 a row.
MOST_TABLE_BYTES = 1 << 30


def signs() -> tuple[str, ...]:
    """Members that show that a zip is a project."""
    return IMAGE, LABELS, CELLS


def is_project(names: Iterable[str]) -> bool:
    """Whether a zip with such members is a project, and not what the client sends."""
    found = set(names)
    return not found.isdisjoint(signs()) and found.isdisjoint((DIMENSIONS, EDIT))


def preview_file(name: str) -> str:
    """Name of the picture beside a project."""
    return f"{name.removesuffix('.zip')}.preview.png"
