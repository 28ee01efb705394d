"""Files that many processes write and read: the same genes as from memory, and no damage goes unnoticed."""

import errno
import os
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from atlaswriter.engine import spill as engine_spill
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.columns import Rules
from atlaswriter.engine.parts import ShareFile, Sorting, share_name, write_share, write_shares
from atlaswriter.engine.regroup import InMemory
from atlaswriter.engine.rows import rows_of
from atlaswriter.engine.run import Team
from atlaswriter.engine.sorted import SortedGenes, spilled
from atlaswriter.engine.spill import reading_room, writing_room
from atlaswriter.engine.strategy import choose, give_out, hand_out, layout_of, least_room, spill_sizes
from atlaswriter.errors import InputError, OutputError
from atlaswriter.formats.cellucid.values import ValueEncoder
from atlaswriter.kernels import quantize
from atlaswriter.sources.base import Compressed

N, G = 60, 20
GENES = np.random.default_rng(9).permutation(G)[:17]
# Uneven, two without rows, none the first in its place.
SHARES = [(31, 32), (0, 31), (32, 32), (32, 57), (57, 60), (60, 60)]
ENCODERS = {"8 bit": ValueEncoder(N, 8, "nearest").rules, "truncate": ValueEncoder(N, 16, "truncate").rules}


def as_float32(bounds):
    zeros = np.zeros(len(bounds), np.uint32)
    return Rules(np.zeros((len(bounds), 3)), quantize.FLOAT32, 0, bounds.copy(), zeros)


ENCODERS["float32"] = as_float32


def example(dtype=np.float32, index=np.int32, repeats=False):
    """CSR with missing values, signed zeros, a gene that only one share has, and one without entries."""
    rng = np.random.default_rng(3)
    matrix = sp.random_array((N, G), density=0.4, format="lil", rng=rng)
    matrix[:, GENES[2]], matrix[:, GENES[3]] = 0, 0
    matrix[58, GENES[2]] = -3.25
    matrix = matrix.tocsr()
    data, indices, indptr = matrix.data.astype(dtype), matrix.indices.astype(index), matrix.indptr.astype(index)
    if np.dtype(dtype).kind == "f":
        data[[5, 50]], data[[7, 200]], data[[9, 90, 300]] = np.nan, [np.inf, -np.inf], -0.0
    if repeats:  # in rows 33 to 56 alone
        first, last = indptr[33], indptr[57]
        indices[first + 1 : last : 3] = indices[first : last - 1 : 3]
    return Compressed((N, G), indptr, indices, data, 0, "X")


def columns(grouping, found=None):
    """Every gene of a grouping: entries, count, missing, and how it was coded."""
    found = {} if found is None else found
    for batch in grouping.batches(1 << 30):
        for piece in batch.pieces():
            read = batch.read(piece)
            assert np.array_equal(np.diff(read.offsets), batch.sizes[piece])
            for place in range(len(read)):
                one, position = read[place : place + 1], batch.first + piece.start + place
                assert position not in found
                bounds = None if one.rules.bounds is None else one.rules.bounds.tobytes()
                coded = (one.rules.table.tobytes(), bounds, one.rules.backgrounds.tobytes())
                found[position] = (one.entries.tobytes(), one.n_missing.tolist(), coded)
    return found


def in_memory(matrix, make_rules=as_float32, genes=GENES):
    with Team(1, Budget()) as team:
        return columns(InMemory(rows_of(matrix), genes, make_rules, team, lambda size: None))


def sorting_of(matrix, run="run 1", part_entries=40, n_ranges=5):
    return Sorting.of(rows_of(matrix), GENES, part_entries, n_ranges, run)


def write(matrix, folder, shares=SHARES, sorting=None):
    for share in shares:
        write_share(rows_of(matrix), sorting or sorting_of(matrix), share, folder, lambda size: None)


def opened(matrix, folder, make_rules=as_float32, first=0, last=None, shares=SHARES, piece_entries=60, **options):
    sorting = options.get("sorting") or sorting_of(matrix)
    return SortedGenes(sorting, shares, folder, make_rules, piece_entries, first, last)


# --- the same genes


