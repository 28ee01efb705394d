"""Zip and tar files: members equal what was put in; nothing that is written in an archive is trusted."""

import contextlib
import gzip
import io
import itertools
import os
import random
import struct
import tarfile
import threading
import time
import zipfile
import zlib

import pytest

from atlaswriter.errors import AtlasWriterError, InputError, Problem
from atlaswriter.sources import members, unpacked
from atlaswriter.sources.archives import Archive, archive_kind, is_zarr
from atlaswriter.sources.files import File
from atlaswriter.sources.unpacked import Unpacker

NOISE = random.Random(0).randbytes(300_000)
BLANK = bytes(3_000_000)
CONTENT = {"noise.bin": NOISE, "blank.bin": BLANK, "empty": b"", "a/b.txt": b"text " * 5000, "µ.txt": b"micro"}


@pytest.fixture(autouse=True)
def no_thread_stays():
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.fixture
def scratch(tmp_path):
    path = tmp_path / "scratch"
    path.mkdir()
    return path


@pytest.fixture
def unpacker(scratch):
    with Unpacker(lambda: scratch) as made:
        yield made
    assert list(scratch.iterdir()) == []


def zip_file(path, content, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return File(path, name="a.zip")


def tar_file(path, content, mode="w:gz", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, data in content.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return File(path, name="a.trk")


def made(kind, path, content=CONTENT):
    if kind in ("deflated", "stored"):
        return zip_file(path, content, zipfile.ZIP_DEFLATED if kind == "deflated" else zipfile.ZIP_STORED)
    return tar_file(path, content, "w:gz" if kind == "gzip" else "w")


KINDS = ["deflated", "stored", "gzip", "tar"]
ZIPS = ["deflated", "stored"]


@pytest.mark.parametrize("kind", KINDS)
def test_members(tmp_path, unpacker, scratch, kind):
    file = made(kind, tmp_path / "a")
    assert archive_kind(file) == {"gzip": "gzip", "tar": "tar"}.get(kind, "zip")
    archive = Archive(file, unpacker)
    assert archive.names == tuple(CONTENT)
    for name, data in CONTENT.items():
        assert archive.size(name) == len(data)
        assert archive.read_small(name, 10**7) == data
        member = archive.open(name)
        assert (member.size, member.name) == (len(data), f"{file.name}: {name}")
        assert member.read(0, len(data)) == data
        first, last = sorted(random.Random(1).sample(range(len(data) + 1), 2)) if data else (0, 0)
        assert member.read(first, last - first) == data[first:last]
        part = member.part(first, last - first, "part")
        assert part.read(0, last - first) == data[first:last]
        with pytest.raises(OSError, match="truncated"):
            member.read(1, len(data))
        member.ready()
        with open(member.path, "rb") as whole:
            whole.seek(member.offset)
            assert whole.read(member.size) == data
    unpacker.verify()
    files = {"deflated": len(CONTENT), "gzip": 1}.get(kind, 0)
    assert len(list(scratch.iterdir())) == files
    with pytest.raises(InputError, match=r"has no 'c'.*noise\.bin"):
        archive.open("c")
    with pytest.raises(InputError, match="more than the 10 B that are read"):
        archive.read_small("noise.bin", 10)


@pytest.mark.parametrize("kind", KINDS)
def test_part_of_a_file(tmp_path, unpacker, kind):
    """An archive inside another file, and after other bytes."""
    made(kind, tmp_path / "inner")
    inner = (tmp_path / "inner").read_bytes()
    for outer_kind in KINDS:
        outer = Archive(made(outer_kind, tmp_path / outer_kind, {"first": b"1", "inner": inner}), unpacker)
        archive = Archive(outer.open("inner"), unpacker)
        assert {name: archive.open(name).read(0, archive.size(name)) for name in archive.names} == CONTENT
    unpacker.verify()


@pytest.mark.parametrize("kind", KINDS)
def test_without_isal(tmp_path, unpacker, kind, monkeypatch):
    monkeypatch.setattr(unpacked, "_codec", zlib)
    archive = Archive(made(kind, tmp_path / "a"), unpacker)
    for name, data in CONTENT.items():
        assert archive.read_small(name, 10**7) == archive.open(name).read(0, len(data)) == data
    if kind == "deflated":
        corrupted(tmp_path / "a", lambda content: content.__setitem__(slice(39, 44), b"\xff" * 5))
        with pytest.raises(InputError, match="cannot be read"):
            Archive(File(tmp_path / "a"), unpacker).open("noise.bin").ready()


def test_zip_after_other_bytes(tmp_path, unpacker):
    zip_file(tmp_path / "a.zip", CONTENT)
    (tmp_path / "b.zip").write_bytes(b"PK\3\4 a program" + (tmp_path / "a.zip").read_bytes())
    archive = Archive(File(tmp_path / "b.zip"), unpacker)
    assert archive.read_small("noise.bin", 10**6) == NOISE


def test_written_as_a_stream(tmp_path, unpacker):
    """Sizes follow the content then."""

    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *_):
            raise OSError

        def tell(self):
            raise OSError

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in CONTENT.items():
            archive.writestr(name, data)
    (tmp_path / "a.zip").write_bytes(pipe.getvalue())
    archive = Archive(File(tmp_path / "a.zip"), unpacker)
    assert {name: archive.open(name).read(0, archive.size(name)) for name in archive.names} == CONTENT


def test_gzip_of_several_members(tmp_path, unpacker):
    tar_file(tmp_path / "a.tar", CONTENT, "w")
    plain = (tmp_path / "a.tar").read_bytes()
    cuts = [0, 10, 10, 500_000, len(plain)]
    pieces = [gzip.compress(plain[first:last]) for first, last in itertools.pairwise(cuts)]
    (tmp_path / "a.trk").write_bytes(b"".join(pieces))
    archive = Archive(File(tmp_path / "a.trk"), unpacker)
    assert {name: archive.read_small(name, 10**7) for name in archive.names} == CONTENT


@pytest.mark.parametrize("kind", KINDS)
def test_additions_of_macos_and_windows_are_left_out(tmp_path, unpacker, kind):
    names = ["./y.npy", "__MACOSX/._y.npy", "a/.DS_Store", "Thumbs.db", "._z"]
    archive = Archive(made(kind, tmp_path / "a", dict.fromkeys(names, b"1")), unpacker)
    assert archive.names == ("y.npy",)
    assert archive.read_small("y.npy", 1) == b"1"


def test_long_names_and_folders_in_tar(tmp_path, unpacker):
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        name = "folder/" + "x" * 300
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as archive:
            folder = tarfile.TarInfo("folder")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b"abc"))
        archive = Archive(File(tmp_path / "a.tar"), unpacker)
        assert archive.names == (name,)
        assert archive.read_small(name, 3) == b"abc"


