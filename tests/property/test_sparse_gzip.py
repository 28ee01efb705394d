"""The gzip that knows about zeros: whatever the column, zlib reads back the same bytes."""

import gzip
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atlaswriter.codecs import sparse_gzip


@st.composite
def columns(draw):
    """A column, a superset of the rows that differ from its background, and the background."""
    dtype = draw(st.sampled_from(["u1", "<u2", "<f4"]))
    n = draw(st.integers(0, 40) | st.sampled_from([257, 258, 259, 260, 1033, 66_000]))
    background = np.dtype(dtype).type(draw(st.sampled_from([0, 1, 255])))
    content = np.full(n, background, dtype)
    rows = sorted(draw(st.sets(st.integers(0, n - 1), max_size=30))) if n else []
    rng = np.random.default_rng(draw(st.integers(0, 3)))
    content[rows] = rng.integers(0, draw(st.sampled_from([2, 256])), len(rows))
    return content, np.array(rows, draw(st.sampled_from([np.uint32, np.int32, np.int64]))), background


@settings(max_examples=200, derandomize=True, deadline=None)
@given(columns())
def test_content_comes_back(column):
    content, rows, background = column
    file = bytes(sparse_gzip.compress(content, rows, background))
    assert gzip.decompress(file) == content.tobytes()
    assert zlib.decompress(file, 31) == content.tobytes()
    assert file[:10] == b"\x1f\x8b\x08\x00\x00\x00\x00\x00" + file[8:10]  # no name, time 0
    assert len(file) <= sparse_gzip.longest(content.nbytes, rows.size, content.itemsize)


def test_dense_and_skewed_columns():
    rng = np.random.default_rng(0)
    for share in (0.001, 0.1, 0.5, 1):
        for top in (2, 255):
            content = np.zeros(100_000, np.uint8)
            rows = np.flatnonzero(rng.random(content.size) < share)
            content[rows] = np.minimum(rng.geometric(0.1, rows.size), top)
            assert gzip.decompress(bytes(sparse_gzip.compress(content, rows, 0))) == content.tobytes()
