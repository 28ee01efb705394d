"""The archive sink: what it refuses, the zip files it writes, and what it leaves behind when it fails."""

import errno
import io
import os
import shutil
import stat
import struct
import subprocess
import sys
import threading
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from atlaswriter.codecs import crc, ziprecords
from atlaswriter.errors import OutputError, Problems
from atlaswriter.sinks import archive, fs, lock
from atlaswriter.sinks.archive import ArchiveSink, check_target_file
from atlaswriter.sinks.folder import FolderSink

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX only")

RANDOM = np.random.default_rng(0).integers(0, 256, 100_000, np.uint8)
TEXT = b'{"cell": 1, "value": 2, "t": 3}, ' * 200
NEW = {"X.tiff": b"head" + RANDOM.tobytes() + b"tail", "cells.json": TEXT}


def fill(sink):
    with sink.member("X.tiff", 200_000) as member:
        assert member.append(bytes(4)) == 0
        assert member.append(RANDOM) == 4
        assert member.append(b"tail") == 100_004
        member.fill(b"head")
        assert member.size == 100_008
    sink.write("cells.json", [TEXT[:100], b"", TEXT[100:]])


def export(target, *, force=True):
    with ArchiveSink(target, force=force) as sink:
        fill(sink)
        sink.publish()


def content(path):
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        return {name: file.read(name) for name in file.namelist()}


