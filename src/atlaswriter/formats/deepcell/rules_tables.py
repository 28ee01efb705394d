"""Rules of everything that belongs to cells: divisions, types, embeddings and spots."""

from __future__ import annotations

import re

from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.cells import Cells
from atlaswriter.formats.deepcell.divisions import parse_divisions, validate_divisions
from atlaswriter.formats.deepcell.extras import (
    parse_cell_types,
    parse_embeddings,
    validate_cell_types,
    validate_embeddings,
)
from atlaswriter.formats.deepcell.rules import Survey, noting, warning_of
from atlaswriter.formats.deepcell.rules_tiff import Surveyed
from atlaswriter.formats.deepcell.spots import parse_spots

_BLANK_LINE = re.compile(rb"\n[ \t\r]*\n")


def survey_divisions(survey: Survey, cells: Cells | None, labels: Surveyed | None) -> None:
    """Divisions can be read, and the client leaves them as they are."""
    findings, name = survey.findings, layout.DIVISIONS
    content = survey.content(name)
    if content is None:
        return
    with noting(findings, "divisions.rows", name) as problems:
        divisions = parse_divisions(content, name, problems)
    if not divisions or cells is None or labels is None:
        return
    with noting(findings, "divisions.wrong", name) as problems, warning_of(findings, "divisions.odd", name) as warnings:
        validate_divisions(divisions, cells, labels.described.n_frames, name, problems, warnings)


def survey_cell_types(survey: Survey, cells: Cells | None, labels: Surveyed | None) -> None:
    """Types can be read, and name features and cells that are there."""
    findings, name = survey.findings, layout.CELL_TYPES
    content = survey.content(name)
    if content is None:
        return
    with noting(findings, "types.rows", name) as problems:
        types = parse_cell_types(content, name, problems)
    if not types or cells is None or labels is None:
        return
    with noting(findings, "types.wrong", name) as problems, warning_of(findings, "types.odd", name) as warnings:
        validate_cell_types(types, cells, labels.described.n_channels, name, problems, warnings)


def survey_embeddings(survey: Survey, cells: Cells | None) -> None:
    """Vectors can be read, and there is one for every cell."""
    findings, name = survey.findings, layout.EMBEDDINGS
    content = survey.content(name)
    if content is None:
        return
    with noting(findings, "embeddings.rows", name) as problems:
        embeddings = parse_embeddings(content, name, problems)
    if embeddings is not None and cells is not None:
        with warning_of(findings, "embeddings.short", name) as warnings:
            validate_embeddings(embeddings, cells, name, warnings)


def survey_spots(survey: Survey, image: Surveyed | None) -> None:
    """Spots can be read, are inside of the image, and are lines as the client splits them."""
    findings, name = survey.findings, layout.SPOTS
    content = survey.content(name)
    if content is None or image is None:
        return
    size = image.described
    with noting(findings, "spots.rows", name) as problems, warning_of(findings, "spots.header", name) as warnings:
        spots = parse_spots(content, name, size.height, size.width, problems, warnings)
    if spots is not None and spots.n and not content.endswith(b"\n"):
        found = "has no end of line behind the last spot, which the client therefore leaves out"
        findings.error("spots.end", name, found, "end the last line")
    if _BLANK_LINE.search(content):
        findings.warning("spots.blank", name, "has blank lines, which the client takes for spots", "remove them")
