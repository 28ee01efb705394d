"""Zip archives: checksums and records."""
# ruff: noqa: ANN001, ANN201, ANN202 - fixtures, as in tests

from __future__ import annotations

import io
import zipfile
import zlib

import numpy as np
import pytest

from atlaswriter.codecs import crc, ziprecords


@pytest.fixture(scope="module")
def content():
    return np.random.default_rng(0).bytes(16 << 20)


def test_crc32(measure, content):
    assert measure({"byte": len(content)}, crc.crc32, content) == zlib.crc32(content)


def test_filled(measure, content):
    """A header of 4 KiB that becomes known last."""
    later = bytes(4096) + content[4096:]
    found = measure({"call": 1}, crc.filled, zlib.crc32(later), content[:4096], len(content) - 4096)
    assert found == zlib.crc32(content)


def test_records(measure):
    """Headers and directory of 1000 empty members."""
    names = [f"member-{number}.json" for number in range(1000)]

    def archive():
        file, entries = bytearray(), []
        for name in names:
            entries.append(ziprecords.Entry(name, ziprecords.STORED, len(file), roomy=False))
            file += ziprecords.local_header(entries[-1])
        return file + ziprecords.directory(entries, len(file))

    file = measure({"member": len(names)}, archive)
    with zipfile.ZipFile(io.BytesIO(file)) as read:
        assert read.namelist() == names
        assert read.testzip() is None
