"""What the caller decides about a project, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlaswriter.engine.resources import plain
from atlaswriter.errors import InputError, Problems
from atlaswriter.units import parse_bytes

_DTYPES = ("uint8", "keep")
_AXES = ("axes", "label_axes")


@dataclass(frozen=True)
class Options:
    """Options of one project; names and meanings as in `atlaswriter.deepcell`."""

    axes: str | None = None
    label_axes: str | None = None
    channel_names: Sequence[str] | None = None
    image_dtype: str = "uint8"
    download_limit: str | int = "10GiB"
    timeout: float = 60.0
    preview: bool = False
    force: bool = False

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Options:
        """Options from among the arguments of a call; NumPy scalars become plain numbers."""
        found = {name: plain(given[name]) for name in cls.__dataclass_fields__ if name in given}
        told = {name: re.sub("[ ,]", "", found[name]) for name in _AXES if isinstance(found.get(name), str)}
        return cls(**found | told)

    @property
    def keep(self) -> bool:
        """Whether pixels are stored as they are."""
        return self.image_dtype == "keep"

    @property
    def most_downloaded(self) -> int:
        """Bytes that a download may have."""
        return parse_bytes(self.download_limit, "download_limit")

    def check(self, problems: Problems) -> None:
        """Add every wrong value to `problems`."""
        for name in _AXES:
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and re.fullmatch("[A-Za-z]{2,8}", value)):
                problems.add(name, f"{value!r} are no axes", "write for example TYXC or CZYX")
        if self.image_dtype not in _DTYPES:
            problems.add("image_dtype", f"{self.image_dtype!r} is not known", f"use one of {', '.join(_DTYPES)}")
        for name in ("preview", "force"):
            if not isinstance(getattr(self, name), bool):
                problems.add(name, f"{getattr(self, name)!r} is not True or False", "give one of the two")
        try:
            parse_bytes(self.download_limit, "download_limit")
        except InputError as error:
            problems.add("download_limit", error.problems[0].found, error.problems[0].remedy)
        timeout = self.timeout
        if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not 0 < timeout < math.inf:
            problems.add("timeout", f"{timeout!r} is not a number of seconds above 0", "give for example 60")
        names = self.channel_names
        if names is not None and (
            isinstance(names, str | bytes)
            or not isinstance(names, Sequence | np.ndarray)
            or not all(isinstance(name, str) for name in names)
        ):
            problems.add("channel_names", f"{names!r} is not a list of names", "give a list of texts")
