"""Arrays as they lie in a file, ``.npy`` files above all: read at their places, never through a memory map.

The format: numpy's ``numpy.lib.format``, versions 1 to 3. Objects, which are pickles, are never read.
"""

from __future__ import annotations

import ast
import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.axes import Hint, Reading, choose
from atlaswriter.sources.base import Array
from atlaswriter.sources.damage import translated_damage
from atlaswriter.sources.files import File
from atlaswriter.sources.movie import Movie
from atlaswriter.sources.ndstack import Arranged, Part, checked_dtype, interleaved

NPY = b"\x93NUMPY"

_CUT_SHORT = "the file is damaged or incomplete: copy or write it again"
# numpy reads no longer headers either, unless it is told to trust them.
_LONGEST_HEADER = 10_000

# A read of a file costs about as much as this many bytes of it; no read is larger than the second number.
_READ_COST, _LARGEST_READ = 32 << 10, 1 << 20


class InFile:
    """An array in a file, in C order and without compression: an `NdArray`.

    Parameters
    ----------
    file
        The file.
    offset
        Where the array begins.
    shape, dtype
        As it is stored: bytes in any order, the last dimension innermost.
    reading
        What its dimensions count.

    Attributes
    ----------
    shape, dtype, chunks, overhead
        As of `NdArray`.

    Raises
    ------
    InputError
        The file is too short for it.
    """

    def __init__(self, file: File, offset: int, shape: Sequence[int], dtype: np.dtype[Any], reading: Reading) -> None:
        self._file, self._offset = file, offset
        self.shape, self._stored = tuple(shape), dtype
        self.dtype = dtype.newbyteorder("=")
        needed = offset + math.prod(self.shape) * dtype.itemsize
        if needed > file.size:
            found = f"is cut short: its shape {self.shape} needs {needed} bytes, it has {file.size}"
            raise InputError(Problem(file.name, found, _CUT_SHORT))
        self.overhead = 2 * min(_LARGEST_READ, needed)
        self.chunks = interleaved(range(len(self.shape)), reading, self.shape)
        self._inner = [math.prod(self.shape[dim + 1 :]) for dim in range(len(self.shape))]

    def part(self, part: Part) -> Array:
        """As of `NdArray`."""
        out = np.empty([wanted.stop - wanted.start for wanted in part], self.dtype)
        if out.size:
            with translated_damage("pixels", self._file.name):
                level = self._level(out.shape)
                for index in itertools.product(*(range(size) for size in out.shape[:level])):
                    self._run(out[index], part, level, index)
        return out

    def _level(self, wanted: Sequence[int]) -> int:
        """The dimension along which runs of whole inner blocks are read at the least cost."""

        def cost(level: int) -> int:
            run = wanted[level] * self._inner[level] * self.dtype.itemsize
            return math.prod(wanted[:level]) * (run + _READ_COST)

        usable = [level for level, inner in enumerate(self._inner) if inner * self.dtype.itemsize <= _LARGEST_READ]
        return min(usable, key=cost)

    def _run(self, out: Array, part: Part, level: int, index: tuple[int, ...]) -> None:
        """Read what lies at one place along the outer dimensions, in pieces."""
        start = sum((at + part[dim].start) * self._inner[dim] for dim, at in enumerate(index))
        block = self._inner[level]
        step = max(1, _LARGEST_READ // (block * self.dtype.itemsize))
        first, last = part[level].start, part[level].stop
        for begin in range(first, last, step):
            count = min(step, last - begin)
            values = self._values(start + begin * block, count * block).reshape(count, *self.shape[level + 1 :])
            out[begin - first : begin - first + count] = values[(slice(None), *part[level + 1 :])]

    def _values(self, first: int, count: int) -> Array:
        itemsize = self._stored.itemsize
        return np.frombuffer(self._file.read(self._offset + first * itemsize, count * itemsize), self._stored)


def in_file(
    file: File, offset: int, shape: Sequence[int], dtype: np.dtype[Any], reading: Reading, *, fortran: bool = False
) -> Arranged:
    """An array of a file as a stack; in Fortran order the first dimension is the innermost."""
    if fortran:
        reading = reading.backwards(len(shape))
        shape = shape[::-1]
    return Arranged(InFile(file, offset, shape, dtype, reading), reading, file.name)


def open_npy(file: File, hint: Hint) -> Movie:
    """A ``.npy`` file as a movie."""
    shape, dtype, fortran, offset = npy_header(file)
    checked_dtype(dtype, file.name)
    reading = choose(shape, hint)
    stack = in_file(file, offset, shape, dtype, reading, fortran=fortran)
    return Movie(stack, axes=reading.letters, assumed=reading.assumed, where=hint.where)


def npy_header(file: File) -> tuple[tuple[int, ...], np.dtype[Any], bool, int]:
    """Shape, dtype, whether in Fortran order, and where the values begin, of a ``.npy`` file.

    Raises
    ------
    InputError
        The header is damaged, or says that the values are Python objects.
    """
    with translated_damage("header", file.name):
        start = file.read(0, min(12, file.size))
        if start[:6] != NPY or len(start) < 12 or start[6] not in (1, 2, 3):
            raise ValueError("it is no .npy file of version 1, 2 or 3")
        width = 2 if start[6] == 1 else 4
        length = int.from_bytes(start[8 : 8 + width], "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"it has {length} bytes")
        text = file.read(8 + width, length).decode("latin-1" if start[6] < 3 else "utf-8")
        shape, descr, fortran = _parsed(text)
        if not isinstance(descr, str):
            raise ValueError("its values are records")
        dtype = np.dtype(descr)
    if dtype.hasobject:
        found = "holds Python objects (a pickle), which can hide programs and are not read"
        raise InputError(Problem(file.name, found, "save it as an array of numbers"))
    return shape, dtype, fortran, 8 + width + length


def _parsed(text: str) -> tuple[tuple[int, ...], Any, bool]:
    """Shape, dtype and order of a header."""
    try:
        header = ast.literal_eval(text)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError("it cannot be understood") from error
    if not isinstance(header, dict) or header.keys() != {"descr", "fortran_order", "shape"}:
        raise ValueError("it lacks the shape, dtype or order")
    shape, fortran = header["shape"], header["fortran_order"]
    if not isinstance(shape, tuple) or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"it gives the shape {shape!r:.60}")
    if not isinstance(fortran, bool):
        raise ValueError("its order is neither true nor false")
    return shape, header["descr"], fortran
