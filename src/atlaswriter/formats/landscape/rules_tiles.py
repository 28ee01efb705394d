"""Rules of the data tiles: transcripts, and outlines of cells."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from atlaswriter.errors import listed
from atlaswriter.findings import Findings
from atlaswriter.formats.landscape import columns, content, layout
from atlaswriter.formats.landscape.columns import Array, Names, ParquetFile
from atlaswriter.formats.landscape.content import Outlines, Tiles
from atlaswriter.formats.landscape.header import Chunks, Grid
from atlaswriter.formats.landscape.rules import Segmentation, Survey, batched_by_file, kind_matches

# Positions have two decimals, and may be stored as float32.
_PX = 0.02
# Fewest vertices of a ring whose last is its first again.
_FEWEST = 4

Tile = tuple[int, int]


class _Place(NamedTuple):
    """A tile, and its row group; None for a loose file."""

    tile: Tile
    group: int | None


Examine = Callable[[pa.Table, Tile, str, Findings], Array]


def survey_transcripts(survey: Survey, genes: Names | None) -> None:
    """Every transcript is of a known gene, and in its own tile."""
    tiles = survey.attempt(content.transcript_tiles, survey.root, survey.header)
    tile_size = survey.attempt(lambda: survey.header.tile_size)
    if tiles is None or genes is None or tile_size is None:
        for folder in {layout.transcripts_dir(), layout.transcripts_dir(True)}:
            _leave_alone(survey, folder)
        return

    def examine(table: pa.Table, tile: Tile, where: str, findings: Findings) -> Array:
        kind_matches(findings, table.column("name"), survey.header.int_index, where)
        ids, x, y = content.transcripts_of(table, genes, where)
        _unknown(findings, "transcripts.gene", ids, len(genes), "transcripts are of genes that are not there", where)
        inside = _within(x, tile[0], tile_size) & _within(y, tile[1], tile_size)
        if not inside.all():
            found = f"{int((~inside).sum()):,} of {ids.size:,} transcripts are not in this tile, or nowhere"
            findings.error("transcripts.tile", where, found)
        return np.empty(0, np.int64)

    _survey(survey, tiles, examine)


def survey_outlines(survey: Survey, found: Segmentation) -> None:
    """Every outline is of a known cell, closed, and in the tile of its centre of area."""
    tiles = survey.attempt(content.outline_tiles, survey.root, survey.header, found.name)
    tile_size = survey.attempt(lambda: survey.header.tile_size)
    cells = found.cells
    if tiles is None or cells is None or tile_size is None:
        _leave_alone(survey, layout.outlines_dir(found.name))
        return

    def examine(table: pa.Table, tile: Tile, where: str, findings: Findings) -> Array:
        kind_matches(findings, table.column("name"), survey.header.int_index, where)
        outlines = content.outlines_of(table, cells, where)
        _unknown(
            findings, "outlines.cell", outlines.cells, len(cells), "outlines are of cells that are not there", where
        )
        _examine_rings(outlines, tile, tile_size, where, findings)
        return outlines.cells

    seen = _survey(survey, tiles, examine)
    folder = layout.outlines_dir(found.name)
    if not seen.size:
        return
    n_drawn = np.bincount(seen[(seen >= 0) & (seen < len(cells))], minlength=len(cells))
    _count(survey.findings, "outlines.none", cells, n_drawn == 0, "have no outline", folder)
    _count(survey.findings, "outlines.twice", cells, n_drawn > 1, "have more than one outline", folder)


def _leave_alone(survey: Survey, folder: str) -> None:
    survey.declared.update(path for path in survey.files if path.startswith(f"{folder}/"))


def _count(findings: Findings, rule: str, cells: Names, wrong: Array, what: str, where: str) -> None:
    if wrong.any():
        names = [cells.names[k] for k in np.flatnonzero(wrong)[:3]]
        findings.warning(rule, where, f"{int(wrong.sum()):,} of {wrong.size:,} cells {what}, such as {listed(names)}")


def _unknown(findings: Findings, rule: str, ids: Array, n_known: int, what: str, where: str) -> None:
    n_unknown = int(((ids < 0) | (ids >= n_known)).sum())
    if n_unknown:
        findings.error(rule, where, f"{n_unknown:,} of {ids.size:,} {what}")


def _within(x_px: Array, number: int, tile_size: int) -> Array:
    low = number * tile_size
    inside: Array = (x_px >= low - _PX) & (x_px < low + tile_size + _PX)
    return inside


def _survey(survey: Survey, tiles: Tiles, examine: Examine) -> Array:
    """Examine every tile; what `examine` gives of all of them."""
    if tiles.chunks is None:
        names = survey.within(tiles.loose)
        found = {name: tile for name in names if (tile := layout.tile_of(name)) is not None}
        # "tile_01_2" is no name that the front-end asks for.
        found = {name: tile for name, tile in found.items() if tiles.file_of(*tile) == f"{tiles.loose}/{name}"}
        places = [(f"{tiles.loose}/{name}", _Place(tile, None)) for name, tile in found.items()]
        survey.declared.update(file for file, _ in places)
        if not places:
            survey.findings.warning("tiles.none", tiles.loose, "has no tiles, so the viewer shows none")
    else:
        survey.declared.update(tiles.chunks.paths)
        places = _groups(survey, tiles.chunks)
    batches = batched_by_file(places)
    results = survey.each(lambda batch, findings: _survey_file(survey, *batch, examine, findings), batches)
    known = [result for result in results if result is not None]
    n_rows, written = sum(n for n, _ in known), survey.attempt(survey.header.written, tiles.part)
    if written is not None and n_rows != written and len(known) == len(results):
        survey.findings.error("tiles.rows", tiles.part, f"{n_rows:,} are in the tiles, {written:,} were written")
    return np.concatenate([np.empty(0, np.int64), *(ids for _, ids in known)])


def _groups(survey: Survey, chunks: Chunks) -> list[tuple[str, _Place]]:
    """Tiles of all row groups, once files and grid agree."""
    grid, where = survey.header.grid, layout.PARAMETERS
    if grid is None or chunks.total != grid.n_x * grid.n_y:
        of = "no grid" if grid is None else f"{grid.n_x:,} × {grid.n_y:,} tiles"
        survey.findings.error("groups.grid", where, f"{chunks.total:,} row groups of {chunks.directory} for {of}")
        return []
    if grid.tile_size != survey.header.tile_size:
        survey.findings.error("groups.grid", where, f"tile_grid has tiles of {grid.tile_size} px, the rest others")
    places = []
    for number, path in enumerate(chunks.paths):
        first = number * chunks.per_file
        n_groups = min(chunks.per_file, chunks.total - first)
        if survey.attempt(_survey_footer, survey, path, n_groups, grid):
            places += [(path, _Place(divmod(first + k, grid.n_y), k)) for k in range(n_groups)]
    return places


def _survey_footer(survey: Survey, path: str, n_groups: int, grid: Grid) -> bool:
    with ParquetFile(survey.root, path) as file:
        stated = content.stated_grid(file)
        n_there = len(file.rows)
    wanted = {"tile_size": grid.tile_size, "num_tiles_x": grid.n_x, "num_tiles_y": grid.n_y}
    wrong = [key for key, value in wanted.items() if stated.get(key, value) != value]
    if wrong:
        survey.findings.warning("groups.metadata", path, f"states another {', '.join(wrong)} than {layout.PARAMETERS}")
    if n_there != n_groups:
        survey.findings.error("groups.count", path, f"has {n_there:,} row groups, not {n_groups:,}")
    return n_there == n_groups


def _survey_file(
    survey: Survey, file: str, places: list[_Place], examine: Examine, findings: Findings
) -> tuple[int, Array]:
    """Examine the tiles that are in one file; number of rows, and what `examine` gives."""
    n_rows, results = 0, [np.empty(0, np.int64)]
    with ParquetFile(survey.root, file) as opened:
        for tile, group in places:
            with findings.catching():
                if group is None and not sum(opened.rows):
                    findings.warning("tiles.empty", file, "is empty, and would not be missed", "remove it")
                elif group is None or opened.rows[group]:
                    where = file if group is None else f"{file} row group {group}"
                    table = opened.table(group)
                    n_rows += table.num_rows
                    columns.column(table, ("name",), where)
                    _tile_columns(table, tile, where, findings)
                    results.append(examine(table, tile, where, findings))
    return n_rows, np.concatenate(results)


def _tile_columns(table: pa.Table, tile: Tile, where: str, findings: Findings) -> None:
    """Row groups say whose tile they are."""
    for name, number in zip(("tile_x", "tile_y"), tile, strict=True):
        if name in table.column_names:
            values = columns.integers(columns.column(table, (name,), where), where)
            if np.any(values != number):
                findings.error(
                    "groups.tile", where, f"{name} is {values[values != number][0]}, the place is of {number}"
                )


def _examine_rings(outlines: Outlines, tile: Tile, tile_size: int, where: str, findings: Findings) -> None:
    offsets, xy = outlines.offsets, outlines.xy_px
    if np.any(outlines.n_rings != 1):
        n_wrong = int((outlines.n_rings != 1).sum())
        findings.error("outlines.rings", where, f"{n_wrong:,} cells have other than one ring, drawn as one line")
    if not np.isfinite(xy).all():
        findings.error("outlines.finite", where, "has vertices at no finite position")
        return
    if np.any(np.diff(offsets) < _FEWEST):
        findings.error("outlines.short", where, f"has outlines of fewer than {_FEWEST} vertices")
        return
    n_open = int(np.any(xy[offsets[:-1]] != xy[offsets[1:] - 1], axis=1).sum())
    if n_open:
        findings.error("outlines.open", where, f"{n_open:,} outlines do not end where they begin")
    low = np.minimum.reduceat(xy, offsets[:-1])
    high = np.maximum.reduceat(xy, offsets[:-1])
    corner = np.array(tile) * tile_size
    away = np.any((high < corner - _PX) | (low > corner + tile_size + _PX), axis=1)
    if away.any():
        found = f"{int(away.sum()):,} of {away.size:,} cells are nowhere near this tile, and not seen where they are"
        findings.error("outlines.tile", where, found)
    centres = centres_of_area(offsets, xy)
    inside = _within(centres[:, 0], tile[0], tile_size) & _within(centres[:, 1], tile[1], tile_size)
    beside = ~(inside | away)
    if beside.any():
        found = f"{int(beside.sum()):,} of {beside.size:,} cells have the centre of their area in another tile"
        findings.warning("outlines.centre", where, found)


def centres_of_area(offsets: Array, xy_px: Array) -> Array:
    """Centres of the areas within closed rings: float64 ``(n, 2)``; of their boxes where there is no area.

    Parameters
    ----------
    offsets
        int64 ``(n + 1,)``: where the vertices of each ring begin; none is empty.
    xy_px
        float64 ``(n_vertices, 2)``.
    """
    starts = offsets[:-1]
    # Near its own first vertex, a small ring far from the origin loses no digits.
    x, y = (xy_px - np.repeat(xy_px[starts], np.diff(offsets), axis=0)).T
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    boxes = (np.minimum.reduceat(xy_px, starts) + np.maximum.reduceat(xy_px, starts)) / 2
    with np.errstate(all="ignore"):
        cross = x * y_next - x_next * y
        cross[offsets[1:] - 1] = 0
        twice = np.add.reduceat(cross, starts)
        centres = np.stack(
            [np.add.reduceat((a + b) * cross, starts) / (3 * twice) for a, b in ((x, x_next), (y, y_next))], axis=1
        )
    return np.where(twice[:, None] != 0, xy_px[starts] + centres, boxes)