@pytest.mark.parametrize("coded", ENCODERS)
@pytest.mark.parametrize("repeats", [False, True], ids=["", "repeats"])
@pytest.mark.parametrize(("dtype", "index"), [("f4", "i4"), ("f4", "i8"), ("f8", "i4"), ("i4", "i8")])
def test_the_same_as_from_memory(dtype, index, repeats, coded, tmp_path):
    matrix = example(dtype, index, repeats)
    expected = in_memory(matrix, ENCODERS[coded])
    assert expected.keys() == set(range(GENES.size))
    write(matrix, tmp_path)
    write(matrix, tmp_path, SHARES[::-2])  # again, some
    assert {path.name for path in tmp_path.iterdir()} == {share_name(share) for share in SHARES}
    assert columns(opened(matrix, tmp_path, ENCODERS[coded])) == expected
    # Each gene by somebody; ranges of genes that are no ranges of the files too.
    cuts, found = [0, 1, 3, 3, 10, 11, GENES.size], {}
    for first, last in reversed(list(pairwise(cuts))):
        told = []

        def make_rules(bounds, told=told):
            told.append(len(bounds))
            return ENCODERS[coded](bounds)

        grouping = opened(matrix, tmp_path, make_rules, first, last)
        assert told == [last - first] == [grouping.sizes.size]
        columns(grouping, found)
    assert found == expected


@pytest.mark.parametrize("piece_entries", [1, 10**6])
@pytest.mark.parametrize("n_ranges", [1, 17, 100])
@pytest.mark.parametrize("part_entries", [1, 10**6])
def test_any_sizes(part_entries, n_ranges, piece_entries, tmp_path):
    matrix = example(repeats=True)
    sorting = sorting_of(matrix, "", part_entries, n_ranges)
    write(matrix, tmp_path, sorting=sorting)
    grouping = opened(matrix, tmp_path, sorting=sorting, piece_entries=piece_entries)
    assert columns(grouping) == in_memory(matrix)
    assert len(grouping.pieces()) >= (min(n_ranges, GENES.size) if piece_entries > 1 else 15)


@pytest.mark.parametrize("workers", [1, 3])
def test_through_a_team(workers, tmp_path):
    matrix, told = example(repeats=True), []
    expected = in_memory(matrix)
    with Team(workers, Budget()) as team:
        rows = rows_of(matrix)
        size = write_shares(rows, sorting_of(matrix), SHARES, tmp_path, team, told.append)
        assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
        assert sum(told) >= 8 * matrix.nnz * 0.8
        local = spilled(rows, GENES, as_float32, team, tmp_path / "scratch", 40, 5, 60, told.append)
        again = spilled(rows, GENES, as_float32, team, tmp_path / "scratch", 40, 5, 60, told.append)
        assert local.spill_bytes == sum(path.stat().st_size for path in tmp_path.glob("scratch/*/*")) / 2
        for grouping in (local, again, opened(matrix, tmp_path)):
            found, taken = {}, []

            def room(batch, piece, taken=taken):
                taken.append(batch.room(piece))
                return taken[-1]

            def write_genes(batch, piece, found=found):
                read = batch.read(piece)
                found.update(
                    {batch.first + piece.start + k: read[k : k + 1].entries.tobytes() for k in range(len(read))}
                )

            hand_out(grouping, team, 0, room, write_genes)
            assert found == {position: entries for position, (entries, *_) in expected.items()}
            assert min(taken) > 0
    assert team.budget.peak >= max(taken)


def test_no_rows_and_no_genes(tmp_path):
    matrix = Compressed((0, G), np.zeros(1, int), np.zeros(0, int), np.zeros(0, "f4"), 0, "X")
    grouping = opened(matrix, tmp_path, shares=[])
    assert [len(entries) for entries, *_ in columns(grouping).values()] == [0] * GENES.size
    matrix = example()
    sorting = Sorting.of(rows_of(matrix), GENES[:0], 40, 5)
    write(matrix, tmp_path, sorting=sorting)
    assert columns(opened(matrix, tmp_path, sorting=sorting)) == {}


class MadeInChunks:
    """What a sparse dask array is to the engine."""

    def __init__(self, matrix, starts):
        self.shape, self.dtype, self.where, self.entries = matrix.shape, matrix.data.dtype, "X", matrix.nnz
        self._whole = sp.csr_array((matrix.data, matrix.indices, matrix.indptr), shape=matrix.shape)
        self.starts = starts

    def chunk(self, position):
        rows = self._whole[self.starts[position] : self.starts[position + 1]]
        return Compressed(rows.shape, rows.indptr, rows.indices, rows.data, 0, "X")