def tree(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def problems_of(target, *, force=False):
    problems = Problems()
    check_target_file(target, force=force, problems=problems)
    return [str(problem) for problem in problems.found]


def fail(number):
    def failing(*args):
        raise OSError(number, os.strerror(number))

    return failing


def walk(path):
    """Name, version, flags, method, date, CRC, sizes and extra field of every local header, from the first byte on."""
    data = path.read_bytes()
    place, found = 0, []
    while data[place : place + 4] == b"PK\3\4":
        version, flags, method, time, date, check, stored, size, n, m = struct.unpack_from("<5H3I2H", data, place + 4)
        extra = data[place + 30 + n : place + 30 + n + m]
        if stored == 0xFFFFFFFF:
            kind, length, size, stored = struct.unpack("<2H2Q", extra)
            assert (kind, length) == (1, 16)
        found.append((data[place + 30 : place + 30 + n].decode(), version, flags, method, check, stored, size, extra))
        assert (time, date) == (0, 0x21)
        place += 30 + n + m + stored
    assert data[place : place + 4] == b"PK\1\2"  # no data descriptor, no gap
    return found


# --- check_target_file ----------------------------------------------------------------------


def test_absent_targets_are_fine_and_nothing_is_created(tmp_path):
    assert problems_of(tmp_path / "out.zip") == []
    assert problems_of(tmp_path / "a" / "b" / "out.zip") == []
    assert tree(tmp_path) == {}


def test_an_existing_file_needs_force(tmp_path):
    (tmp_path / "out.zip").write_bytes(b"old")
    (problem,) = problems_of(tmp_path / "out.zip")
    assert "already exists → pass force=True (--force) to replace it, or choose another file" in problem
    assert problems_of(tmp_path / "out.zip", force=True) == []


@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_ordinary_file_is_refused(tmp_path, monkeypatch, force):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, found in {
        "folder": "is a folder",
        "/": "is a folder",
        "..": "is a folder",
        "link": "is a symbolic link",
        "dangling": "is a symbolic link",
        "loop": "is a symbolic link",
        "file/below": f"{tmp_path / 'file'} is not a folder",
        "file/a/b": f"{tmp_path / 'file'} is not a folder",
        "x" * 230: "longer than",
        "nul\0": "cannot be used",
    }.items():
        (problem,) = problems_of(tmp_path / name, force=force)
        assert found in problem


@posix
def test_devices_and_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for target in (tmp_path / "pipe", Path(os.devnull)):
        (problem,) = problems_of(target, force=True)
        assert "is not an ordinary file" in problem


def test_an_unwritable_parent_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    (problem,) = problems_of(tmp_path / "a" / "out.zip")
    assert f"{tmp_path} is not writable" in problem
    assert "choose another file" in problem


def test_the_longest_name_that_is_let_through_works(tmp_path):
    target = tmp_path / ("x" * 229)
    assert problems_of(target) == []
    export(target, force=False)
    assert content(target) == NEW


# --- the file -------------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("before", ["absent", "missing parents", "old"])
def test_publish(tmp_path, before, force, caplog):
    target = tmp_path / "a" / "out.zip"
    if before != "missing parents":
        target.parent.mkdir()
    if before == "old":
        target.write_bytes(b"old")
    if before == "old" and not force:
        with pytest.raises(OutputError, match="already exists"):
            export(target, force=False)
        assert tree(target.parent) == {"out.zip": b"old"}
        return
    with ArchiveSink(target, force=force) as sink:
        fill(sink)
        stored = dict(sink.files)
        assert sink.bytes_written == sum(stored.values())
        sink.publish()
        assert sorted(os.listdir(target.parent)) == [".out.zip.atlaswriter.lock", "out.zip"]
    assert os.listdir(target.parent) == ["out.zip"]
    assert content(target) == NEW
    with zipfile.ZipFile(target) as file:
        assert stored == {info.filename: info.compress_size for info in file.infolist()}
        assert [info.compress_type for info in file.infolist()] == [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]
    assert stored["X.tiff"] == 100_008
    assert 0 < stored["cells.json"] < len(TEXT) / 10
    assert sink.zip64 == []
    assert caplog.text == ""


def test_headers_say_everything_in_front_of_the_member(tmp_path):
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        fill(sink)
        sink.write("empty.json", [])
        with sink.member("empty.bin", 0):
            pass
        sink.write("größe.json", [b"1"])
        sink.publish()
    padding = struct.pack("<3H14x", 0xD935, 16, 1)
    expected = {**NEW, "empty.json": b"", "empty.bin": b"", "größe.json": b"1"}
    assert content(tmp_path / "out.zip") == expected
    for name, version, flags, method, check, stored, size, extra in walk(tmp_path / "out.zip"):
        assert version == 20
        assert flags == (0 if name.isascii() else 0x800)
        assert size == len(expected[name])
        assert check == zlib.crc32(expected[name])
        assert (method, extra) == ((8, padding) if name.endswith(".json") else (0, b""))
        assert stored == sink.files[name]
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        for info in file.infolist():
            assert (info.create_system, info.create_version, info.extract_version) == (3, 45, 20)
            assert info.external_attr >> 16 == stat.S_IFREG | 0o644
            assert info.date_time == (1980, 1, 1, 0, 0, 0)
            assert info.extra == b""


@pytest.mark.skipif(not shutil.which("unzip"), reason="needs unzip")
@pytest.mark.parametrize("limit", [0xFFFFFFFF, 50_000])
def test_unzip_reads_it(tmp_path, monkeypatch, limit):
    monkeypatch.setattr(ziprecords, "LIMIT", limit)
    export(tmp_path / "out.zip")
    done = subprocess.run(["unzip", "-t", tmp_path / "out.zip"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No errors detected" in done.stdout
    assert "warning" not in done.stdout + done.stderr


def test_the_same_members_give_the_same_bytes(tmp_path):
    pieces = np.random.default_rng(1).integers(0, 20, 3 << 20, np.uint8).tobytes()
    files = []
    for step in (1 << 24, 1 << 20, 777_777, 4096):
        with ArchiveSink(tmp_path / f"{step}.zip", force=False) as sink:
            sink.write("a", (pieces[i : i + step] for i in range(0, len(pieces), step)))
            sink.publish()
        files.append((tmp_path / f"{step}.zip").read_bytes())
    assert len(set(files)) == 1
    assert content(tmp_path / "4096.zip") == {"a": pieces}
    assert len(files[0]) < 0.8 * len(pieces)


def test_content_is_taken_piece_by_piece(tmp_path, monkeypatch):
    """Nothing waits for the end of the content."""
    monkeypatch.setattr(archive, "_SEGMENT", 1000)
    written = []
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:

        def pieces():
            for i in range(50):
                written.append(os.path.getsize(sink._file))
                yield RANDOM[i * 500 : (i + 1) * 500].tobytes()

        sink.write("a", pieces())
        sink.publish()
    assert written == sorted(written)
    assert written[-1] > 20_000
    assert content(tmp_path / "out.zip") == {"a": RANDOM[:25_000].tobytes()}


def test_arrays_and_empty_buffers(tmp_path):
    values = np.arange(12, dtype="<u2").reshape(3, 4)
    nothing = np.empty((0, 3), "<f4")
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        with sink.member("stored", 100) as member:
            assert [member.append(buffer) for buffer in (nothing, b"", bytes(2), values, nothing)] == [0, 0, 0, 2, 26]
            member.fill(b"ab")
        sink.write("deflated", [values, nothing, memoryview(b"end")])
        sink.publish()
    raw = values.tobytes()
    assert content(tmp_path / "out.zip") == {"stored": b"ab" + raw, "deflated": raw + b"end"}


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_permissions_follow_the_umask(tmp_path, mask):
    previous = os.umask(mask)
    try:
        export(tmp_path / "out.zip")
    finally:
        os.umask(previous)
    assert stat.S_IMODE((tmp_path / "out.zip").stat().st_mode) == 0o666 & ~mask


def test_short_writes_are_completed(tmp_path, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, buffer: write(descriptor, buffer[:777]))
    export(tmp_path / "out.zip")
    assert content(tmp_path / "out.zip") == NEW


# --- first bytes that are known last --------------------------------------------------------


@pytest.mark.parametrize("n_after", [0, 1, 3, 70_000])
@pytest.mark.parametrize(("n_prefix", "n_first"), [(0, 1), (1, 1), (1, 8), (8, 8), (8, 500), (499, 500), (500, 500)])
def test_fill(tmp_path, n_first, n_after, n_prefix):
    prefix, after = RANDOM[:n_prefix].tobytes(), RANDOM[:n_after].tobytes()
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        sink.write("before", [b"x"])
        with sink.member("file", 1 << 40) as member:
            member.append(bytes(n_first))
            member.append(after[:2])
            member.append(after[2:])
            member.fill(prefix)
            assert member.append(b"end") == n_first + n_after
        sink.publish()
    whole = prefix + bytes(n_first - n_prefix) + after + b"end"
    assert content(tmp_path / "out.zip")["file"] == whole


def test_only_zeros_are_filled_and_once(tmp_path):
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        with sink.member("data", 100) as member:
            with pytest.raises(ValueError, match="no 1 zeros"):
                member.fill(b"x")
            member.append(b"\0\0\1")
            with pytest.raises(ValueError, match="no 2 zeros"):
                member.fill(b"ab")
        with sink.member("zeros", 100) as member:
            member.append(bytes(4))
            member.append(bytes(4))
            with pytest.raises(ValueError, match="no 5 zeros"):
                member.fill(b"abcde")
            member.fill(b"abc")
            with pytest.raises(ValueError, match="no 3 zeros"):
                member.fill(b"abc")
        sink.publish()
    assert content(tmp_path / "out.zip") == {"data": b"\0\0\1", "zeros": b"abc\0\0\0\0\0"}


def test_crc_of_filled_content_far_behind():
    """Twin: the CRC of the zeros that follow, taken over them."""
    zeros = bytes(1 << 20)
    expected = crc.crc32(b"abc")
    before = crc.crc32(bytes(3))
    for n in range(1, 40):
        expected, before = crc.crc32(zeros, expected), crc.crc32(zeros, before)
        assert crc.filled(before, b"abc", n << 20) == expected


# --- large archives -------------------------------------------------------------------------


def test_zip64_records_where_needed_and_only_there(tmp_path, monkeypatch):
    """With a limit of 1000 bytes: which member gets which records."""
    monkeypatch.setattr(ziprecords, "LIMIT", 1000)
    parts = {"small": b"s" * 10, "bounded": b"b" * 500, "large": b"l" * 1000, "behind": b"z" * 5, "deflated": b""}
    parts["deflated"] = RANDOM[:1200].tobytes()
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        for name, most in (("small", 999), ("bounded", 2000), ("large", 2000), ("behind", 10)):
            with sink.member(name, most) as member:
                member.append(bytes(2))
                member.append(parts[name][2:])
                member.fill(parts[name][:2])
        sink.write("deflated", [parts["deflated"]])
        assert sink.zip64 == ["large", "behind", "deflated"]
        sink.publish()
    assert content(tmp_path / "out.zip") == parts
    headers = {header[0]: header for header in walk(tmp_path / "out.zip")}
    padding = struct.pack("<3H14x", 0xD935, 16, 1)
    assert {name: header[1] for name, header in headers.items()} == {
        "small": 20, "bounded": 20, "large": 45, "behind": 45, "deflated": 45,
    }  # fmt: skip
    assert headers["small"][-1] == headers["behind"][-1] == b""
    assert headers["bounded"][-1] == padding
    assert headers["large"][-1] == struct.pack("<2H2Q", 1, 16, 1000, 1000)
    assert headers["deflated"][-1] == struct.pack("<2H2Q", 1, 16, 1200, sink.files["deflated"])
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        needed = {info.filename: (info.extract_version, len(info.extra)) for info in file.infolist()}
    assert needed == {"small": (20, 0), "bounded": (20, 0), "large": (45, 20), "behind": (45, 12), "deflated": (45, 28)}


@pytest.mark.parametrize(("limit", "zip64"), [(1000, True), (100_000, False)])
def test_only_an_archive_that_needs_it_ends_in_zip64_records(tmp_path, monkeypatch, limit, zip64):
    monkeypatch.setattr(ziprecords, "LIMIT", limit)
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        with sink.member("a", 2000) as member:
            member.append(RANDOM[:1500])
        sink.publish()
    data = (tmp_path / "out.zip").read_bytes()
    assert (data[-42:-38] == b"PK\6\7") is zip64
    assert (data[-98:-94] == b"PK\6\6") is zip64
    assert content(tmp_path / "out.zip") == {"a": RANDOM[:1500].tobytes()}


def test_a_member_larger_than_said_is_refused_where_its_size_would_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(ziprecords, "LIMIT", 1000)
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        with sink.member("a", 10) as member:
            member.append(bytes(999))  # more than was said, but it fits
            with pytest.raises(ValueError, match="a: 1000 bytes are more than"):
                member.append(b"x")
        sink.publish()
    assert content(tmp_path / "out.zip") == {"a": bytes(999)}


def test_more_members_than_ordinary_records_can_count(tmp_path):
    count = 0xFFFF + 3
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        for i in range(count):
            with sink.member(str(i), 1) as member:
                member.append(b"%d" % (i % 10))
        sink.publish()
    assert (tmp_path / "out.zip").read_bytes()[-42:-38] == b"PK\6\7"
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        assert file.namelist() == [str(i) for i in range(count)]
        assert file.read(str(count - 1)) == b"%d" % ((count - 1) % 10)


@posix
def test_a_member_above_4_gib(tmp_path, monkeypatch):
    """Its zeros are a hole in the file, so that it costs no disk."""
    part, write = np.zeros(256 << 20, np.uint8), os.write

    def hole(descriptor, buffer):
        if len(buffer) < 1 << 20:
            return write(descriptor, buffer)
        os.lseek(descriptor, len(buffer), os.SEEK_CUR)
        return len(buffer)

    monkeypatch.setattr(os, "write", hole)
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        with sink.member("big", 5 << 30) as member:
            member.append(bytes(16))
            for _ in range(17):
                member.append(part)
            assert member.append(b"end") == 16 + 17 * part.size
            member.fill(b"sixteen bytes...")
        sink.write("behind", [b"small"])
        assert sink.zip64 == ["big", "behind"]
        sink.publish()
    assert (tmp_path / "out.zip").stat().st_blocks * 512 < 1 << 30
    expected = crc.crc32(b"sixteen bytes...")
    for _ in range(17):
        expected = crc.crc32(part, expected)
    with zipfile.ZipFile(tmp_path / "out.zip") as file:
        big = file.getinfo("big")
        assert big.file_size == big.compress_size == 16 + 17 * part.size + 3
        assert crc.crc32(b"end", expected) == big.CRC
        assert file.read("behind") == b"small"
        with file.open("big") as stream:
            assert stream.read(20) == b"sixteen bytes...\0\0\0\0"


# --- names ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", ".", "..", "/etc/x", "../x", "a/../../x", "a//x", "a/", "\\x", "C:x", "nul\0"])
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        with pytest.raises(OutputError, match="does not name a file inside the export"):
            sink.write(name, [b"x"])
        with pytest.raises(OutputError, match="does not name a file inside"), sink.member(name, 1):
            pytest.fail("entered")
        sink.write("a/b", [b"x"])  # being refused broke nothing
        sink.publish()
    assert content(tmp_path / "out.zip") == {"a/b": b"x"}


def test_a_name_is_written_once(tmp_path):
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        sink.write("a", [b"first"])
        with pytest.raises(OutputError, match=r"out.zip.a: this name was written before"):
            sink.write("a", [b"second"])
        with pytest.raises(OutputError, match="written before"), sink.member("a", 1):
            pytest.fail("entered")
        sink.publish()
    assert content(tmp_path / "out.zip") == {"a": b"first"}


# --- nothing by halves ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
@pytest.mark.parametrize("old", [False, True])
def test_without_publish_nothing_changes(tmp_path, error, old):
    target = tmp_path / "a" / "b" / "out (1) [a].zip"
    if old:
        target.parent.mkdir(parents=True)
        target.write_bytes(b"old")
    before = tree(tmp_path)
    try:
        with ArchiveSink(target, force=True) as sink:
            fill(sink)
            (sink.scratch() / "spilled").write_bytes(b"x")
            assert tree(tmp_path) != before
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as caught:
        assert type(caught) is error  # noqa: PT017
    assert tree(tmp_path) == before


def test_scratch_goes_where_it_is_told(tmp_path):
    (tmp_path / "fast").mkdir()
    with ArchiveSink(tmp_path / "out.zip", force=False, spill_dir=tmp_path / "fast") as sink:
        assert sink.scratch().parent == tmp_path / "fast"
        fill(sink)
        sink.publish()
    assert os.listdir(tmp_path / "fast") == []


def test_descriptors_are_closed(tmp_path):
    opened = []
    for publish in (True, False):
        with ArchiveSink(tmp_path / "out.zip", force=True) as sink:
            fill(sink)
            opened.append(sink._descriptor)
            if publish:
                sink.publish()
        assert sink._descriptor == -1
    for descriptor in opened:
        with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
            os.fstat(descriptor)


@pytest.mark.parametrize("way", ["stored", "deflated", "nested", "inside"])
def test_an_archive_with_half_a_member_is_not_published(tmp_path, way):
    def torn():
        yield b"x" * 100
        raise RuntimeError("no more")

    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        sink.write("whole", [b"x"])
        if way == "stored":
            with pytest.raises(RuntimeError), sink.member("half", 100) as member:  # noqa: PT012
                member.append(b"x")
                raise RuntimeError
        elif way == "deflated":
            with pytest.raises(RuntimeError):
                sink.write("half", torn())
        else:
            work = {"nested": lambda: sink.write("other", [b"x"]), "inside": sink.publish}[way]
            with pytest.raises(OutputError, match="not written to its end"), sink.member("half", 100):
                work()
        for attempt in (sink.publish, lambda: sink.write("next", [b"x"])):
            with pytest.raises(OutputError, match=r"half: was not written to its end → run again"):
                attempt()
    assert os.listdir(tmp_path) == []


def test_a_member_that_has_ended_takes_nothing_more(tmp_path):
    with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
        with sink.member("a", 100) as member:
            member.append(bytes(4))
        with pytest.raises(ValueError, match="ended"):
            member.append(b"x")
        with pytest.raises(ValueError, match="ended"):
            member.fill(b"x")
        sink.publish()
        with pytest.raises(OutputError):
            sink.publish()
    assert content(tmp_path / "out.zip") == {"a": bytes(4)}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda file: os.truncate(file, 1000), r"out.zip .written: \d+ bytes, on disk: 1000 bytes"),
        (lambda file: file.unlink(), "out.zip .written: .* on disk: no such file"),
        (lambda file: file.with_name("new").touch(), "new .written: no such file, on disk: 0 bytes"),
    ],
)
@posix
def test_damage_to_what_is_staged_is_found(tmp_path, monkeypatch, damage, named):
    (tmp_path / "out.zip").write_bytes(b"old")
    directory = ziprecords.directory
    with ArchiveSink(tmp_path / "out.zip", force=True) as sink:
        fill(sink)
        monkeypatch.setattr(ziprecords, "directory", lambda *given: (damage(sink._file), directory(*given))[1])
        if "1000 bytes" in named:  # an append would extend the file again
            monkeypatch.setattr(fs, "append", lambda descriptor, buffer: len(buffer))
        with pytest.raises(OutputError, match=named):
            sink.publish()
    assert tree(tmp_path) == {"out.zip": b"old"}


