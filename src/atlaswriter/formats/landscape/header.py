"""What the parameters of LandscapeFiles say, part by part, without trusting them.

Every property raises `ReadError` when its entry is not what the front-end needs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atlaswriter.errors import listed
from atlaswriter.findings import ReadError
from atlaswriter.formats.landscape import layout
from atlaswriter.sources.untrusted import count, shown, text

_WHERE = layout.PARAMETERS
# What the front-end assumes where an entry does not say.
_MOST_GROUPS = 10_000


@dataclass(frozen=True)
class Channel:
    """One channel of the image: name in paths, label of its slider, colour (red, green, blue; 0 to 255)."""

    name: str
    button: str
    color: tuple[int, int, int]


@dataclass(frozen=True)
class Chunks:
    """Row groups of one part, spread over several files.

    Attributes
    ----------
    directory, files
        Folder, and names in it.
    per_file
        Row groups of each file but the last.
    total
        Row groups of all files.
    """

    directory: str
    files: tuple[str, ...]
    per_file: int
    total: int

    @property
    def paths(self) -> list[str]:
        """Path of each file, relative to the root."""
        return [f"{self.directory}/{name}" for name in self.files]

    def place(self, index: int) -> tuple[str, int]:
        """File and position in it of one row group."""
        number, group = divmod(index, self.per_file)
        if not 0 <= number < len(self.files):
            raise ReadError("groups.files", _WHERE, f"row group {index:,} is in none of the files of {self.directory}")
        return self.paths[number], group


@dataclass(frozen=True)
class Grid:
    """Data tiles of row-group mode: edge in pixels, and numbers of tiles."""

    tile_size: int
    n_x: int
    n_y: int


@dataclass(frozen=True)
class Header:
    """Content of the parameters."""

    raw: Mapping[str, Any]

    @property
    def technology(self) -> str:
        """Such as ``"Xenium"``."""
        return text(self.raw.get("technology"), "technology", _WHERE)

    @property
    def has_image(self) -> bool:
        """Whether the front-end shows an image and data tiles for this technology."""
        return not self.technology.startswith(layout.WITHOUT_IMAGE)

    @property
    def segmentations(self) -> list[str]:
        """Names of the segmentations besides the default one."""
        found = self.raw.get("segmentation_approach", [layout.DEFAULT_SEGMENTATION])
        if not isinstance(found, list):
            raise ReadError("json.shape", _WHERE, f"segmentation_approach is {shown(found)}, not a list")
        names = [text(name, "a segmentation", _WHERE) for name in found]
        return [name for name in dict.fromkeys(names) if name != layout.DEFAULT_SEGMENTATION]

    @property
    def tile_size(self) -> int:
        """Edge of a data tile, pixels."""
        found = count(self.raw.get("tile_size"), "tile_size", _WHERE)
        if not found:
            raise ReadError("json.shape", _WHERE, "tile_size is 0")
        return found

    @property
    def int_index(self) -> bool:
        """Whether tiles and counts hold row numbers, not names."""
        return self._flag("use_int_index")

    @property
    def image_format(self) -> str:
        """End of the names of image tiles, such as ``".webp"``."""
        return text(self.raw.get("image_format"), "image_format", _WHERE)

    @property
    def max_zoom(self) -> int:
        """Finest level of the image pyramids."""
        return count(self.raw.get("max_pyramid_zoom"), "max_pyramid_zoom", _WHERE)

    @property
    def channels(self) -> list[Channel]:
        """Channels of the image; the first one's size counts for all."""
        if not self.has_image:
            return []
        found = self.raw.get("image_info")
        if not isinstance(found, list):
            raise ReadError("json.shape", _WHERE, f"image_info is {shown(found)}, not a list")
        return [_channel(entry) for entry in found]

    @property
    def row_groups(self) -> bool:
        """Whether the front-end looks for row groups: wanted, and with a grid."""
        return self._flag("use_row_groups") and self.grid is not None

    @property
    def grid(self) -> Grid | None:
        """Data tiles of row-group mode; None where there is no such entry."""
        found = _mapping(self.raw.get("tile_grid", {}), "tile_grid")
        n_x, n_y = (count(found.get(key, 0), f"{key} of tile_grid", _WHERE) for key in ("num_tiles_x", "num_tiles_y"))
        if not n_x or not n_y:
            return None
        return Grid(count(found.get("tile_size", self.tile_size), "tile_size of tile_grid", _WHERE), n_x, n_y)

    def chunks(self, part: str) -> Chunks | None:
        """Row groups of a part, by the name of its folder; None where it is in loose files."""
        if not self.row_groups:
            return None
        entry = self._files.get(part)
        return None if entry is None else _chunks(_mapping(entry, part), part)

    def written(self, part: str) -> int | None:
        """Number of rows of all tiles of a part, where atlaswriter recorded it."""
        found: Any = self.raw
        for key in (layout.WRITER, layout.ROWS, part):
            found = found.get(key) if isinstance(found, dict) else None
        return None if found is None else count(found, f"rows of {part}", _WHERE)

    def gene_groups(self, part: str) -> dict[str, int]:
        """Row group of each gene's counts."""
        entry = _mapping(self._files.get(part), part)
        found = _mapping(entry.get("gene_to_row_group"), f"gene_to_row_group of {part}")
        return {gene: count(group, f"the row group of {gene!a}", _WHERE) for gene, group in found.items()}

    def image_chunks(self, channel: str) -> Chunks | None:
        """Row groups of a channel's tiles; None where they are loose files."""
        entry = self._image_entry(channel)
        return None if entry is None else _chunks(entry, layout.image_chunks_dir(channel))

    def image_levels(self, channel: str) -> dict[int, tuple[int, int, int]]:
        """First row group, columns and rows of each level of a channel."""
        entry = _mapping(self._image_entry(channel), f"images of {channel}")
        found = _mapping(entry.get("zoom_info"), f"zoom_info of {channel}")
        levels = {}
        for level, info in found.items():
            if not level.isdecimal() or len(level) > 2:
                raise ReadError("json.shape", _WHERE, f"zoom_info of {channel} has a level {level!a}")
            keys = ("row_group_offset", "num_tiles_x", "num_tiles_y")
            values = _mapping(info, f"zoom_info of {channel}")
            first, n_x, n_y = (count(values.get(key), f"{key} of {channel}", _WHERE) for key in keys)
            levels[int(level)] = first, n_x, n_y
        return levels

    @property
    def image_dimensions(self) -> tuple[int, int] | None:
        """Width and height that row-group mode states besides; None where it does not."""
        found = self.raw.get("image_dimensions")
        if found is None:
            return None
        values = _mapping(found, "image_dimensions")
        width, height = (count(values.get(key), f"{key} of image_dimensions", _WHERE) for key in ("width", "height"))
        return width, height

    def _image_entry(self, channel: str) -> Mapping[str, Any] | None:
        if not self.row_groups:
            return None
        entry = _mapping(self._files.get("images", {}), "images").get(channel)
        return None if entry is None else _mapping(entry, f"images of {channel}")

    @property
    def _files(self) -> Mapping[str, Any]:
        return _mapping(self.raw.get("row_group_files", {}), "row_group_files")

    def _flag(self, key: str) -> bool:
        found = self.raw.get(key, False)
        if not isinstance(found, bool):
            raise ReadError("json.shape", _WHERE, f"{key} is {shown(found)}, neither true nor false")
        return found


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ReadError("json.shape", _WHERE, f"{what} is {shown(value)}, not an object")
    return value


