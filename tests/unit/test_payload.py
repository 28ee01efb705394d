"""Files in segments: one gzip member, the same bytes however they are made."""

import zlib

import numpy as np
import pytest

from atlaswriter.codecs import gzip
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.run import Team
from atlaswriter.formats.cellucid import job as jobs
from atlaswriter.formats.cellucid import payload as payloads
from atlaswriter.formats.cellucid.job import Job
from atlaswriter.formats.cellucid.options import Options
from atlaswriter.formats.cellucid.payload import Payload, segment_room
from atlaswriter.progress import Progress
from atlaswriter.sinks.folder import FolderSink

SEGMENT = 1 << 10


@pytest.fixture(autouse=True)
def small_segments(monkeypatch):
    monkeypatch.setattr(payloads, "SEGMENT_BYTES", SEGMENT)
    monkeypatch.setattr(jobs, "SEGMENT_BYTES", SEGMENT)


def written(folder, level, write, n_cells=10):
    """What one file holds, as stored, and the bytes that progress was told of."""
    done = []
    progress = Progress(show=False)
    progress.add = done.append
    with FolderSink(folder, force=True) as sink, Team(1, Budget()) as team:
        write(Job(n_cells, Options(compression=level), team, sink, progress))
        sink.publish()
    return (folder / "file").read_bytes(), sum(done)


def inflated(stored, level):
    if level is None:
        return stored
    decoder = zlib.decompressobj(31)
    content = decoder.decompress(stored)
    assert decoder.eof
    assert not decoder.unused_data
    return content


contents = pytest.mark.parametrize(
    "content",
    [
        np.empty(0, np.uint8),
        np.zeros(SEGMENT, np.uint8),
        np.arange(SEGMENT + 1).astype(np.uint8),
        np.repeat(np.arange(40, dtype=np.uint32), 31),
        np.arange(3 * SEGMENT, dtype=np.uint16) // 7,
        np.random.default_rng(0).normal(size=(700, 3)).astype(np.float32),
        np.random.default_rng(1).normal(size=400),
    ],
    ids=lambda content: f"{content.dtype}-{content.size}",
)
levels = pytest.mark.parametrize("level", [None, 1, 6, 9])


@contents
@levels
@pytest.mark.parametrize("how", ["write", "write_small"])
def test_payload(tmp_path, content, level, how):
    payload = Payload.of(content)
    stored, told = written(tmp_path / "out", level, lambda job: getattr(job, how)("file", payload))
    assert inflated(stored, level) == content.tobytes()
    assert told == content.nbytes
    sizes = [rows.stop - rows.start for rows in payload.segments()]
    assert sum(sizes) == content.shape[0]
    assert all(size * payload.row_bytes <= SEGMENT for size in sizes)
    np.testing.assert_array_equal(payload.whole(), content)


@contents
@levels
@pytest.mark.parametrize("encoder", ["plain", "repeats"])
def test_growing_file_is_that_of_the_payload(tmp_path, content, level, encoder):
    content = content.ravel()

    def grow(step):
        def write(job):
            with job.growing("file", getattr(job, encoder), content.dtype) as add:
                for first in range(0, content.size, step):
                    add(content[first : first + step])

        return written(tmp_path / f"out {step}", level, write)

    found = {grow(step) for step in (1, 7, 100, 129, 10**6)}
    assert len(found) == 1
    ((stored, told),) = found
    assert inflated(stored, level) == content.tobytes()
    assert told == content.nbytes
    if encoder == "plain":
        whole, _ = written(tmp_path / "whole", level, lambda job: job.write("file", Payload.of(content)))
        assert whole == stored


def test_stream_of_more_than_4_gib():
    """The size in the trailer wraps; here without the bytes."""
    stream = gzip.Stream()
    stream.add(b"abc")
    stream._size += 2**32
    assert stream.trailer() == b"\x03\x00" + zlib.crc32(b"abc").to_bytes(4, "little") + (3).to_bytes(4, "little")


@pytest.mark.parametrize("encode", [gzip.segment, gzip.segment_small])
@pytest.mark.parametrize("level", range(1, 10))
def test_segments_end_at_a_byte_and_know_nothing_of_each_other(encode, level):
    rng = np.random.default_rng(level)
    parts = [rng.integers(0, 9, size).astype(np.uint8) for size in (0, 1, 5000, 70_000)]
    stream = gzip.Stream()
    segments = []
    for part in parts:
        stream.add(part)
        segments.append(encode(part, level))
        assert zlib.decompressobj(-15).decompress(segments[-1]) == part.tobytes()
    assert zlib.decompress(b"".join([stream.header, *segments, stream.trailer()]), 31) == b"".join(
        part.tobytes() for part in parts
    )


def test_room_of_a_segment():
    assert segment_room(10, 4) < segment_room(10**9, 4) < 7 * SEGMENT + (1 << 17)