# --- a target that changes meanwhile --------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "last"])
def test_a_file_that_appeared_is_not_replaced_without_force(tmp_path, monkeypatch, moment):
    target = tmp_path / "out.zip"
    rename_new = fs.rename_new
    if moment == "last":
        monkeypatch.setattr(fs, "rename_new", lambda old, new: (new.write_bytes(b"other"), rename_new(old, new)))
    with ArchiveSink(target, force=False) as sink:
        fill(sink)
        if moment == "before":
            target.write_bytes(b"other")
        with pytest.raises(OutputError, match=r"already exists → pass force=True"):
            sink.publish()
    assert tree(tmp_path) == {"out.zip": b"other"}


@posix
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("appears", [True, False])
def test_without_force_also_where_the_system_cannot_rename_with_a_condition(tmp_path, monkeypatch, links, appears):
    target = tmp_path / "out.zip"
    monkeypatch.setattr(fs, "_from_libc", lambda name: None)
    if not links:
        monkeypatch.setattr(os, "link", fail(errno.EPERM))
    rename_new = fs.rename_new
    if appears:
        monkeypatch.setattr(fs, "rename_new", lambda old, new: (new.write_bytes(b"other"), rename_new(old, new)))
        with pytest.raises(OutputError, match="already exists"):
            export(target, force=False)
        assert tree(tmp_path) == {"out.zip": b"other"}
    else:
        export(target, force=False)
        assert os.listdir(tmp_path) == ["out.zip"]
        assert target.stat().st_nlink == 1
        assert content(target) == NEW


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["link", "dangling", "folder"])
def test_a_folder_or_link_that_appeared_is_not_replaced(tmp_path, force, kind):
    (tmp_path / "other").write_bytes(b"other")
    with ArchiveSink(tmp_path / "out.zip", force=force) as sink:
        fill(sink)
        if kind == "folder":
            (tmp_path / "out.zip").mkdir()
        else:
            (tmp_path / "out.zip").symlink_to("other" if kind == "link" else "nowhere")
        with pytest.raises(OutputError, match=f"{tmp_path / 'out.zip'}: is a"):
            sink.publish()
    assert sorted(os.listdir(tmp_path)) == ["other", "out.zip"]
    assert (tmp_path / "other").read_bytes() == b"other"
    assert (tmp_path / "out.zip").is_dir() == (kind == "folder")