# --- reading while it grows


def slow(pieces, gate):
    def give():
        for number, piece in enumerate(pieces):
            if number:
                gate.wait(10)
            yield piece

    return give


def test_reading_waits_for_the_bytes(unpacker):
    gate = threading.Event()
    file = unpacker.unpack(slow([b"abc", b"def"], gate), "slow", 6, size=6, crc=zlib.crc32(b"abcdef")).open()
    assert file.read(0, 3) == b"abc"
    found = []
    reader = threading.Thread(target=lambda: found.append(file.part(1, 5, "part").read(3, 2)))
    reader.start()
    reader.join(0.1)
    assert reader.is_alive()
    gate.set()
    reader.join(5)
    assert found == [b"ef"]
    file.ready()


def test_closing_stops_threads_and_wakes_readers(scratch):
    gate = threading.Event()
    endless = (bytes(1 << 16) for _ in itertools.count() if not gate.wait(0.001))
    unpacker = Unpacker(lambda: scratch)
    file = unpacker.unpack(lambda: endless, "endless", 1 << 40).open()
    waiting = [unpacker.unpack(lambda: iter([b"1"]), f"queued {n}", 1).open() for n in range(3)]
    failed = []

    def read(each):
        try:
            each.ready()
        except InputError as error:
            failed.append(str(error))

    readers = [threading.Thread(target=read, args=[each]) for each in [file, *waiting]]
    for reader in readers:
        reader.start()
    file.read(0, 1 << 17)
    start = time.monotonic()
    unpacker.close()
    for reader in readers:
        reader.join(5)
    assert time.monotonic() - start < 5
    assert any("endless: was closed while it was still read" in text for text in failed)
    assert list(scratch.iterdir()) == []
    unpacker.close()  # again


