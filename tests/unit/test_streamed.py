"""Members that are inflated as they are read."""

import random
import threading
import zlib

import pytest

from atlaswriter.errors import InputError
from atlaswriter.sources import streamed
from atlaswriter.sources.files import File
from atlaswriter.sources.streamed import Streamed

CONTENT = random.Random(0).randbytes(200_000)
CRC = zlib.crc32(CONTENT)


class Source:
    """Content in pieces, which counts how often it is begun and unpacked."""

    def __init__(self, path, content=CONTENT, step=1000):
        self.path, self.content, self.step = path, content, step
        self.begun = self.unpacked = 0

    def pieces(self):
        self.begun += 1
        for start in range(0, len(self.content), self.step):
            yield self.content[start : start + self.step]
            yield b""

    def unpack(self):
        self.unpacked += 1
        self.path.write_bytes(self.content)
        return File(self.path)


@pytest.fixture(params=[1000, 1 << 20])
def source(request, tmp_path, monkeypatch):
    """Small parts are read from the window at once where pieces are known to be small."""
    monkeypatch.setattr(streamed, "WINDOW", 10_000)
    monkeypatch.setattr(streamed, "_PIECE_BYTES", request.param)
    return Source(tmp_path / "whole")


def opened(source, size=200_000, crc=CRC):
    return Streamed(source.pieces, size, crc, "a.zip: a", source.unpack)


def test_read_in_order_inflates_once(source):
    file = opened(source)
    found = b"".join(file.read(start, min(777, file.size - start)) for start in range(0, file.size, 777))
    assert found == CONTENT
    assert (source.begun, source.unpacked) == (1, 0)
    file.verify()
    assert source.begun == 1


def test_what_is_in_the_window_can_be_read_again(source):
    file = opened(source)
    file.read(50_000, 10)
    assert file.read(41_000, 9000) == CONTENT[41_000:50_000]
    assert source.begun == 1


def test_reads_may_be_longer_than_the_window(source):
    assert opened(source).read(5, 150_000) == CONTENT[5:150_005]
    assert source.unpacked == 0


def test_a_second_pass_begins_again_and_a_third_unpacks(source):
    file = opened(source)
    for _ in range(2):
        assert file.read(0, 10) == CONTENT[:10]
        assert file.read(100_000, 10) == CONTENT[100_000:100_010]
    assert (source.begun, source.unpacked) == (2, 0)
    assert file.read(0, 10) == CONTENT[:10]
    assert source.unpacked == 1
    assert file.read(199_990, 10) == CONTENT[-10:]
    assert file.read(0, 200_000) == CONTENT
    assert source.unpacked == 1
    file.verify()


def test_any_order(source):
    file, rng = opened(source), random.Random(1)
    for _ in range(300):
        start = rng.randrange(200_000)
        size = rng.randrange(min(20_000, 200_001 - start))
        assert file.read(start, size) == CONTENT[start : start + size]
    assert source.unpacked == 1


def test_others_get_a_file(source):
    file = opened(source)
    file.read(0, 8)
    file.ready()
    assert file.path == source.path
    assert File(file.path, file.offset, file.size).read(9, 9) == CONTENT[9:18]
    assert file.part(100, 50, "part").read(10, 5) == CONTENT[110:115]
    assert source.unpacked == 1


@pytest.mark.parametrize(("offset", "size"), [(-1, 5), (0, 200_001), (200_000, 1)])
def test_beyond_its_end(source, offset, size):
    with pytest.raises(OSError, match="truncated"):
        opened(source).read(offset, size)


@pytest.mark.parametrize(
    ("size", "crc", "text"),
    [
        (199_999, zlib.crc32(CONTENT), "goes on after the 199999 bytes"),
        (199_000, zlib.crc32(CONTENT[:199_000]), "goes on after the 199000 bytes"),
        (200_001, zlib.crc32(CONTENT), "ends after 200000 of 200001 bytes"),
        (200_000, 5, "has the CRC .*, its archive says 00000005"),
    ],
)
def test_damage_is_found_where_nobody_reads_to_the_end(source, size, crc, text):
    file = opened(source, size, crc)
    assert file.read(0, 100) == CONTENT[:100]
    with pytest.raises(InputError, match=f"a.zip: a: {text}"):
        file.verify()
    file = opened(source, size, crc)
    with pytest.raises(InputError, match=text):
        file.read(size - 10, 10)


def test_an_empty_member(tmp_path):
    file = opened(Source(tmp_path / "a", b""), 0, 0)
    assert file.read(0, 0) == b""
    file.verify()
    with pytest.raises(InputError, match="has the CRC 00000000"):
        opened(Source(tmp_path / "a", b""), 0, 1).verify()


def test_closed(source):
    file = opened(source)
    file.read(0, 5)
    file.close()
    with pytest.raises(InputError):
        file.read(100_000, 5)
    with pytest.raises(InputError, match="was closed"):
        file.ready()
    assert source.unpacked == 0


def test_threads_read_side_by_side(source):
    """Each takes every fourth block; nobody is further behind than the window."""
    file, found = opened(source), {}
    gate = threading.Barrier(4)

    def read(first):
        for start in range(first * 500, file.size, 2000):
            gate.wait()
            found[start] = file.read(start, 500)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(found[start] for start in sorted(found)) == CONTENT
    assert (source.begun, source.unpacked) == (1, 0)