def test_a_reader_of_the_old_file_keeps_it(tmp_path):
    export(tmp_path / "out.zip")
    with zipfile.ZipFile(tmp_path / "out.zip") as old:
        with ArchiveSink(tmp_path / "out.zip", force=True) as sink:
            sink.write("other", [b"x"])
            sink.publish()
        assert old.read("cells.json") == TEXT
    assert content(tmp_path / "out.zip") == {"other": b"x"}


# --- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_any_failing_write_leaves_the_old_file(tmp_path, monkeypatch, number):
    """Every write of the run fails once: headers, content, header again, list of members."""
    (tmp_path / "out.zip").write_bytes(b"old")
    write, messages = os.write, []
    for nth in range(1, 50):
        calls = []

        def failing(descriptor, buffer, calls=calls, nth=nth):
            calls.append(1)
            if len(calls) < nth:
                return write(descriptor, buffer)
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(os, "write", failing)
        try:
            export(tmp_path / "out.zip")
            break
        except OutputError as error:
            messages.append(str(error))
        assert tree(tmp_path) == {"out.zip": b"old"}
    assert content(tmp_path / "out.zip") == NEW
    assert len(messages) == 11
    for message in messages:
        assert os.strerror(number) in message
        assert ("needed so far → free space, or choose a file on another disk" in message) == (number != errno.EIO)
    assert str(tmp_path / "out.zip" / "X.tiff") in messages[2]
    if number != errno.EIO:
        assert "97.7 KiB needed" in messages[2]
    assert f"{tmp_path / 'out.zip'}: cannot be published" in messages[-1]


