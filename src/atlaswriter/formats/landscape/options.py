"""What the caller decides about LandscapeFiles, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlaswriter.engine.resources import plain
from atlaswriter.errors import Problems
from atlaswriter.formats.landscape import layout

# A tile's positions must fit in 32 bits, in hundredths of a pixel.
_LARGEST_TILE = 1 << 20
# Names that become parts of file names.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Options:
    """Options of one export; names and meanings as in `atlaswriter.landscape`."""

    tile_size: int = layout.TILE_SIZE
    row_groups: bool = False
    max_row_groups_per_file: int = layout.ROW_GROUPS_PER_FILE
    compat: bool = False
    min_qv: float | None = None
    drop_controls: bool = False
    genes: Sequence[str] | None = None
    region: Sequence[float] | None = None
    channels: Sequence[str] | None = None
    image_max: Mapping[str, float] | None = None
    preview: bool = False
    force: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options from among the arguments of a call; NumPy scalars become plain numbers."""
        return cls(**{name: plain(given[name]) for name in cls.__dataclass_fields__ if name in given})

    @property
    def edge(self) -> int:
        """Edge of a tile in hundredths of a pixel."""
        return 100 * self.tile_size

    def recorded(self) -> dict[str, Any]:
        """What was chosen of the data set, as the parameters tell it."""
        chosen: dict[str, Any] = {"min_qv": self.min_qv, "drop_controls": self.drop_controls, "compat": self.compat}
        chosen["genes"] = None if self.genes is None else list(self.genes)
        chosen["region"] = None if self.region is None else [float(value) for value in self.region]
        return chosen

    def check(self, problems: Problems) -> None:
        """Add every wrong value to `problems`."""
        for name, most in (("tile_size", _LARGEST_TILE), ("max_row_groups_per_file", 32767)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
                problems.add(name, f"{value!r} is not a whole number from 1 to {most:,}")
        for name in ("row_groups", "compat", "drop_controls", "preview", "force"):
            if not isinstance(getattr(self, name), bool):
                problems.add(name, f"{getattr(self, name)!r} is not True or False")
        if self.min_qv is not None and not _is_number(self.min_qv):
            problems.add("min_qv", f"{self.min_qv!r} is not a number", "use e.g. 20")
        self._check_region(problems)
        for name in ("genes", "channels"):
            value = getattr(self, name)
            if value is not None and (not _is_list(value) or not all(isinstance(item, str) for item in value)):
                problems.add(name, f"{value!r} is not a list of names")
            elif value is not None and not len(value):
                problems.add(name, "is an empty list: none is left to export", "leave it out for all")
        self._check_image_max(problems)

    def _check_region(self, problems: Problems) -> None:
        region = self.region
        if region is None:
            return
        if not _is_list(region) or len(region) != 4 or not all(_is_number(plain(value)) for value in region):
            problems.add("region", f"{region!r} is not x0, y0, x1, y1", "give four numbers")
        elif not (region[0] < region[2] and region[1] < region[3]):
            problems.add("region", f"{tuple(region)!r} is empty", "x0 must be below x1, and y0 below y1")

    def _check_image_max(self, problems: Problems) -> None:
        if self.image_max is None:
            return
        if not isinstance(self.image_max, Mapping):
            problems.add("image_max", f"{self.image_max!r} is not a dict", 'write for example {"dapi": 3000}')
            return
        for key, value in self.image_max.items():
            if not _is_number(plain(value)) or not plain(value) > 0:
                problems.add("image_max", f"{value!r} of {key!r} is not a number above 0")


def check_segmentation_names(names: Sequence[str], problems: Problems) -> None:
    """Add every name that cannot be part of a file name to `problems`."""
    for name in names:
        if not isinstance(name, str) or not _NAME.fullmatch(name) or name == "default":
            problems.add("segmentations", f"{name!r} cannot be used as a name", "use letters, digits, . _ -")


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
