"""Rules of the image pyramids: sizes, levels, and every tile decoded."""

from __future__ import annotations

from typing import NamedTuple

from atlaswriter.errors import listed
from atlaswriter.findings import Findings
from atlaswriter.formats.landscape import content, imageread, layout
from atlaswriter.formats.landscape.columns import ParquetFile, column, integers
from atlaswriter.formats.landscape.header import Channel
from atlaswriter.formats.landscape.imageread import Pyramid
from atlaswriter.formats.landscape.rules import Survey, batched_by_file
from atlaswriter.sources.untrusted import locate, read_bytes


class _Tile(NamedTuple):
    """An image tile: its level, column, row, and row group; None for a loose file."""

    level: int
    column: int
    row: int
    group: int | None


def survey_images(survey: Survey) -> None:
    """Every channel has a whole pyramid, of the size of the first."""
    header, findings = survey.header, survey.findings
    channels = survey.attempt(lambda: header.channels)
    if channels is None or survey.attempt(lambda: imageread.decoder_of(header.image_format)) is None:
        survey.declared.update(path for path in survey.files if path.startswith(f"{layout.IMAGES_DIR}/"))
        return
    if not channels:
        findings.warning("images.none", layout.PARAMETERS, "image_info is empty; the viewer takes 10,000 × 10,000 px")
    for what, names in (("name", [c.name for c in channels]), ("button_name", [c.button for c in channels])):
        if len(set(names)) < len(names):
            findings.error("images.unique", layout.PARAMETERS, f"two channels have the same {what}: {listed(names)}")
    size: Pyramid | None = None
    for channel in dict.fromkeys(channels):
        survey.declared.add(layout.dzi_file(channel.name))
        pyramid = survey.attempt(imageread.read_pyramid, survey.root, channel.name)
        if pyramid is None:
            survey.declared.update(
                path for path in survey.files if path.startswith(f"{layout.image_dir(channel.name)}/")
            )
            continue
        size = size or pyramid
        if pyramid != size:
            findings.error("images.size", layout.dzi_file(channel.name), f"is {pyramid}, the first channel {size}")
        _survey_pyramid(survey, channel, pyramid)
    if size is not None:
        _survey_sizes(survey, size)


def _survey_sizes(survey: Survey, size: Pyramid) -> None:
    """What the parameters say of the image's size."""
    zoom = survey.attempt(lambda: survey.header.max_zoom)
    if zoom is not None and zoom != len(size.levels) - 1:
        found = (
            f"max_pyramid_zoom is {zoom}, the finest level of {size.width} × {size.height} is {len(size.levels) - 1}"
        )
        survey.findings.error("images.zoom", layout.PARAMETERS, found)
    stated = survey.attempt(lambda: survey.header.image_dimensions)
    if stated not in {None, (size.width, size.height)}:
        found = f"image_dimensions are {stated}, the image is {(size.width, size.height)}"
        survey.findings.error("images.dimensions", layout.PARAMETERS, found)


def _survey_pyramid(survey: Survey, channel: Channel, pyramid: Pyramid) -> None:
    before = len(survey.findings)
    chunks = survey.attempt(survey.header.image_chunks, channel.name)
    if chunks is not None:
        survey.declared.update(chunks.paths)
        places = _groups(survey, channel, pyramid)
    elif len(survey.findings) == before:
        places = _loose(survey, channel, pyramid)
    else:
        return
    survey.each(lambda batch, findings: _survey_file(survey, pyramid, *batch, findings), batched_by_file(places))


def _loose(survey: Survey, channel: Channel, pyramid: Pyramid) -> list[tuple[str, _Tile]]:
    """Loose files of all tiles that are there."""
    places = []
    survey.declared.add(f"{layout.image_dir(channel.name)}/{layout.VIPS_PROPERTIES}")
    for level in range(len(pyramid.levels)):
        n_columns, n_rows = pyramid.n_tiles(level)
        tiles = {
            layout.image_tile(channel.name, level, x, y, survey.header.image_format): _Tile(level, x, y, None)
            for x in range(n_columns)
            for y in range(n_rows)
        }
        missing = [name for name in tiles if name not in survey.files]
        if missing:
            # The front-end asks for the finest levels only.
            asked = level >= len(pyramid.levels) - layout.ASKED_LEVELS
            report = survey.findings.error if asked else survey.findings.warning
            found = f"level {level} lacks {len(missing):,} of {len(tiles):,} tiles: {listed(missing, 3)}"
            report("images.missing", layout.image_dir(channel.name), found)
        places += [(name, tile) for name, tile in tiles.items() if name in survey.files]
    survey.declared.update(name for name, _ in places)
    return places


def _groups(survey: Survey, channel: Channel, pyramid: Pyramid) -> list[tuple[str, _Tile]]:
    """Row groups of all tiles, once the parameters fit the pyramid."""
    chunks = survey.header.image_chunks(channel.name)
    levels = survey.attempt(survey.header.image_levels, channel.name)
    if chunks is None or levels is None:
        return []
    wanted, first = {}, 0
    for level in range(len(pyramid.levels)):
        n_columns, n_rows = pyramid.n_tiles(level)
        wanted[level] = first, n_columns, n_rows
        first += n_columns * n_rows
    wrong = sorted(level for level in wanted.keys() | levels.keys() if wanted.get(level) != levels.get(level))
    if wrong or first != chunks.total:
        found = (
            f"{chunks.total:,} row groups of {channel.name} for {first:,} tiles; zoom_info is wrong of {listed(wrong)}"
        )
        survey.findings.error("groups.levels", layout.PARAMETERS, found)
        return []
    order = [
        (level, x, y)
        for level, (_, n_columns, n_rows) in wanted.items()
        for x in range(n_columns)
        for y in range(n_rows)
    ]
    places = []
    for index, tile in enumerate(order):
        path, group = chunks.place(index)
        places.append((path, _Tile(*tile, group)))
    return places


def _survey_file(survey: Survey, pyramid: Pyramid, file: str, tiles: list[_Tile], findings: Findings) -> None:
    if tiles[0].group is None:
        _survey_tile(survey, pyramid, read_bytes(locate(survey.root, file), file), tiles[0], file, findings)
        return
    with ParquetFile(survey.root, file) as opened:
        for tile in tiles:
            where = f"{file} row group {tile.group}"
            with findings.catching():
                table = opened.table(tile.group)
                encoded = content.image_of(table, where)
                for name, number in zip(("zoom", "tile_x", "tile_y"), tile[:3], strict=True):
                    if name in table.column_names and integers(column(table, (name,), where), where)[0] != number:
                        findings.error("groups.tile", where, f"{name} is not {number}, whose place this is")
                _survey_tile(survey, pyramid, encoded, tile, where, findings)


def _survey_tile(survey: Survey, pyramid: Pyramid, encoded: bytes, tile: _Tile, where: str, findings: Findings) -> None:
    pixels = imageread.decode(encoded, survey.header.image_format, where)
    wanted = pyramid.tile_shape(tile.level, tile.column, tile.row)
    if pixels.shape[:2] != wanted:
        found = f"is {pixels.shape[1]} × {pixels.shape[0]} pixels, not {wanted[1]} × {wanted[0]}"
        findings.error("images.tile", where, found)