@pytest.mark.parametrize("failing", ["create", "append", "overwrite", "file_sizes", "sync_file", "replace", "sync_dir"])
def test_any_failing_primitive_leaves_a_whole_file_and_nothing_else(tmp_path, monkeypatch, failing):
    (tmp_path / "out.zip").write_bytes(b"old")
    monkeypatch.setattr(fs, failing, fail(errno.EIO))
    with pytest.raises(OutputError) as caught:
        export(tmp_path / "out.zip")
    assert str(tmp_path / "out.zip") in str(caught.value)
    assert os.strerror(errno.EIO) in str(caught.value)
    published = failing == "sync_dir"
    assert ("is in place and complete" in str(caught.value)) == published
    assert os.listdir(tmp_path) == ["out.zip"]
    if published:
        assert content(tmp_path / "out.zip") == NEW
    else:
        assert (tmp_path / "out.zip").read_bytes() == b"old"


@posix
@pytest.mark.parametrize("publish", [True, False])
def test_a_failing_close_matters_only_when_publishing(tmp_path, monkeypatch, publish):
    """A network disk may say only then that something was not written."""
    (tmp_path / "out.zip").write_bytes(b"old")
    close = os.close
    with ArchiveSink(tmp_path / "out.zip", force=True) as sink:
        fill(sink)
        descriptor = sink._descriptor

        def failing(given):
            close(given)
            if given == descriptor:  # the number may be used again
                monkeypatch.setattr(os, "close", close)
                raise OSError(errno.EIO, os.strerror(errno.EIO))

        monkeypatch.setattr(os, "close", failing)
        if publish:
            with pytest.raises(OutputError, match="cannot be published"):
                sink.publish()
    assert os.close is close
    assert tree(tmp_path) == {"out.zip": b"old"}