def test_errors_of_the_thread_reach_every_reader(unpacker, scratch):
    def broken():
        yield b"abc"
        raise InputError(Problem("it", "is broken"))

    def out_of_memory():
        raise MemoryError
        yield b""

    short = r"ends after 2 of 3"
    for pieces, text in ((out_of_memory, r"cannot be unpacked \(MemoryError\)"), (lambda: iter([b"ab"]), short)):
        file = unpacker.unpack(pieces, "it", 3, size=3).open()
        part = file.part(0, 3, "part")
        for use, *arguments in ((file.ready,), (file.read, 0, 3), (part.read, 1, 2), (file.available, 3)):
            with pytest.raises(InputError, match=text):
                use(*arguments)
    with pytest.raises(InputError, match="2 problems"):
        unpacker.verify()
    file = unpacker.unpack(broken, "it", 3).open()
    with pytest.raises(InputError, match="it: is broken"):
        file.ready()


def test_a_full_disk(unpacker, scratch, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unpacked.os, "write", full)
    file = unpacker.unpack(lambda: iter([b"ab"]), "it", 3).open()
    with pytest.raises(InputError, match=r"cannot be unpacked \(No space left on device\) → free some space"):
        file.ready()


def free_space(monkeypatch, n):
    class Usage:
        free = n

    monkeypatch.setattr(unpacked.shutil, "disk_usage", lambda path: Usage)


def test_more_than_fits_on_the_disk_is_not_begun(tmp_path, unpacker, scratch, monkeypatch):
    archive = Archive(made("deflated", tmp_path / "a"), unpacker)
    free_space(monkeypatch, 2_000_000)
    with pytest.raises(InputError, match=r"blank\.bin: would take 2\.86 MiB unpacked, 1\.91 MiB are free"):
        archive.open("blank.bin").ready()
    assert list(scratch.iterdir()) == []
    # What others are promised counts.
    gate = threading.Event()
    free_space(monkeypatch, 3_200_000)
    unpacker.unpack(slow([b"a", bytes(249_999)], gate), "slow", 250_000, size=250_000)
    with pytest.raises(InputError, match="would take"):
        archive.open("blank.bin").ready()
    gate.set()
    unpacker.verify()
    archive.open("blank.bin").ready()


def test_unknown_size_that_fills_the_disk(tmp_path, unpacker, monkeypatch):
    monkeypatch.setattr(unpacked, "_LOOK_EVERY", 1 << 20)
    free_space(monkeypatch, 1 << 20)
    with pytest.raises(InputError, match=r"fills the disk: \d+ bytes"):
        Archive(made("gzip", tmp_path / "a"), unpacker)


# --- what is refused


def corrupted(path, change):
    content = bytearray(path.read_bytes())
    change(content)
    path.write_bytes(content)
    return File(path, name=path.name)


def central(content, number=0):
    """Where an entry of the list of members begins."""
    place = content.find(b"PK\1\2")
    for _ in range(number):
        place = content.find(b"PK\1\2", place + 4)
    return place


def set_field(offset, form, value, number=0):
    def change(content):
        struct.pack_into(form, content, central(content, number) + offset, value)

    return change


