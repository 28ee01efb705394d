"""Records in any order, grouped by key: the same as an obvious dictionary makes of them, wherever they waited."""

import errno
import gc
import os
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from atlaswriter.engine import gather
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.gather import Gathering, Part
from atlaswriter.engine.gathered import Gathered, GatheredFile, filing_room, write_gathered
from atlaswriter.engine.run import Team
from atlaswriter.errors import AtlasWriterError, OutputError

DTYPES = (np.dtype("u2"), np.dtype("u4"), np.dtype("i4"))


def part_of(records, dtypes):
    """A part of {key: one array for each column}; columns may be of different lengths."""
    keys = sorted(records)
    offsets, columns = [], []
    for number, dtype in enumerate(dtypes):
        values = [np.asarray(records[key][number], dtype) for key in keys]
        offsets.append(np.r_[0, np.cumsum([len(one) for one in values], dtype=np.int64)].astype(np.int64))
        columns.append(np.concatenate([*values, np.empty(0, dtype)]))
    return Part(np.array(keys, np.int64), tuple(offsets), tuple(columns))


def random_records(rng, dtypes, *, n_keys=12, most=9, low=-(2**40), equal=False):
    keys = np.unique(np.r_[rng.integers(low, -low, n_keys), rng.integers(-3, 4, n_keys)]).tolist()
    found = {}
    for key in rng.permutation(keys)[: rng.integers(1, len(keys) + 1)].tolist():
        sizes = np.full(len(dtypes), rng.integers(0, most)) if equal else rng.integers(0, most, len(dtypes))
        limits = [(np.iinfo(dtype).min, np.iinfo(dtype).max) for dtype in dtypes]
        found[key] = [rng.integers(*pair, size, endpoint=True) for pair, size in zip(limits, sizes, strict=True)]
    return found


def together(parts, dtypes):
    """The dictionary: records of each key from all parts, in order."""
    found = {}
    for records in parts:
        for key, columns in records.items():
            mine = found.setdefault(key, [[] for _ in dtypes])
            for values, more in zip(mine, columns, strict=True):
                values += list(more)
    return found