def test_publishing_syncs_before_and_after(tmp_path, monkeypatch):
    calls = []
    for name in ("sync_file", "replace", "rename_new", "sync_dir", "remove_tree"):
        original = getattr(fs, name)
        monkeypatch.setattr(
            fs, name, lambda *args, name=name, original=original: (calls.append((name, args[-1])), original(*args))[1]
        )
    target = tmp_path / "a" / "out.zip"
    for force, rename, folders in (
        (False, "rename_new", [target.parent, tmp_path]),
        (True, "replace", [target.parent]),
    ):
        calls.clear()
        with ArchiveSink(target, force=force) as sink:
            fill(sink)
            sink.publish()
        where = [path for name, path in calls if name == "sync_dir"]
        kept = [call for call in calls if call[1] not in where or call[0] == "sync_dir"]
        assert where == folders
        assert [name for name, _ in kept][:2] == ["sync_file", rename]
        assert {name for name, _ in kept[2 : 2 + len(folders)]} == {"sync_dir"}


# --- leftovers and other writers ------------------------------------------------------------


def test_leftovers_of_dead_runs_are_removed_and_nothing_else(tmp_path):
    mine = [".out.zip.atlaswriter-0123abcd", ".out.zip.atlaswriter-tmp-0123abcd"]
    others = [".out.zip.atlaswriter-0123abcd.bak", ".out2.zip.atlaswriter-0123abcd", ".out.zip.atlaswriter-x"]
    for name in mine + others:
        (tmp_path / name).mkdir()
        (tmp_path / name / "out.zip").write_bytes(b"half")
    (tmp_path / ".out.zip.atlaswriter.lock").touch()
    with ArchiveSink(tmp_path / "out.zip", force=True):
        assert not any((tmp_path / name).exists() for name in mine)
    assert sorted(os.listdir(tmp_path)) == sorted(others)


