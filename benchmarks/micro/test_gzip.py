"""gzip: of columns by their non-zeros, of arrays with repeats, and of anything by ISA-L or zlib."""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

import gzip as python_gzip
import zlib

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.codecs import gzip, sparse_gzip
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.kernels import crc
from atlaswriter.kernels import gzip as kernels

BITS = pytest.mark.parametrize("bits", [8, 16, None])


@pytest.fixture(scope="module")
def coded(column, whole):
    """Makes the gene's coded entries and its bytes; the encoder would use their memory again."""

    def make(bits):
        encoder = ValueEncoder(whole.size, bits, "nearest")
        columns = encoder.encode(column)
        return columns, encoder.dense(columns, 0).tobytes()

    return make


@pytest.fixture(scope="module")
def sources(atlas):
    """Sources of edges: runs of equal numbers."""
    return sp.triu(atlas.obsp["connectivities"], k=1, format="csr").tocoo().row.astype(np.uint32)


def units(columns, content):
    return {"non-zero": columns.entries.size, "byte": len(content)}


@pytest.mark.parametrize("level", [6, 9])
@BITS
def test_sparse(measure, coded, whole, bits, level):
    columns, content = coded(bits)
    (file,) = measure(
        units(columns, content),
        sparse_gzip.compress, columns.entries, columns.offsets, whole.size, columns.rules.backgrounds, level,
    )  # fmt: skip
    assert zlib.decompress(file, 31) == content


def test_sparse_kernel(measure, coded, whole):
    """The kernel alone, 8 bit, without looking for matches."""
    columns, content = coded(8)
    file = np.empty(sparse_gzip.longest(len(content), columns.entries.size, 1), np.uint8)
    ends, workspace, nothing = np.empty(1, np.int64), np.zeros(kernels.WORKSPACE, np.int64), np.empty(0, np.uint8)
    measure(
        units(columns, content),
        lambda: kernels.columns(
            columns.entries, columns.offsets, whole.size, columns.rules.backgrounds, nothing, 0, False, 0, False,
            crc.powers(), workspace, None, file, ends,
        ),
    )  # fmt: skip
    assert zlib.decompress(file[: ends[0]], 31) == content


def test_powers(measure):
    """The table that a process makes once."""
    powers = np.empty(crc.WINDOW + 1, np.uint32)
    measure({"entry": powers.size}, crc.fill_powers, powers)
    ends_in_one = [zlib.crc32(b"\1" + bytes(n)) ^ zlib.crc32(bytes(n + 1)) for n in (4, 1000)]
    assert powers[0] == 1 << 31
    assert ends_in_one == [crc_of_one(powers, n) for n in (4, 1000)]


def crc_of_one(powers, n_after):
    """What a byte 1 with so many bytes behind it changes: bit 0 of a byte is x**7."""
    residue = int(powers[n_after + 4])
    for _ in range(7):
        residue = residue >> 1 ^ (0xEDB88320 if residue & 1 else 0)
    return residue


@BITS
def test_general(measure, coded, bits):
    columns, content = coded(bits)
    file = measure(units(columns, content), gzip.compress, content, 6)
    assert zlib.decompress(file, 31) == content


def test_small(measure, coded):
    """zlib, which cellucid 0.0.9 calls."""
    columns, content = coded(8)
    file = measure(units(columns, content), gzip.compress_small, content, 6)
    assert zlib.decompress(file, 31) == content


def test_inflate(measure, coded):
    _, content = coded(8)
    file = python_gzip.compress(content, 6)
    assert measure({"byte": len(content)}, gzip.inflate, file, len(content)) == content


@pytest.mark.parametrize("bits", [8, None])
def test_zlib_stream(measure, coded, bits):
    columns, content = coded(bits)
    assert zlib.decompress(measure(units(columns, content), gzip.zlib_stream, content)) == content


def inflated(segment):
    """Content of a segment of a stream."""
    return zlib.decompressobj(-15).decompress(segment)


def test_segment(measure, coded):
    columns, content = coded(8)
    assert inflated(measure(units(columns, content), gzip.segment, content, 6)) == content


def test_segment_small(measure, coded):
    columns, content = coded(8)
    assert inflated(measure(units(columns, content), gzip.segment_small, content, 6)) == content


def test_stream(measure, coded):
    """What is around segments: header, CRC and size."""
    _, content = coded(8)
    segment = gzip.segment(content, 6)

    def work():
        stream = gzip.Stream()
        stream.add(content)
        return stream.header + segment + stream.trailer()

    assert zlib.decompress(measure({"byte": len(content)}, work), 31) == content


def test_repeats(measure, codes):
    file = measure({"cell": codes.size, "byte": codes.nbytes}, sparse_gzip.compress_repeats, codes)
    assert zlib.decompress(file, 31) == codes.tobytes()


@pytest.mark.parametrize("encoder", ["repeats", "general"])
def test_sources(measure, sources, encoder):
    """Sources of edges, by the encoder of repeats and by ISA-L."""
    units = {"edge": sources.size, "byte": sources.nbytes}
    if encoder == "repeats":
        file = measure(units, sparse_gzip.compress_repeats, sources)
    else:
        file = measure(units, gzip.compress, sources, 6)
    assert zlib.decompress(file, 31) == sources.tobytes()


def test_segment_repeats(measure, sources):
    segment = measure({"edge": sources.size, "byte": sources.nbytes}, sparse_gzip.segment_repeats, sources)
    assert inflated(segment) == sources.tobytes()


def test_zlib_repeats(measure, sources):
    stream = measure({"edge": sources.size, "byte": sources.nbytes}, sparse_gzip.zlib_repeats, sources)
    assert zlib.decompress(stream) == sources.tobytes()
