"""Files that are read in blocks: damage met half way, full disks, small budgets; never a change of what was there."""

import errno
import shutil
import threading
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
import zarr

from atlaswriter import cellucid, check
from atlaswriter.cli.main import run
from atlaswriter.engine import rows as engine_rows
from atlaswriter.engine import spill as engine_spill
from atlaswriter.engine import strategy as strategies
from atlaswriter.engine.budget import Budget
from atlaswriter.engine.columns import Rules, split
from atlaswriter.engine.regroup import PIECE_GENES, PIECE_VALUES
from atlaswriter.engine.run import Team
from atlaswriter.errors import BudgetError, InputError, OutputError
from atlaswriter.formats.cellucid import costs, genes, graph, groups, job, payload, ranks
from atlaswriter.formats.cellucid.atlas import Genes
from atlaswriter.kernels import quantize
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sources import lazy, parts
from atlaswriter.sources.base import Compressed
from atlaswriter.sources.memory import matrix_of

N, G, CHUNK = 1500, 40, 1024
V2 = {} if zarr.__version__.startswith("2.") else {"zarr_format": 2}
KINDS = ["h5ad", "zarr"]
FIXED = {"created_at": "2026-01-01T00:00:00Z", "dataset_id": "a", "dataset_name": "a"}


def example(form="csr", matrix=None):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"type": pd.Categorical(list("abc") * (N // 3)), "score": rng.random(N)})
    table.index = [f"c{i}" for i in range(N)]
    x = sp.random_array((N, G), density=0.3, format="csr", dtype=np.float32, rng=rng) if matrix is None else matrix
    adata = anndata.AnnData(sp.csr_matrix((N, G), dtype=np.float32), table)
    adata.obsm["X_umap"], adata.obsm["X_pca"] = rng.random((N, 2)), rng.random((N, 4))
    neighbours = sp.random_array((N, N), density=0.004, format="csr", rng=rng)
    return adata, x.toarray() if form == "dense" else x.asformat(form), neighbours


def opened(path, mode):
    return h5py.File(path, mode) if path.suffix == ".h5ad" else zarr.open_group(str(path), mode=mode, **V2)


@contextmanager
def changing(path):
    tree = opened(path, "r+")
    yield tree
    if path.suffix == ".h5ad":
        tree.close()


def stored(folder, kind, form="csr", matrix=None):
    """An atlas in a file, with matrices in several chunks."""
    adata, x, neighbours = example(form, matrix)
    path = folder / f"a.{kind}"
    tree = opened(path, "w")
    anndata.io.write_elem(tree, "/", adata)
    del tree["X"]
    packed = {"compression": "gzip"} if kind == "h5ad" else {}
    chunks = (CHUNK // G, G) if form == "dense" else (CHUNK,)
    anndata.io.write_elem(tree, "X", x, dataset_kwargs={"chunks": chunks, **packed})
    place = {"chunks": (CHUNK,), **packed}
    anndata.io.write_elem(tree.require_group("obsp"), "connectivities", sp.csr_matrix(neighbours), dataset_kwargs=place)
    if kind == "h5ad":
        tree.close()
    return path


def listing(folder):
    """Every file and folder, with the bytes of files."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.fixture
def there(tmp_path):
    """A folder that holds an old export, and nothing else."""
    folder = tmp_path / "there"
    small = anndata.AnnData(np.ones((20, 2), np.float32))
    small.obsm["X_umap"] = np.random.default_rng(1).random((20, 2))
    cellucid(small, folder / "export", graph=False, workers=1)
    return folder


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch):
    """As if everything were large: blocks, parts, batches and segments of some KiB."""
    for module in (lazy, parts):
        monkeypatch.setattr(module, "SMALL_BYTES", -1)
    monkeypatch.setattr(engine_rows.StoredRows.blocks, "__defaults__", (512,))
    monkeypatch.setattr(graph, "_BLOCK_ENTRIES", 512)
    for module in (payload, job):
        monkeypatch.setattr(module, "SEGMENT_BYTES", 4096)
    for name in ("_LEAST_ENTRIES", "_PART_ENTRIES", "_RANGE_ENTRIES"):
        monkeypatch.setattr(strategies, name, 512)
    choose = strategies.choose

    def in_small_batches(*given, **options):
        choice = choose(*given, **options)
        return replace(choice, load=False, batch_room=min(choice.batch_room, 10 * N))

    monkeypatch.setattr(strategies, "choose", in_small_batches)
    # Nothing is kept in memory.
    monkeypatch.setattr(Budget, "keep", lambda self, array, workers: array)


def refused(path, there, *found, error=InputError, exit_code=3, remedy="write it again", **options):
    before = listing(there)
    with pytest.raises(error) as caught:
        cellucid(path, there / "export", force=True, **{"workers": 2} | options)
    assert caught.value.exit_code == exit_code
    message = str(caught.value)
    for part in (*found, " → ", remedy):
        assert part in message
    assert listing(there) == before
    assert check(there / "export").ok
    return message


ways = pytest.mark.parametrize("strategy", ["memory", "spill"])
kinds = pytest.mark.parametrize("kind", KINDS)


@ways
@kinds
@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_in_small_blocks_all_is_well(tmp_path, there, kind, form, strategy):
    """Whatever is refused below is refused for its damage; and blocks, strategies and stores change no byte."""
    adata, x, neighbours = example(form)
    adata.X, adata.obsp["connectivities"] = x if form == "dense" else x.asformat(form), sp.csr_matrix(neighbours)
    cellucid(adata, tmp_path / "from memory", workers=1, **FIXED)
    cellucid(stored(tmp_path, kind, form), there / "export", force=True, workers=2, strategy=strategy, **FIXED)
    assert listing(there / "export") == listing(tmp_path / "from memory")
    assert list(there.iterdir()) == [there / "export"]
    assert check(there / "export").ok


def shorten_last_chunk(path, name):
    """Cut the last chunk of an array short: its end is lost."""
    if path.suffix == ".h5ad":
        with h5py.File(path) as file:
            dataset = file[name]
            chunk = dataset.id.get_chunk_info(dataset.id.get_num_chunks() - 1)
        content = bytearray(path.read_bytes())
        lost = slice(chunk.byte_offset + chunk.size // 2, chunk.byte_offset + chunk.size)
        content[lost] = bytes(lost.stop - lost.start)
        path.write_bytes(content)
        return
    files = [file for file in (path / name).iterdir() if file.name[0].isdigit()]
    last = max(files, key=lambda file: [int(part) for part in file.name.split(".")])
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])


@ways
@kinds
@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("X/data", "csr"),
        ("X/indices", "csr"),
        ("X/data", "csc"),
        ("X", "dense"),
        ("obsp/connectivities/indices", "csr"),
    ],
)
def test_truncated_chunk_at_the_end(tmp_path, there, kind, strategy, name, form):
    path = stored(tmp_path, kind, form)
    shorten_last_chunk(path, name)
    refused(path, there, name, "cannot be read from", path.name, strategy=strategy)


@kinds
@pytest.mark.parametrize("name", ["obs/score", "obs/type/codes", "obsm/X_umap", "obsm/X_pca", "X/indptr"])
def test_truncated_chunk_of_a_table(tmp_path, there, kind, name):
    path = stored(tmp_path, kind)
    with changing(path) as tree:
        values, attributes = tree[name][:], dict(tree[name].attrs)
        del tree[name]
        chunks = (100, *values.shape[1:])
        if kind == "h5ad":
            tree.create_dataset(name, data=values, chunks=chunks, compression="gzip")
        else:
            create = getattr(tree, "create_array", None) or tree.create_dataset
            create(name, shape=values.shape, dtype=values.dtype, chunks=chunks)[...] = values
        tree[name].attrs.update(attributes)
    shorten_last_chunk(path, name)
    refused(path, there, name, "cannot be read from", path.name)


@ways
@kinds
@pytest.mark.parametrize(
    ("matrix", "form", "index"),
    [
        ("X", "csr", G),
        ("X", "csr", -1),
        ("X", "csc", N),
        ("obsp/connectivities", "csr", N),
        ("obsp/connectivities", "csr", 2**31 - 1),
    ],
)
def test_last_index_out_of_range(tmp_path, there, kind, strategy, matrix, form, index):
    path = stored(tmp_path, kind, form)
    with changing(path) as tree:
        indices = tree[f"{matrix}/indices"]
        indices[indices.shape[0] - 1] = index
    where = "X" if matrix == "X" else "obsp['connectivities']"
    refused(path, there, f"{where}: damaged sparse matrix: indices go from", str(index), strategy=strategy)


@kinds
@pytest.mark.parametrize("matrix", ["X", "obsp/connectivities"])
@pytest.mark.parametrize(("place", "value"), [(0, 1), (N - 1, 10**6), (N - 1, -1), (750, 0), (N, 7)])
def test_offsets_that_lie(tmp_path, there, kind, matrix, place, value):
    path = stored(tmp_path, kind)
    with changing(path) as tree:
        tree[f"{matrix}/indptr"][place] = value
    refused(path, there, "damaged sparse matrix: indptr", strategy="spill")


@kinds
def test_fewer_values_than_indices(tmp_path, there, kind):
    path = stored(tmp_path, kind)
    with changing(path) as tree:
        values = tree["X/data"][:-1]
        del tree["X/data"]
        tree["X/data"] = values
    refused(path, there, "X: damaged sparse matrix: there are", "values but")


def untidy(form, rng):
    """A matrix whose entries are in no order and repeat, and what it means."""
    tidy = sp.random_array((N, G), density=0.2, format=form, dtype=np.float32, rng=rng)
    tidy.data = rng.integers(1, 50, tidy.nnz).astype(np.float32)
    major = np.repeat(np.arange(len(tidy.indptr) - 1), np.diff(tidy.indptr))
    twice = rng.random(tidy.nnz) < 0.1
    major, minor = np.r_[major, major[twice]], np.r_[tidy.indices, tidy.indices[twice]]
    values = np.r_[tidy.data, np.full(int(twice.sum()), 3, np.float32)]
    order = rng.permutation(major.size)
    order = order[np.argsort(major[order], kind="stable")]
    indptr = np.r_[0, np.cumsum(np.bincount(major, minlength=len(tidy.indptr) - 1))]
    kind = sp.csr_array if form == "csr" else sp.csc_array
    found = kind((values[order], minor[order].astype(np.int32), indptr), shape=(N, G))
    tidy.data[twice] += 3
    return found, tidy


@ways
@kinds
@pytest.mark.parametrize(("form", "chosen"), [("csr", None), ("csr", ["39", "0", "7"]), ("csc", ["39", "0", "7"])])
def test_unsorted_and_repeated_entries_add_up(tmp_path, there, kind, strategy, form, chosen):
    found, tidy = untidy(form, np.random.default_rng(2))
    options = {"genes": chosen, "graph": False, "workers": 2, **FIXED}
    (tmp_path / "tidy").mkdir()
    cellucid(stored(tmp_path / "tidy", kind, form, tidy), tmp_path / "expected", **options)
    cellucid(stored(tmp_path, kind, form, found), there / "export", force=True, strategy=strategy, **options)
    assert listing(there / "export") == listing(tmp_path / "expected")
    assert list(there.iterdir()) == [there / "export"]


# Full disks


def full(*_):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("after", [0, 1, 50])
@pytest.mark.parametrize("elsewhere", [False, True])
@pytest.mark.parametrize("workers", [1, 2])
def test_disk_full_while_spilling(tmp_path, there, monkeypatch, after, elsewhere, workers):
    written, write_all = [], engine_spill._write_all

    def some(descriptor, content):
        written.append(len(content))
        write_all(descriptor, content) if len(written) <= after else full()

    monkeypatch.setattr(engine_spill, "_write_all", some)
    (tmp_path / "spill").mkdir()
    options = {"spill_dir": tmp_path / "spill"} if elsewhere else {}
    found = "temporary files cannot be written (No space left on device)", "needed so far"
    remedy = {"error": OutputError, "exit_code": 5, "remedy": "--spill-dir"}
    refused(stored(tmp_path, "h5ad"), there, *found, strategy="spill", workers=workers, **options, **remedy)
    assert not list((tmp_path / "spill").iterdir())
    assert len(written) > after


def test_disk_full_while_distances_are_spilled(tmp_path, there, monkeypatch):
    monkeypatch.setattr(groups, "BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(ranks, "_LEAST_RUN", 2)
    monkeypatch.setattr(costs.Rooms, "within", lambda self, free: self.least)
    monkeypatch.setattr(ranks._Column, "append", full)
    found = "temporary files cannot be written (No space left on device)"
    options = {"error": OutputError, "exit_code": 5, "remedy": "--spill-dir"}
    refused(stored(tmp_path, "h5ad"), there, found, **options)


def test_disk_that_is_too_small_from_the_start(tmp_path, there, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    options = {"error": OutputError, "exit_code": 5, "remedy": "--spill-dir", "strategy": "spill"}
    refused(stored(tmp_path, "h5ad"), there, "of temporary files are needed, 1 B are free", **options)


@pytest.mark.parametrize("workers", [1, 2])
def test_disk_full_while_genes_are_written(tmp_path, there, monkeypatch, workers):
    """Also where other pieces wait their turn."""
    begun, write_piece, guard = [], genes.GeneWriter._write, threading.Lock()

    def some(self, *piece):
        with guard:
            begun.append(piece)
        return write_piece(self, *piece) if len(begun) < 3 else full()

    monkeypatch.setattr(genes.GeneWriter, "_write", some)
    for strategy in ("memory", "spill"):
        begun.clear()
        before = listing(there)
        with pytest.raises(OSError, match="No space left"):
            cellucid(stored(tmp_path, "h5ad"), there / "export", force=True, workers=workers, strategy=strategy)
        assert listing(there) == before
        assert len(begun) == 3 or workers > 1


def test_interrupted_while_reading(tmp_path, there, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    path, before = stored(tmp_path, "h5ad"), listing(there)
    monkeypatch.setattr(Budget, "take", interrupted)
    with pytest.raises(KeyboardInterrupt):
        cellucid(path, there / "export", force=True, workers=2)
    assert run(["cellucid", str(path), str(there / "export"), "--force", "-j", "2"]) == 130
    assert listing(there) == before


# From the command line


def exported(path, there, capsys, *options):
    before = listing(there)
    code = run(["cellucid", str(path), str(there / "export"), "--force", "-j", "2", *options])
    assert listing(there) == before
    return code, capsys.readouterr().err


@ways
def test_command_line_says_what_is_damaged(tmp_path, there, capsys, strategy):
    path = stored(tmp_path, "h5ad")
    shorten_last_chunk(path, "X/data")
    code, text = exported(path, there, capsys, "--strategy", strategy)
    assert code == 3
    assert "error: X/data: cannot be read from" in text
    assert "Traceback" not in text


def test_command_line_says_that_the_disk_is_full(tmp_path, there, capsys, monkeypatch):
    path = stored(tmp_path, "zarr")
    monkeypatch.setattr(engine_spill, "_write_all", full)
    code, text = exported(path, there, capsys, "--strategy", "spill")
    assert code == 5
    assert "temporary files cannot be written" in text
    assert "--spill-dir" in text


@ways
def test_command_line_says_which_budget_works(tmp_path, there, capsys, strategy):
    path = stored(tmp_path, "h5ad")
    code, text = exported(path, there, capsys, "--strategy", strategy, "-M", "1MiB")
    assert code == 4
    assert "the smallest budget that works is about" in text


# Memory that was planned for


def keep_values(bounds):
    zeros = np.zeros(len(bounds), np.uint32)
    return Rules(np.zeros((len(bounds), 3)), quantize.FLOAT32, 0, None, zeros)


@pytest.mark.parametrize("level", [6, None])
@pytest.mark.parametrize("bits", [8, 16, None])
def test_no_piece_of_genes_is_larger_than_planned(bits, level):
    """A piece that needs more than is left would be waited for without end."""
    rng, options = np.random.default_rng(4), SimpleNamespace(var_quantization=bits, level=level)
    for _ in range(100):
        n_cells, n_genes = int(10 ** rng.uniform(0, 6.3)), int(10 ** rng.uniform(0, 2.3))
        sizes = np.minimum(n_cells, n_cells * rng.random(n_genes) ** rng.integers(1, 30)).astype(np.int64)
        few = np.where(rng.random(n_genes) < 0.05, int(0.6 * n_cells), sizes // 20)
        for counts in (sizes, few):
            entries = [np.broadcast_to(one, int(counts.sum())) for one in (np.int32(0), np.float32(0))]
            matrix = Compressed((n_cells, n_genes), np.zeros(1, np.int32), *entries, axis=0)
            most = costs.largest_piece(Genes([""] * n_genes, np.arange(n_genes), matrix), options)
            for piece in split(counts, PIECE_VALUES, PIECE_GENES):
                assert costs.encoding(n_cells, options, counts[piece]) <= most


@pytest.mark.parametrize("workers", [1, 2])
def test_what_can_never_be_free_is_not_waited_for(workers):
    budget = Budget("100GiB")
    most = budget.free
    budget.take(most - 10, "")
    with Team(workers, budget) as team:
        assert team.submit(lambda: 1, memory=10).result() == 1
        with pytest.raises(BudgetError, match=r"a task needs 11 B of .* are taken"):
            team.submit(lambda: 1, memory=11, what="a task")


def keep_submitting(team):
    for _ in range(1000):
        team.submit(threading.Event().wait, 0.01)


def test_submitting_after_a_failure_says_so():
    with Team(2, Budget()) as team:
        with pytest.raises(OSError, match="No space"):
            team.submit(full).result()
        with pytest.raises(OSError, match="No space"):
            keep_submitting(team)


@pytest.mark.parametrize("workers", [1, 2])
def test_genes_of_very_different_sizes_are_spilled_in_what_was_planned(tmp_path, workers):
    rng = np.random.default_rng(3)
    chance = np.r_[np.full(20, 0.9), np.full(20, 0.01)]
    whole = np.where(rng.random((N, G)) < chance, rng.random((N, G)), 0).astype(np.float32)
    matrix, which = matrix_of(sp.csr_array(whole), "X"), np.arange(G)
    least = strategies.least_room(matrix, G, workers, "spill")
    for step, room in enumerate(np.linspace(least, 20 * least, 4).astype(int).tolist()):
        choice = strategies.choose(matrix, G, workers, room, "spill")
        assert choice.needs(0) <= room
        with Team(workers, Budget()) as team:
            folder = tmp_path / str(step)
            grouping = strategies.group(matrix, which, keep_values, team, choice, lambda folder=folder: folder)
            (batch,) = grouping.batches(0)
            for piece in batch.pieces():
                assert batch.room(piece) <= choice.gene_room
                columns = batch.read(piece)
                for place, column in enumerate(range(piece.start, piece.stop)):
                    entries = columns.entries[columns.offsets[place] : columns.offsets[place + 1]]
                    rows = np.flatnonzero(whole[:, column])
                    np.testing.assert_array_equal(entries >> 32, rows)
                    np.testing.assert_array_equal(entries.astype(np.uint32).view(np.float32), whole[rows, column])


def test_matrix_that_changes_while_it_is_read(tmp_path):
    """Entries counted in one pass are others in the next: refused, and nothing is written outside of memory."""
    del tmp_path
    whole = matrix_of(sp.csr_array(np.ones((200, 8), np.float32)), "X")

    class Shifting:
        grain, overhead, speed = 1, 0, 1e9

        def __init__(self, array):
            self.shape, self.dtype, self._array, self._read = array.shape, array.dtype, array, 0

        def __getitem__(self, key):
            found = self._array[key].copy()
            self._read += found.size
            return found if self._read <= self.shape[0] else np.full_like(found, 7)

    matrix = Compressed(whole.shape, whole.indptr, Shifting(whole.indices), whole.data, 0, "X")
    with Team(1, Budget()) as team:
        grouping = strategies.group(
            matrix, np.arange(8), keep_values, team, strategies.Choice("memory", batch_room=200 * 64), lambda: None
        )
        with pytest.raises(InputError, match="X: changed while it was read"):
            list(grouping.batches(200 * 64))


def test_nothing_of_a_failed_export_can_stay(tmp_path, there, monkeypatch):
    """Temporary files that cannot be deleted are said, and do not spoil an export."""
    folder = tmp_path / "spill"
    folder.mkdir()
    remove = FolderSink._remove

    def stubborn(path):
        if path.parent == folder:
            monkeypatch.setattr(shutil, "rmtree", full)
        remove(path)

    monkeypatch.setattr(FolderSink, "_remove", staticmethod(stubborn))
    cellucid(stored(tmp_path, "h5ad"), there / "export", force=True, strategy="spill", spill_dir=folder, workers=2)
    monkeypatch.undo()
    assert check(there / "export").ok