NAMES = ["../up", "a/../../up", "/etc/passwd", "C:\\x", "C:x", "a\\b", "\\\\host\\share\\x"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_names_that_lead_elsewhere(tmp_path, unpacker, kind, name):
    with pytest.raises(InputError, match="names lead elsewhere") as refused:
        Archive(made(kind, tmp_path / "a", {"X.npy": b"1", name: b"2"}), unpacker)
    assert repr(name)[1:-1] in str(refused.value).replace("\\\\\\\\", "\\\\")


def test_names_with_nul(tmp_path, unpacker):
    zip_file(tmp_path / "a.zip", {"X?.npy": b"1"})
    (tmp_path / "a.zip").write_bytes((tmp_path / "a.zip").read_bytes().replace(b"X?", b"X\0"))
    file = File(tmp_path / "a.zip")
    with pytest.raises(InputError, match="names lead elsewhere"):
        Archive(file, unpacker)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("second", ["a", "./a"])
def test_two_members_of_one_name(tmp_path, unpacker, kind, second):
    path = tmp_path / "a"
    if kind in ZIPS:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a", b"1")
            archive.writestr(second, b"2")
    else:
        with tarfile.open(path, "w:gz" if kind == "gzip" else "w") as archive:
            archive.addfile(tarfile.TarInfo("a"))
            archive.addfile(tarfile.TarInfo(second))
    with pytest.raises(InputError, match=r"several members of one name: ..?'a'"):
        Archive(File(path), unpacker)


def test_everything_at_once(tmp_path, unpacker):
    zip_file(tmp_path / "a.zip", {"../a": b"1", "b": b"2", "c": b"3"})

    def change(content):
        set_field(8, "<H", 1, 1)(content)
        set_field(10, "<H", 14, 2)(content)

    with pytest.raises(InputError) as refused:
        Archive(corrupted(tmp_path / "a.zip", change), unpacker)
    assert len(refused.value.problems) == 3
    assert "'b': is encrypted → write the archive again without a password" in str(refused.value)
    assert "'c': is compressed by lzma" in str(refused.value)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(tmp_path, unpacker, method):
    with pytest.raises(InputError, match=r"is compressed by (bzip2|lzma) → .*deflate"):
        Archive(zip_file(tmp_path / "a.zip", CONTENT, method), unpacker)


def test_more_than_deflate_can_make(tmp_path, unpacker):
    zip_file(tmp_path / "a.zip", {"a": bytes(1000)})
    file = corrupted(tmp_path / "a.zip", set_field(24, "<I", 100_000_000))
    with pytest.raises(InputError, match=r"is said to hold 100000000 bytes in \d+"):
        Archive(file, unpacker)


@pytest.mark.parametrize(
    ("size", "text"), [(2_999_000, "goes on after the 2999000"), (3_000_100, "ends after 3000000")]
)
def test_longer_or_shorter_than_declared(tmp_path, unpacker, scratch, size, text):
    zip_file(tmp_path / "a.zip", {"a": BLANK})
    archive = Archive(corrupted(tmp_path / "a.zip", set_field(24, "<I", size)), unpacker)
    member = archive.open("a")
    with pytest.raises(InputError, match=text):
        member.ready()
    with pytest.raises(InputError, match=text):
        member.read(size - 1, 1)
    with pytest.raises(InputError, match=text):
        unpacker.verify()
    with pytest.raises(InputError, match="its size or its CRC differs"):
        archive.read_small("a", 10**7)
    assert all(path.stat().st_size <= 3_000_000 for path in scratch.iterdir())


@pytest.mark.parametrize("kind", ZIPS)
def test_wrong_crc(tmp_path, unpacker, kind):
    made(kind, tmp_path / "a", {"a": NOISE})
    archive = Archive(corrupted(tmp_path / "a", set_field(16, "<I", 7)), unpacker)
    member = archive.open("a")
    if kind == "deflated":
        with pytest.raises(InputError, match="has the CRC"):
            member.read(len(NOISE) - 1, 1)
    with pytest.raises(InputError, match="has the CRC"):
        unpacker.verify()
    with pytest.raises(InputError, match="its CRC differs"):
        archive.read_small("a", 10**6)


def test_wrong_crc_of_gzip(tmp_path, unpacker):
    made("gzip", tmp_path / "a.trk")
    with pytest.raises(InputError, match="cannot be read from"):
        Archive(corrupted(tmp_path / "a.trk", set_from_end(-6)), unpacker)


def set_from_end(place):
    def change(content):
        content[place] ^= 1

    return change


def test_damaged_content(tmp_path, unpacker):
    zip_file(tmp_path / "a.zip", {"a": b"text " * 50_000})

    def change(content):
        content[40:50] = b"\xff" * 10

    member = Archive(corrupted(tmp_path / "a.zip", change), unpacker).open("a")
    with pytest.raises(InputError, match=r"a\.zip: a: .*cannot be read|has the CRC|ends after"):
        member.ready()


@pytest.mark.parametrize("kind", ZIPS)
def test_overlapping_members(tmp_path, unpacker, kind):
    made(kind, tmp_path / "a", {"a": NOISE, "b": NOISE, "c": b"1"})
    for number, offset in ((1, 0), (2, 400), (0, 350)):
        content = (tmp_path / "a").read_bytes()
        (tmp_path / "b").write_bytes(content)
        with pytest.raises(InputError, match="shares bytes with another member"):
            Archive(corrupted(tmp_path / "b", set_field(42, "<I", offset, number)), unpacker)


def test_name_in_front_differs(tmp_path, unpacker):
    zip_file(tmp_path / "a.zip", {"abc": b"1"})

    def change(content):
        content[30:33] = b"xyz"

    with pytest.raises(InputError, match="has another name in front of it: b'xyz'"):
        Archive(corrupted(tmp_path / "a.zip", change), unpacker)


def test_no_header_where_one_should_be(tmp_path, unpacker):
    zip_file(tmp_path / "a.zip", {"abc": b"1", "d": b"2"})

    def change(content):
        struct.pack_into("<H", content, 28, 60_000)

    with pytest.raises(InputError, match="abc: is not where the list of members says"):
        Archive(corrupted(tmp_path / "a.zip", change), unpacker)


@pytest.mark.parametrize("kind", KINDS)
def test_too_many_members(tmp_path, unpacker, kind, monkeypatch):
    file = made(kind, tmp_path / "a")
    monkeypatch.setattr(members, "_MOST_MEMBERS", 4)
    with pytest.raises(InputError, match="more than 4 members"):
        Archive(file, unpacker)


def test_list_of_members_too_large(tmp_path, unpacker, monkeypatch):
    file = made("deflated", tmp_path / "a", {f"{n:0200}": b"" for n in range(600)})
    monkeypatch.setattr(members, "_MOST_LIST_BYTES", 100_000)
    with pytest.raises(InputError, match="is not believed"):
        Archive(file, unpacker)


@pytest.mark.parametrize("kind", KINDS)
def test_cut_short(tmp_path, unpacker, kind):
    path = tmp_path / "a"
    made(kind, path, {"a": NOISE, "b": b"text" * 300})
    whole = path.read_bytes()
    for size in (30, 600, len(whole) // 2, len(whole) - 11_000, len(whole) - 100, len(whole) - 1):
        if kind == "tar" and size > len(whole) - 10_240:
            continue  # only filling is missing
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"cut short|cannot be read from"):
            Archive(File(path), unpacker)


def test_tar_goes_on_with_damage(tmp_path, unpacker):
    """Python's tarfile takes it for the end."""
    tar_file(tmp_path / "a.tar", {"a": b"1", "b": b"2"}, "w")
    with pytest.raises(InputError, match="no member where one should be, at byte 1024"):
        Archive(corrupted(tmp_path / "a.tar", lambda content: content.__setitem__(1030, 7)), unpacker)


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_links_and_devices(tmp_path, unpacker, kind, gz):
    with tarfile.open(tmp_path / "a.tar", "w:gz" if gz else "w") as archive:
        info = tarfile.TarInfo("raw.npy")
        info.type, info.linkname = kind, "/etc/passwd"
        archive.addfile(info)
    with pytest.raises(InputError, match=r"'raw\.npy': is a link, a device or sparse"):
        Archive(File(tmp_path / "a.tar"), unpacker)


def test_link_in_zip(tmp_path, unpacker):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        info = zipfile.ZipInfo("X.npy")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")
    with pytest.raises(InputError, match="is a link"):
        Archive(File(tmp_path / "a.zip"), unpacker)


def header(name, size, kind=b"0"):
    info = tarfile.TarInfo(name)
    info.type = kind
    block = bytearray(info.tobuf())
    number = b"\x80" + size.to_bytes(11, "big") if size >= 0 else size.to_bytes(12, "big", signed=True)
    block[124:136] = number
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L"])
@pytest.mark.parametrize("size", [-1024, -512, 10**10, 2**70])
@pytest.mark.parametrize("gz", [False, True])
def test_sizes_that_cannot_be(tmp_path, unpacker, kind, size, gz):
    content = header("a", size, kind) + bytes(4096)
    (tmp_path / "a").write_bytes(gzip.compress(content) if gz else content)
    with pytest.raises(InputError):
        Archive(File(tmp_path / "a"), unpacker)


def test_gzip_that_goes_on_after_its_tar(tmp_path, unpacker, monkeypatch):
    tar_file(tmp_path / "a.tar", {"a": b"1"}, "w")
    (tmp_path / "a.trk").write_bytes(gzip.compress((tmp_path / "a.tar").read_bytes() + bytes(50_000_000)))
    with pytest.raises(InputError, match="goes on after the"):
        Archive(File(tmp_path / "a.trk"), unpacker)


def test_gzip_that_is_no_tar(tmp_path, unpacker):
    (tmp_path / "a.gz").write_bytes(gzip.compress(b"a" * 10_000))
    with pytest.raises(InputError, match="cannot be read from"):
        Archive(File(tmp_path / "a.gz"), unpacker)


def test_empty_archives(tmp_path, unpacker):
    for kind in KINDS:
        archive = Archive(made(kind, tmp_path / kind, {}), unpacker)
        assert archive.names == ()
        with pytest.raises(InputError, match="it holds no files"):
            archive.open("a")


def test_zarr_in_zip(tmp_path):
    for names, expected in ((["zarr.json"], True), (["a.zarr/.zgroup"], True), (["a/b/zarr.json"], False), ([], False)):
        assert is_zarr(zip_file(tmp_path / "a.zip", dict.fromkeys(names, b""))) is expected


@pytest.mark.parametrize("kind", KINDS)
def test_any_byte_may_be_wrong(tmp_path, scratch, kind):
    """Either refused, or as it was, or, where nothing tells, other content of the same size."""
    content = {"a": b"some text " * 30, "b": NOISE[:200]}
    made(kind, tmp_path / "a", content)
    whole = (tmp_path / "a").read_bytes()
    rng = random.Random(kind)
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    for _ in range(150):
        wrong = bytearray(whole)
        for _ in range(rng.choice([1, 1, 5])):
            wrong[rng.randrange(len(wrong))] = rng.randrange(256)
        (tmp_path / "b").write_bytes(wrong[: rng.randrange(len(wrong))] if rng.random() < 0.2 else wrong)
        with Unpacker(lambda: scratch) as unpacker, contextlib.suppress(AtlasWriterError):
            file = File(tmp_path / "b")
            if archive_kind(file):
                archive = Archive(file, unpacker)
                for name in archive.names:
                    archive.read_small(name, 10**6)
                    archive.open(name).ready()
                unpacker.verify()
        assert list(scratch.iterdir()) == []
    if descriptors:
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 3


@pytest.mark.parametrize("kind", KINDS)
def test_many_members_need_few_descriptors(tmp_path, unpacker, scratch, kind):
    """Thousands of members are opened, over and over, by turns; each is unpacked once."""
    content = {f"{n}.bin": b"%d" % n * 50 for n in range(300)}
    archive = Archive(made(kind, tmp_path / "a", content), unpacker)
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    openers = {name: archive.opener(name) for name in content}
    for _ in range(2):
        assert {name: opener().read(0, archive.size(name)) for name, opener in openers.items()} == content
        assert archive.opener("7.bin") is openers["7.bin"]
    unpacker.verify()
    # Small members of a zip are read as they are inflated.
    assert len(list(scratch.iterdir())) == {"gzip": 1}.get(kind, 0)
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 5