def _channel(entry: Any) -> Channel:
    values = _mapping(entry, "an entry of image_info")
    name = text(values.get("name"), "a channel's name", _WHERE)
    button = text(values.get("button_name"), f"button_name of {name!a}", _WHERE)
    color = values.get("color")
    if not isinstance(color, list) or len(color) != 3:
        raise ReadError("json.shape", _WHERE, f"color of {name!a} is {shown(color)}, not red, green and blue")
    red, green, blue = (count(value, f"color of {name!a}", _WHERE) for value in color)
    if max(red, green, blue) > 255:
        raise ReadError("json.shape", _WHERE, f"color of {name!a} is above 255")
    return Channel(name, button, (red, green, blue))


def _chunks(entry: Mapping[str, Any], part: str) -> Chunks:
    directory = text(entry.get("directory"), f"directory of {part}", _WHERE)
    files = entry.get("files")
    if not isinstance(files, list) or not files:
        raise ReadError("json.shape", _WHERE, f"files of {part} are {shown(files)}, not a list of names")
    names = tuple(text(name, f"a file of {part}", _WHERE) for name in files)
    per_file = count(entry.get("max_row_groups_per_file", _MOST_GROUPS), f"max_row_groups_per_file of {part}", _WHERE)
    total = count(entry.get("total_row_groups"), f"total_row_groups of {part}", _WHERE)
    if -(-total // max(per_file, 1)) != len(names) or len(set(names)) < len(names):
        found = f"{total:,} row groups, {per_file:,} to a file, do not fit {listed(names, 3)}"
        raise ReadError("groups.files", _WHERE, f"{part}: {found}")
    return Chunks(directory, names, per_file, total)
