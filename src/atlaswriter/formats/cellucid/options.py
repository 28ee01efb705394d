"""What the caller decides about an export, checked."""

from __future__ import annotations

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from atlaswriter.engine.resources import plain
from atlaswriter.errors import Problems
from atlaswriter.formats.cellucid.layout import Layout, reserved_names
from atlaswriter.names import safe_name

_FILE_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


@dataclass(frozen=True)
class Options:
    """Options of one export; names and meanings as in `atlaswriter.prepare`."""

    var_quantization: int | None = None
    obs_continuous_quantization: int | None = None
    obs_categorical_dtype: str = "auto"
    compression: int | None = None
    centroid_outlier_quantile: float | None = 0.95
    centroid_min_points: int = 10
    quantizer: str = "nearest"
    make_unique: bool = False
    merge_equal_categories: bool = False
    force: bool = False
    dataset_name: str | None = None
    dataset_description: str | None = None
    dataset_id: str | None = None
    source_name: str | None = None
    source_url: str | None = None
    source_citation: str | None = None
    created_at: str | None = None
    layout: Layout = field(default_factory=Layout)

    @classmethod
    def of(cls, given: Mapping[str, Any], **others: Any) -> Options:
        """Options from among the arguments of a call; NumPy scalars become plain numbers."""
        known = {name: given[name] for name in cls.__dataclass_fields__ if name in given}
        return cls(**{name: plain(value) for name, value in (known | others).items()})

    @property
    def level(self) -> int | None:
        """gzip level, None for plain files (0 means the same, as in 0.0.9)."""
        return self.compression or None

    def dataset(self, target: Path) -> dict[str, str]:
        """The identity's id, name and description, by 0.0.9's defaults."""
        name = self.dataset_name if self.dataset_name is not None else target.name
        chosen = self.dataset_id if self.dataset_id is not None else safe_name(self.dataset_name or target.name)
        return {"id": chosen, "name": name, "description": self.dataset_description or ""}

    def source(self) -> dict[str, str]:
        """The identity's ``source``: only what was given."""
        given = {"name": self.source_name, "url": self.source_url, "citation": self.source_citation}
        return {key: value for key, value in given.items() if value}

    def timestamp(self) -> str:
        """``created_at`` as given, else ``SOURCE_DATE_EPOCH``, else now; UTC."""
        if self.created_at is not None:
            return self.created_at
        seconds = os.environ.get("SOURCE_DATE_EPOCH")
        return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(seconds) if seconds else time.time()))

    def check(self, problems: Problems) -> None:
        """Add every wrong value to `problems`."""
        for name in ("var_quantization", "obs_continuous_quantization"):
            self._one_of(problems, name, (None, 8, 16))
        self._one_of(problems, "obs_categorical_dtype", ("auto", "uint8", "uint16"))
        self._one_of(problems, "quantizer", ("nearest", "truncate"))
        self._one_of(problems, "compression", (None, *range(10)), shown="None or a whole number from 0 to 9")
        for name in ("make_unique", "merge_equal_categories", "force"):
            if not isinstance(getattr(self, name), bool):
                problems.add(name, f"{getattr(self, name)!r} is not True or False")
        self._check_centroids(problems)
        self._check_texts(problems)
        self._check_layout(problems)

    def _one_of(self, problems: Problems, name: str, allowed: tuple[Any, ...], shown: str | None = None) -> None:
        value = getattr(self, name)
        if isinstance(value, bool) or not isinstance(value, int | str | None) or value not in allowed:
            problems.add(
                name, f"{value!r} is not allowed", f"use {shown or ' or '.join(repr(item) for item in allowed)}"
            )

    def _check_centroids(self, problems: Problems) -> None:
        quantile = self.centroid_outlier_quantile
        if quantile is not None and (not _is_number(quantile) or not 0.5 < quantile < 1):
            problems.add("centroid_outlier_quantile", f"{quantile!r} is not between 0.5 and 1", "use None or e.g. 0.95")
        count = self.centroid_min_points
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            problems.add("centroid_min_points", f"{count!r} is not a whole number above 0", "use e.g. 10")

    def _check_texts(self, problems: Problems) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name.startswith(("dataset_", "source_", "created_")) and not isinstance(value, str | None):
                problems.add(item.name, f"{value!r} is not text")
        try:
            self.timestamp()
        except (ValueError, OverflowError, OSError):
            problems.add("SOURCE_DATE_EPOCH", f"{os.environ['SOURCE_DATE_EPOCH']!r} is not a number of seconds")

    def _check_layout(self, problems: Problems) -> None:
        names = [getattr(self.layout, item.name) for item in fields(self.layout)]
        for name in names:
            if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
                problems.add("file and folder names", f"{name!r} is not a plain name", "use letters, digits, . _ -")
            elif name in reserved_names():
                problems.add("file and folder names", f"{name!r} is the name of another file of the export")
        if len(set(map(str, names))) < len(names):
            problems.add("file and folder names", "two of them are the same")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