def test_made_in_chunks(tmp_path):
    matrix = example(repeats=True)
    chunks = MadeInChunks(matrix, [0, 31, 32, 40, 57, 60])
    write(chunks, tmp_path, sorting=sorting_of(matrix))
    assert columns(opened(matrix, tmp_path)) == in_memory(matrix)
    changed = MadeInChunks(matrix, [0, 30, 60])
    with pytest.raises(InputError, match=r"X: rows 32 to 57 cannot be read by themselves.* → the matrix has changed"):
        write(changed, tmp_path, [(32, 57)], sorting_of(matrix))
    assert columns(opened(matrix, tmp_path)) == in_memory(matrix)  # as before


# --- several processes

_WRITER = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import importlib
test = importlib.import_module("test_parts")
matrix = test.example(repeats=True)
print("ready", flush=True)
for _ in range(int(sys.argv[3])):
    test.write(matrix, test.Path(sys.argv[2]), test.SHARES[:: int(sys.argv[4])])
"""


def start(folder, times, step):
    """A process that writes all shares so many times."""
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", _WRITER, here, str(folder), str(times), str(step)]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def test_processes_write_the_same_shares_at_once(tmp_path):
    """One of them is killed, and this one reads what it likes meanwhile."""
    matrix = example(repeats=True)
    expected, folder = in_memory(matrix), tmp_path / "parts"
    folder.mkdir()
    writers = [start(folder, 12, 1), start(folder, 10**9, -1)]
    try:
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        end = time.monotonic() + 60
        while not all((folder / share_name(share)).exists() for share in SHARES) and time.monotonic() < end:
            time.sleep(0.01)
        assert columns(opened(matrix, folder)) == expected
        time.sleep(0.05)
        writers[1].send_signal(signal.SIGKILL)
        while any(writer.poll() is None for writer in writers):
            write(matrix, folder, SHARES[::-1])
            assert columns(opened(matrix, folder)) == expected
        assert [writer.wait() for writer in writers] == [0, -signal.SIGKILL]
    finally:
        for writer in writers:
            writer.kill()
            writer.wait()
            writer.stdout.close()
    left = {path.name for path in folder.iterdir()} - {share_name(share) for share in SHARES}
    assert len(left) <= 1
    assert all(name.startswith(".rows-") for name in left)
    assert columns(opened(matrix, folder)) == expected


def test_what_a_killed_writer_left_does_no_harm(tmp_path):
    matrix = example()
    (tmp_path / f".{share_name(SHARES[0])}-0123456789abcdef").write_bytes(b"half a file")
    write(matrix, tmp_path)
    assert columns(opened(matrix, tmp_path)) == in_memory(matrix)


@pytest.mark.parametrize("after", [0, 3, 40])
def test_a_full_disk_leaves_what_was_there(after, tmp_path, monkeypatch):
    matrix, share = example(repeats=True), SHARES[3]
    write(matrix, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    calls, write_all = [], engine_spill._write_all

    def some(descriptor, content):
        calls.append(content)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(descriptor, content)

    monkeypatch.setattr(engine_spill, "_write_all", some)
    with pytest.raises(OutputError, match=r"temporary files cannot be written \(No space left.*needed so far"):
        write(matrix, tmp_path, [share])
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_errors_of_the_source_are_its_own(tmp_path):
    """A disk that the matrix cannot be read from is not the one that is written to."""
    matrix = example()

    class Broken:
        shape, dtype, grain, overhead, speed = matrix.data.shape, matrix.data.dtype, 1, 0, 1e9

        def __getitem__(self, key):
            raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output") as caught:
        write(
            Compressed(matrix.shape, matrix.indptr, matrix.indices, Broken(), 0), tmp_path, sorting=sorting_of(matrix)
        )
    assert not isinstance(caught.value, OutputError)
    assert not list(tmp_path.iterdir())


# --- damage


def test_a_missing_file(tmp_path):
    matrix = example()
    write(matrix, tmp_path)
    name = share_name(SHARES[2])
    (tmp_path / name).unlink()
    with pytest.raises(OutputError, match=rf"{name}: this temporary file is missing → run the task again"):
        opened(matrix, tmp_path)
    (tmp_path / share_name(min(SHARES))).unlink()
    with pytest.raises(OutputError, match="missing → run again"):
        opened(matrix, tmp_path, sorting=sorting_of(matrix, ""))


@pytest.mark.parametrize("shares", [SHARES[:-2], SHARES[1:], [*SHARES, (0, 31)], [], [(0, 70), (70, 60)]])
def test_shares_that_are_not_all_rows_once(shares, tmp_path):
    with pytest.raises(InputError, match=r"shares of rows: do not have each of 60 rows once → plan again"):
        opened(example(), tmp_path, shares=shares)


def test_a_file_of_another_run(tmp_path):
    matrix = example()
    others = [
        sorting_of(matrix, "run 2"),
        sorting_of(matrix, part_entries=41),
        sorting_of(matrix, n_ranges=4),
        sorting_of(example("f8")),
        Sorting.of(rows_of(matrix), GENES[::-1], 40, 5, "run 1"),
    ]
    for other in others:
        write(matrix, tmp_path)
        write(matrix if other.dtype == "f4" else example("f8"), tmp_path, [SHARES[1]], other)
        with pytest.raises(OutputError, match=rf"{share_name(SHARES[1])}.*belongs to another run → run the task again"):
            opened(matrix, tmp_path)
    write(matrix, tmp_path)
    (tmp_path / share_name(SHARES[4])).write_bytes((tmp_path / share_name(SHARES[0])).read_bytes())
    with pytest.raises(OutputError, match=rf"{share_name(SHARES[4])}.*belongs to another run"):
        opened(matrix, tmp_path)


def test_any_change_of_a_file_is_noticed(tmp_path):
    """A byte of every table, frame and record, of the footer each; the file is named."""
    matrix, share = example(), SHARES[4]
    write(matrix, tmp_path)
    path = tmp_path / share_name(share)
    content = path.read_bytes()
    for place in [*range(0, len(content) - 88, 5), *range(len(content) - 88, len(content))]:
        path.write_bytes(content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :])
        with pytest.raises(OutputError, match=rf"{share_name(share)}: .* → run the task again"):
            columns(opened(matrix, tmp_path))
    for changed in [*(content[:end] for end in range(0, len(content), 29)), content + b"\0", bytes(len(content))]:
        path.write_bytes(changed)
        with pytest.raises(OutputError, match=rf"{share_name(share)}: .*(cut short|changed).* → run the task again"):
            columns(opened(matrix, tmp_path))
    write(matrix, tmp_path, [share])
    assert path.read_bytes() == content
    assert columns(opened(matrix, tmp_path)) == in_memory(matrix)


def test_only_own_genes_are_read(tmp_path):
    """Whatever happened to the others."""
    matrix, sorting = example(), sorting_of(example())
    expected = in_memory(matrix)
    for number, (first, last) in enumerate(pairwise(sorting.cuts.tolist())):
        write(matrix, tmp_path)
        for share in SHARES:
            spoil_all_frames_but(number, ShareFile(tmp_path, sorting, share), tmp_path / share_name(share))
        found = columns(opened(matrix, tmp_path, first=first, last=last))
        assert found == {position: expected[position] for position in range(first, last)}
        with pytest.raises(OutputError, match="was changed"):
            columns(opened(matrix, tmp_path))


def spoil_all_frames_but(number, file, path):
    content, kept = bytearray(path.read_bytes()), []
    for begin in file._directory[:, 1].tolist():
        ends = np.frombuffer(content, "<i8", 5 * 5, begin).reshape(5, 5)
        kept.append((begin + ends[number, 0], begin + ends[number, 3]))
        for one, row in enumerate(ends.tolist()):
            if one != number:
                content[begin + row[0] : begin + row[3]] = bytes(row[3] - row[0])
    assert len(kept) == len(file._directory)
    path.write_bytes(content)


def test_files_that_change_between_opening_and_reading(tmp_path):
    """Also to some that are sound, of a matrix with other entries."""
    matrix, other = example(), example(repeats=True)
    write(matrix, tmp_path)
    grouping = opened(matrix, tmp_path)
    write(other, tmp_path)
    with pytest.raises(OutputError, match=r"(was changed|cut short) → run the task again"):
        columns(grouping)
    write(other, tmp_path)  # the one that was noticed is gone
    grouping = opened(other, tmp_path)
    write(matrix, tmp_path)
    with pytest.raises(OutputError, match=r"(was changed|cut short) → run the task again"):
        columns(grouping)
    (tmp_path / share_name(SHARES[0])).unlink()
    with pytest.raises(OutputError, match=r"missing"):
        columns(grouping)


# --- sizes


class Stored:
    """An array elsewhere, of any size: only its header is looked at."""

    grain, overhead, speed = 1, 0, 8e9

    def __init__(self, shape, dtype):
        self.shape, self.dtype = shape, np.dtype(dtype)


def stored_csr(n_cells, n_genes, nnz):
    return Compressed(
        (n_cells, n_genes), *(Stored((n,), t) for n, t in ((n_cells + 1, "i8"), (nnz, "i4"), (nnz, "f4"))), 0
    )


def test_layout_grows_with_the_square_root_of_the_entries():
    for entries in (0, 1, 10**6, 5 * 10**8, 512 << 20):
        assert layout_of(entries) == (4 << 20, 2 << 20)
    for entries in (10**9, 10**10, 10**11, 10**12):
        part, range_ = layout_of(entries)
        assert part * range_ / entries == pytest.approx(16 << 10, rel=1e-5)
        assert part == pytest.approx(2 * range_, abs=2)
    part, range_ = layout_of(10**11)
    assert (-(-(10**11) // part), -(-(10**11) // range_)) == (1747, 3494)


def test_sizes_that_there_is_room_for():
    plenty = 1 << 50
    assert spill_sizes(stored_csr(10**6, 10**4, 5 * 10**8), 2, plenty) == (4 << 20, 2 << 20)
    assert spill_sizes(stored_csr(10**8, 20_000, 10**11), 2, plenty) == layout_of(10**11)
    assert spill_sizes(stored_csr(10, 10, 30), 2, plenty) == (30, 30)
    assert spill_sizes(stored_csr(10, 10, 0), 2, plenty) == (1, 1)
    for n_cells, n_genes, nnz in ((10**6, 10**4, 5 * 10**8), (10**8, 20_000, 10**11), (4000, 100, 10**5)):
        matrix = stored_csr(n_cells, n_genes, nnz)
        for workers in (1, 2, 16):
            least = least_room(matrix, n_genes, workers, "spill")
            before = 0, 0
            for room in np.geomspace(least, 1 << 40, 12).astype(int).tolist():
                part, range_ = spill_sizes(matrix, workers, room)
                assert writing_room(matrix, workers, part) <= room
                assert reading_room(matrix, 1, part, range_) <= room
                assert part >= before[0]
                assert range_ == min(part, layout_of(nnz)[1])
                assert part <= layout_of(nnz)[0]
                before = part, range_


def test_parts_become_smaller_first():
    matrix, (part, range_) = stored_csr(10**8, 20_000, 10**11), layout_of(10**11)
    most, less, least = (spill_sizes(matrix, 16, 16 << bits) for bits in (31, 30, 28))
    assert most == (part, range_)
    assert range_ < less[0] < part
    assert less[1] == range_
    assert least[0] == least[1] < range_


def test_memory_of_tasks():
    matrix = stored_csr(10**6, 10**4, 5 * 10**8)
    assert writing_room(matrix, 3, 4 << 20) == 3 * writing_room(matrix, 1, 4 << 20)
    # Indices and values as read; gaps and values, and these packed.
    assert writing_room(matrix, 1, 4 << 20) - writing_room(matrix, 1, 0) == (4 << 20) * (8 + 16)
    assert reading_room(matrix, 1, 1 << 20, 2 << 20) == (2 << 20) * 8 + (1 << 20) * 24
    assert reading_room(matrix, 1, 1 << 20, 1 << 10) == 10**6 * 8 + (1 << 20) * 24  # a gene in every cell
    assert reading_room(matrix, 3, 1 << 20, 2 << 20) == 3 * (2 << 20) * 8 + (1 << 20) * 24


def test_no_more_is_taken_than_planned(tmp_path):
    """What pieces ask for stays inside of what was said before."""
    matrix = example()
    choice = choose(matrix, GENES.size, 1, least_room(matrix, GENES.size, 1, "spill"), "spill")
    taken = []

    def room(batch, piece):
        taken.append(batch.room(piece))
        return taken[-1]

    with Team(1, Budget()) as team:
        size = give_out(
            matrix, GENES, as_float32, team, choice, lambda: tmp_path, room, lambda batch, piece: batch.read(piece)
        )
    assert size == sum(path.stat().st_size for path in tmp_path.glob("*/rows-*"))
    assert 0 < max(taken) <= choice.gene_room
    assert choice.gene_room == reading_room(matrix, 1, choice.part_entries, choice.range_entries)
    assert choice.room == writing_room(matrix, 1, choice.part_entries)
    assert os.listdir(tmp_path)