def gathered(parts, dtypes, room, folder, *, order=None, threads=1):
    """All parts, added in some order."""
    gathering = Gathering(dtypes, room, lambda: folder)
    numbers = range(len(parts)) if order is None else order

    def add(number):
        gathering.add((number // 2, number % 2), part_of(parts[number], dtypes))

    if threads == 1:
        for number in numbers:
            add(number)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(add, numbers))
    return gathering


def content(gathering, pieces):
    found = {}
    for piece in pieces:
        grouped = gathering.read(piece)
        assert grouped.keys.tolist() == gathering.keys[piece].tolist()
        for column, dtype in zip(grouped.columns, gathering.dtypes, strict=True):
            assert column.dtype == dtype
        for position, key in enumerate(grouped.keys.tolist()):
            assert key not in found
            found[key] = [values.tolist() for values in grouped.of(position)]
    return found


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("share", [0, 0.3, 0.7, 1])
@pytest.mark.parametrize("equal", [False, True])
def test_like_a_dictionary(share, threads, equal, tmp_path):
    rng = np.random.default_rng(7)
    parts = [random_records(rng, DTYPES, equal=equal) for _ in range(15)]
    room = int(share * sum(part_of(one, DTYPES).n_bytes for one in parts))
    gathering = gathered(parts, DTYPES, room, tmp_path / "spill", order=rng.permutation(15).tolist(), threads=threads)
    expected = together(parts, DTYPES)
    assert gathering.keys.dtype == np.int64
    assert gathering.keys.tolist() == sorted(expected)
    assert (gathering.spill_bytes > 0) == (share < 1)
    assert gathering.held <= room
    for number in range(len(DTYPES)):
        assert gathering.sizes(number).tolist() == [len(expected[key][number]) for key in sorted(expected)]
    for size in (1, 50, 333, 10**9):
        pieces = gathering.pieces(size)
        assert [k for piece in pieces for k in range(len(expected))[piece]] == list(range(len(expected)))
        assert content(gathering, pieces) == expected
    for first, last in ((0, 1), (3, 9), (len(expected) - 1, len(expected)), (0, 0)):
        wanted = sorted(expected)[first:last]
        assert content(gathering, [slice(first, last)]) == {key: expected[key] for key in wanted}


@pytest.mark.parametrize("room", [0, 10**6])
def test_order_is_that_of_the_source_whoever_is_first(room, tmp_path):
    """Parts are ordered by number, not by time, and not as text."""
    numbers = [(10, 0), (2, 0), (0, 11), (0, 2), (0, 1), (1, 0)]
    gathering = Gathering(DTYPES[:1], room, lambda: tmp_path / "spill")
    for number in numbers:
        gathering.add(number, part_of({5: [[number[0] * 100 + number[1]]]}, DTYPES[:1]))
    assert gathering.read(slice(0, 1)).columns[0].tolist() == [1, 2, 11, 100, 200, 1000]


@pytest.mark.parametrize("room", [0, 10**6])
def test_nothing_at_all(room, tmp_path):
    gathering = Gathering(DTYPES, room, lambda: tmp_path / "spill")
    assert gathering.keys.tolist() == []
    assert gathering.pieces(100) == []
    assert (gathering.held, gathering.spill_bytes) == (0, 0)
    assert gathering.sizes(0).tolist() == []
    assert gathering.read(slice(0, 0)).keys.tolist() == []
    assert not (tmp_path / "spill").exists()


def test_columns_that_are_empty_everywhere(tmp_path):
    parts = [{-1: [[], [1], []], 4: [[], [], []]}, {4: [[], [], []]}]
    for room in (0, 10**6):
        gathering = gathered(parts, DTYPES, room, tmp_path / str(room))
        assert content(gathering, gathering.pieces(1)) == {-1: [[], [1], []], 4: [[], [], []]}


def test_parts_far_larger_than_a_frame(tmp_path):
    """Keys of a part in many frames, of which only those of the wanted keys are read."""
    rng = np.random.default_rng(0)
    dtypes = (np.dtype("u2"), np.dtype("u4"))
    sizes = rng.integers(0, 3000, 600)
    sizes[100] = 300_000
    records = {
        int(k * 7 - 1000): [rng.integers(0, 2**16, n), rng.integers(0, 2**32, 2 * n)] for k, n in enumerate(sizes)
    }
    gathering = gathered([records, records], dtypes, 0, tmp_path / "spill")
    expected = {key: [list(values) * 2 for values in columns] for key, columns in records.items()}
    for first, last in ((0, 1), (99, 102), (250, 251), (100, 101), (0, 600), (599, 600), (37, 411)):
        grouped = gathering.read(slice(first, last))
        for position, key in enumerate(sorted(expected)[first:last]):
            for ours, other in zip(grouped.of(position), expected[key], strict=True):
                np.testing.assert_array_equal(ours, other)


def test_memory_that_is_held(tmp_path):
    """What fits stays, up to the last byte; later parts that fit stay too, though one before them did not."""
    dtypes = (np.dtype("u2"), np.dtype("u4"))
    small, large = ({k: [[1] * n, [2] * n]} for k, n in ((1, 10), (2, 5000)))
    of_small = part_of(small, dtypes).n_bytes
    assert of_small == 8 + 2 * 16 + 10 * 6
    gathering = gathered([small, large, small], dtypes, 2 * of_small, tmp_path / "spill")
    assert gathering.held == 2 * of_small
    assert 0 < gathering.spill_bytes < 5000 * 6
    assert len(list((tmp_path / "spill").iterdir())) == 1
    gathering = gathered([small, small], dtypes, 2 * of_small - 1, tmp_path / "more")
    assert gathering.held == of_small
    gathering.release()
    assert gathering.held == 0


def test_arrays_that_several_columns_share_are_held_once(tmp_path):
    ends = np.array([0, 100])
    part = Part(np.array([3]), (ends, ends), (np.zeros(100, "u2"), np.zeros(100, "u4")))
    assert part.n_bytes == 8 + 16 + 200 + 400


@pytest.mark.parametrize("room", [0, 10**9])
def test_pieces_are_of_some_bytes_or_single_keys(room, tmp_path):
    rng = np.random.default_rng(1)
    sizes = rng.integers(1, 100, 40)
    sizes[17] = 10_000
    dtypes = (np.dtype("u2"), np.dtype("u4"))
    gathering = gathered([{k: [[0] * n, [1] * n] for k, n in enumerate(sizes)}], dtypes, room, tmp_path / "spill")
    for size in (1, 600, 1000, 5000):
        pieces = gathering.pieces(size)
        for piece in pieces:
            taken = 6 * int(sizes[piece].sum())
            assert taken <= size or piece.stop - piece.start == 1
            assert gathering.room(piece) >= taken
        assert len(pieces) > 1


def test_the_room_of_reading_covers_what_it_takes(tmp_path):
    """Of parts in files: what is decoded for a few keys of many."""
    rng = np.random.default_rng(2)
    dtypes = (np.dtype("u2"), np.dtype("u2"), np.dtype("u2"))
    parts = [{k: [rng.integers(0, 2**16, 2000)] * 3 for k in range(300)} for _ in range(6)]
    for room in (0, 10**9):
        gathering = gathered(parts, dtypes, room, tmp_path / str(room))
        for piece in (slice(0, 1), slice(10, 40), slice(0, 300)):
            gathering.read(piece)
            tracemalloc.start()
            grouped = gathering.read(piece)
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak <= gathering.room(piece) + 200_000
            assert grouped.columns[0].size == 6 * 2000 * (piece.stop - piece.start)


def test_parts_in_files_leave_little_in_memory(tmp_path):
    """Sizes of all keys stay; keys and offsets of each part, where tiles hold few records most of it, do not."""
    keys, ends = np.arange(50_000, dtype=np.int64), np.arange(50_001, dtype=np.int64)
    part = Part(keys, (ends, ends), (np.zeros(50_000, "u2"), np.zeros(50_000, "u4")))
    gathering = Gathering((np.dtype("u2"), np.dtype("u4")), 0, lambda: tmp_path / "spill")
    gathering.add((0, 0), part)
    tracemalloc.start()
    for number in range(1, 9):
        copy = Part(keys.copy(), (ends.copy(), ends.copy()), part.columns)
        gathering.add((number, 0), copy)
        del copy
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < 8 * part.n_bytes / 10
    assert gathering.held == 0


def test_threads_that_read_at_the_same_time(tmp_path):
    rng = np.random.default_rng(3)
    parts = [random_records(rng, DTYPES, n_keys=40, most=200) for _ in range(6)]
    gathering = gathered(parts, DTYPES, sum(part_of(one, DTYPES).n_bytes for one in parts) // 2, tmp_path / "spill")
    expected, start = together(parts, DTYPES), threading.Barrier(8)

    def read(_):
        start.wait()
        return content(gathering, gathering.pieces(500))

    with ThreadPoolExecutor(8) as pool:
        assert all(found == expected for found in pool.map(read, range(8)))


# --- damage


def spilled(folder):
    dtypes = (np.dtype("u2"), np.dtype("u4"))
    parts = [{k: [np.arange(500) % 97, np.arange(500) * 3] for k in range(-2, 3)} for _ in range(2)]
    return gathered(parts, dtypes, 0, folder)


def test_a_temporary_file_cut_short(tmp_path):
    gathering = spilled(tmp_path / "spill")
    for path in (tmp_path / "spill").iterdir():
        path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(OutputError, match="cut short → run again"):
        gathering.read(slice(0, 5))


def test_a_temporary_file_that_lost_its_beginning(tmp_path):
    gathering = spilled(tmp_path / "spill")
    for path in (tmp_path / "spill").iterdir():
        path.write_bytes(b"")
    with pytest.raises(OutputError, match="cut short"):
        gathering.read(slice(2, 3))


def test_a_temporary_file_that_is_gone(tmp_path):
    gathering = spilled(tmp_path / "spill")
    for path in (tmp_path / "spill").iterdir():
        path.unlink()
    with pytest.raises(AtlasWriterError, match="temporary"):
        gathering.read(slice(0, 5))


@pytest.mark.parametrize("what", ["frames", "table"])
def test_a_temporary_file_with_other_bytes(what, tmp_path):
    gathering = spilled(tmp_path / "spill")
    for path in (tmp_path / "spill").iterdir():
        content = bytearray(path.read_bytes())
        part = slice(len(content) // 2, None) if what == "frames" else slice(0, 16)
        content[part] = bytes(255 - byte for byte in content[part])
        path.write_bytes(content)
    with pytest.raises(AtlasWriterError, match="temporary"):
        gathering.read(slice(0, 5))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "spill").write_text("a file is in the way")
    with pytest.raises(OutputError, match="temporary files cannot be written"):
        spilled(tmp_path / "spill")


def test_a_full_disk(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match=r"temporary files cannot be written \(No space left.*--spill-dir"):
        spilled(tmp_path / "spill")


# --- files that many processes write


def written(parts, folder, team, *, n_files=3, run="run"):
    """All parts in so many files, the last one first; what reads them together."""
    folder.mkdir(exist_ok=True)
    names = [f"records-{number}" for number in range(n_files)]
    for number in reversed(range(n_files)):
        share = parts[number * len(parts) // n_files : (number + 1) * len(parts) // n_files]
        gathering = gathered(share, DTYPES, 300, folder / f"spill{number}")
        write_gathered(gathering, folder / names[number], run, {"number": number}, team)
        gathering.release()
        assert (gathering.held, list((folder / f"spill{number}").glob("*"))) == (0, [])
    return [GatheredFile(folder / name, run, DTYPES) for name in names]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("cut_bytes", [1, 200, 1 << 20])
def test_files_everyare_like_a_dictionary(cut_bytes, workers, tmp_path, monkeypatch):
    monkeypatch.setattr(gather, "_FRAME_BYTES", cut_bytes)
    monkeypatch.setattr("atlaswriter.engine.gathered._PIECE_BYTES", 5 * cut_bytes)
    rng = np.random.default_rng(3)
    parts = [random_records(rng, DTYPES, equal=k % 2 == 0) for k in range(11)]
    with Team(workers, Budget("4GiB")) as team:
        files = written(parts, tmp_path / "parts", team, n_files=4)
    assert [file.note["number"] for file in files] == [0, 1, 2, 3]
    every = Gathered(files, DTYPES)
    expected = together(parts, DTYPES)
    assert every.keys.tolist() == sorted(expected)
    for number in range(len(DTYPES)):
        assert every.sizes(number).tolist() == [len(expected[key][number]) for key in sorted(expected)]
    for size in (1, 50, 333, 10**9):
        assert content(every, every.pieces(size)) == expected
    for first, last in ((0, 1), (3, 9), (len(expected) - 1, len(expected)), (0, 0)):
        wanted = sorted(expected)[first:last]
        assert content(every, [slice(first, last)]) == {key: expected[key] for key in wanted}


def test_values_that_are_others_in_each_file(tmp_path):
    """Codes that every process has made up by itself."""
    dtypes = DTYPES[:1]
    files = []
    with Team(1, Budget("4GiB")) as team:
        for number, values in enumerate(([0, 1, 2], [2, 0])):
            gathering = gathered([{7: [values]}], dtypes, 1000, tmp_path / "spill")
            write_gathered(gathering, tmp_path / str(number), "run", None, team)
            files.append(GatheredFile(tmp_path / str(number), "run", dtypes))
    files[1].recoded = {0: np.array([5, 6, 7], "u2")}
    assert content(Gathered(files, dtypes), [slice(0, 1)]) == {7: [[0, 1, 2, 7, 5]]}


def test_a_file_of_nothing(tmp_path):
    with Team(1, Budget("4GiB")) as team:
        (file,) = written([], tmp_path / "parts", team, n_files=1)
    assert Gathered([file], DTYPES).keys.tolist() == []
    assert Gathered([], DTYPES).pieces(10) == []
    assert list(file.pieces(-5, 5)) == []


def test_files_that_are_damaged_or_of_another_run(tmp_path):
    rng = np.random.default_rng(3)
    with Team(1, Budget("4GiB")) as team:
        written([random_records(rng, DTYPES) for _ in range(4)], tmp_path / "parts", team, n_files=2)
    path, other = tmp_path / "parts" / "records-0", tmp_path / "parts" / "records-1"
    good = path.read_bytes()

    def read(run="run"):
        file = GatheredFile(path, run, DTYPES)
        return file.totals(), list(file.pieces(-(2**62), 2**62))

    with pytest.raises(OutputError, match="belongs to another run"):
        read("other")
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        with pytest.raises(OutputError, match="run the task again") as caught:
            read()
        assert path.exists() == ("belongs to another run" in str(caught.value))
    for size in [*range(0, len(good), 37), len(good) - 1]:
        path.write_bytes(good[:size])
        with pytest.raises(OutputError, match="run the task again"):
            read()
    path.write_bytes(other.read_bytes())
    with pytest.raises(OutputError, match="belongs to another run"):
        read()
    path.unlink()
    with pytest.raises(OutputError, match=r"records-0: this temporary file is missing → run the task"):
        read()
    path.mkdir()
    with pytest.raises(OutputError, match="cannot be read"):
        read()


def test_writing_leaves_nothing_when_it_fails(tmp_path, monkeypatch):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "one").write_bytes(b"before")
    gathering = gathered([{7: [[1], [2], [3]]}], DTYPES, 1000, tmp_path / "spill")
    monkeypatch.setattr("atlaswriter.engine.gathered.json.dumps", lambda _: 1 / 0)
    with Team(1, Budget("4GiB")) as team, pytest.raises(ZeroDivisionError):
        write_gathered(gathering, tmp_path / "parts" / "one", "run", None, team)
    assert {path.name: path.read_bytes() for path in (tmp_path / "parts").iterdir()} == {"one": b"before"}


def test_records_are_filed_in_the_room_that_was_said(tmp_path):
    """Also with several threads: what waits in memory beside it is not taken away."""
    part = {k: [[1] * 4000, [2] * 4000, [3] * 4000] for k in range(400)}
    gathering = gathered([part], DTYPES, 10**9, tmp_path / "spill")
    budget = Budget("4GiB")
    with Team(3, budget) as team:
        room = filing_room(gathering, team)
        budget.take(budget.free - room, "all the rest")
        write_gathered(gathering, tmp_path / "one", "run", None, team)
    assert Gathered([GatheredFile(tmp_path / "one", "run", DTYPES)], DTYPES).sizes(0).tolist() == [4000] * 400