def test_a_folder_that_was_set_aside_comes_back_and_is_kept(tmp_path):
    """A folder export of the same name was killed between its two renames."""
    (tmp_path / ".out.atlaswriter-old-00000001").mkdir()
    (tmp_path / ".out.atlaswriter-old-00000001" / "file").write_bytes(b"precious")
    with pytest.raises(OutputError, match="is a folder"):
        export(tmp_path / "out")
    assert tree(tmp_path) == {"out": None, "out/file": b"precious"}


HOLDER = """
import sys
from pathlib import Path
from atlaswriter.sinks.archive import ArchiveSink
with ArchiveSink(Path(sys.argv[1]), force=True) as sink:
    sink.write("file", [b"first"])
    print("holding", flush=True)
    sys.stdin.readline()
    sink.publish()
"""


def test_a_second_writer_is_refused_while_the_first_one_lives(tmp_path):
    target = tmp_path / "out.zip"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "holding\n"
        before = sorted(os.listdir(tmp_path))
        for sink in (ArchiveSink, ArchiveSink, FolderSink):
            with pytest.raises(OutputError, match="another process is writing"), sink(target, force=True):
                pytest.fail("entered")
        assert sorted(os.listdir(tmp_path)) == before
        first.communicate("go on\n")
    assert first.returncode == 0
    assert content(target) == {"file": b"first"}
    export(target)
    assert content(target) == NEW
    assert os.listdir(tmp_path) == ["out.zip"]


def test_without_locks_one_of_two_writers_wins_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_lock", fail(errno.ENOLCK))
    barrier, seen = threading.Barrier(2), []

    def work(name):
        with ArchiveSink(tmp_path / "out.zip", force=False) as sink:
            with sink.member(name, 1 << 20) as member:
                member.append(RANDOM)
            barrier.wait()
            try:
                sink.publish()
                seen.append(name)
            except OutputError as error:
                seen.append(str(error))

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    winner, refusal = sorted(seen, key=len)
    assert "already exists" in refusal
    assert content(tmp_path / "out.zip") == {winner: RANDOM.tobytes()}
    assert os.listdir(tmp_path) == ["out.zip"]


# --- records --------------------------------------------------------------------------------


def test_an_archive_without_members_is_one_too():
    with zipfile.ZipFile(io.BytesIO(ziprecords.directory([], 0))) as file:
        assert file.namelist() == []
