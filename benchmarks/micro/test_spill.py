"""Temporary files: byte planes and frames of row gaps and of values."""
# ruff: noqa: ANN001, ANN201 - fixtures, as in tests

from __future__ import annotations

import numpy as np
import pytest

from atlaswriter.codecs import spill
from atlaswriter.kernels import shuffle

# Entries of a frame.
N = 1 << 15
DTYPES = pytest.mark.parametrize("dtype", ["u2", "u4", "f4", "u8"])


@pytest.fixture(scope="module")
def numbers(by_gene):
    """Values, and gaps between rows, of the first entries in order of genes."""
    gaps = np.diff(by_gene.indices[: N + 1]).clip(0)
    return {"f4": by_gene.data[:N].copy(), **{dtype: gaps.astype(dtype) for dtype in ("u2", "u4", "u8")}}


def planes_of(words):
    return words.view(np.uint8).reshape(words.size, -1).T


@DTYPES
def test_split(measure, numbers, dtype):
    words = numbers[dtype].view(f"u{numbers[dtype].itemsize}")
    planes = np.empty((words.itemsize, words.size), np.uint8)
    measure({"entry": N, "byte": words.nbytes}, shuffle.split, words, planes)
    assert np.array_equal(planes, planes_of(words))


@DTYPES
def test_join(measure, numbers, dtype):
    words = numbers[dtype].view(f"u{numbers[dtype].itemsize}")
    planes, out = np.ascontiguousarray(planes_of(words)), np.empty_like(words)
    measure({"entry": N, "byte": words.nbytes}, shuffle.join, planes, out)
    assert np.array_equal(out, words)


@DTYPES
def test_pack(measure, numbers, dtype):
    array = numbers[dtype]
    frame = measure({"entry": N, "byte": array.nbytes}, spill.pack, array)
    assert len(frame) < array.nbytes
    assert np.array_equal(spill.unpack(frame, array.dtype, N), array)


@DTYPES
def test_unpack(measure, numbers, dtype):
    array = numbers[dtype]
    frame = spill.pack(array)
    assert np.array_equal(measure({"entry": N, "byte": array.nbytes}, spill.unpack, frame, array.dtype, N), array)
