"""What the buffers of an export request hold: sizes, and the kind of their pixels."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.formats.deepcell.jsonlist import load, shown, whole

# Numbers of pixels in JavaScript, by the names of its arrays. The original server knows those of `SERVED`.
SERVED = {
    "Uint8Array": "u1",
    "Uint16Array": "u2",
    "Uint32Array": "u4",
    "Int32Array": "i4",
    "Float32Array": "f4",
    "Float64Array": "f8",
}
_ARRAYS = {**SERVED, "Uint8ClampedArray": "u1", "Int8Array": "i1", "Int16Array": "i2"}

_SIZES = ("width", "height", "duration", "numChannels", "numFeatures")
_DTYPE = "dtype"

# Images of a request: a page of a TIFF each. A movie of 10,000 frames and 40 channels has 400,000.
_MOST_IMAGES = 1 << 20
_LARGEST_SIDE = 2**31 - 1


@dataclass(frozen=True)
class Dimensions:
    """Sizes of an export request.

    Attributes
    ----------
    width, height, n_frames, n_channels, n_features
        Of the image and the labels.
    dtype
        Of the pixels of the image, little-endian.
    """

    width: int
    height: int
    n_frames: int
    n_channels: int
    n_features: int
    dtype: np.dtype[Any]

    @property
    def image_shape(self) -> tuple[int, int, int, int]:
        """(channels, frames, rows, columns)."""
        return self.n_channels, self.n_frames, self.height, self.width

    @property
    def label_shape(self) -> tuple[int, int, int, int]:
        """(features, frames, rows, columns)."""
        return self.n_features, self.n_frames, self.height, self.width

    @classmethod
    def parse(cls, content: bytes, where: str, problems: Problems) -> Dimensions | None:
        """From JSON; None when there is a problem. Without a dtype, which the format's page lacks, it is uint8."""
        n_before = len(problems.found)
        found = problems.attempt(load, content, where)
        if not isinstance(found, dict):
            if len(problems.found) == n_before:
                problems.add(where, "is no JSON object", f"write an object of {', '.join(_SIZES)} and {_DTYPE}")
            return None
        width, height, n_frames, n_channels, n_features = (_size(found, key, where, problems) for key in _SIZES)
        dtype = _dtype(found.get(_DTYPE, "Uint8Array"), where, problems)
        if len(problems.found) > n_before or dtype is None:
            return None
        n_images = n_frames * max(n_channels, n_features)
        if n_images > _MOST_IMAGES:
            found = f"tells of {n_images:,} images, at most {_MOST_IMAGES:,} are believed"
            problems.add(where, found, "correct duration, numChannels and numFeatures")
            return None
        return cls(width, height, n_frames, n_channels, n_features, dtype)

    def to_json(self) -> bytes:
        """As the client sends them; `InputError` where JavaScript has no array of such numbers that servers know."""
        names = [name for name, code in SERVED.items() if np.dtype(code) == self.dtype.newbyteorder("=")]
        if not names:
            remedy = f"convert it to one of {', '.join(np.dtype(code).name for code in SERVED.values())}"
            raise InputError(Problem("images", f"have pixels of {self.dtype}, which servers do not know", remedy))
        sizes = self.width, self.height, self.n_frames, self.n_channels, self.n_features
        return json.dumps({**dict(zip(_SIZES, sizes, strict=True)), _DTYPE: names[0]}).encode()


def check_bytes(size: int, shape: tuple[int, ...], dtype: np.dtype[Any], where: str, problems: Problems) -> bool:
    """Whether a buffer has the bytes that its pixels take; a problem is noted where it has not."""
    needed = math.prod(shape) * dtype.itemsize
    if size != needed:
        numbers = " × ".join(f"{number:,}" for number in shape)
        found = f"has {size:,} bytes, {numbers} pixels of {dtype.name} take {needed:,}"
        problems.add(where, found, "correct the sizes or the dtype that are told, or write the buffer again")
    return size == needed


def _size(found: dict[str, Any], key: str, where: str, problems: Problems) -> int:
    if key not in found:
        problems.add(where, f"has no {key}", "write it: a whole number above 0")
        return 0
    size = whole(found[key])
    if size is None or not 1 <= size <= _LARGEST_SIDE:
        problems.add(where, f"has the {key} {shown(found[key])}", "write a whole number above 0")
        return 0
    return size


def _dtype(name: Any, where: str, problems: Problems) -> np.dtype[Any] | None:
    if not isinstance(name, str) or name not in _ARRAYS:
        problems.add(where, f"has the dtype {shown(name)}", f"use one of {', '.join(_ARRAYS)}")
        return None
    return np.dtype(_ARRAYS[name]).newbyteorder("<")
