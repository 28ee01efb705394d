"""Exports by a Dask cluster of several processes: some die, tasks fail, and no data goes through the scheduler."""

import asyncio
import copy
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import anndata
import cloudpickle
import dask
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from tests.bundles import make_bundle

import atlaswriter as aw
from atlaswriter.cli.main import run
from atlaswriter.engine import on_dask as engine
from atlaswriter.errors import InputError, OutputError
from atlaswriter.formats import on_dask
from atlaswriter.sinks.journal import Journal
from atlaswriter.sinks.runfolder import RunFolder
from atlaswriter.sinks.task import TaskSink

distributed = pytest.importorskip("distributed")

N, GENES = 600, 40
OPTIONS = {"created_at": "2026-01-01", "progress": False}
# A cluster that can be killed as a whole: the process group.
CLUSTER = """
import sys
from distributed import LocalCluster

if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0") as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


@pytest.fixture(scope="module", autouse=True)
def _dask_stays_as_it_was():
    """Clients set themselves as the scheduler of all arrays; those that are killed leave it so."""
    before = copy.deepcopy(dask.config.config)
    yield
    dask.config.config.clear()
    dask.config.config.update(before)


@pytest.fixture(scope="module")
def h5ad(tmp_path_factory):
    rng = np.random.default_rng(0)
    obs = pd.DataFrame({"type": pd.Categorical(rng.choice(list("abc"), N)), "depth": rng.random(N)})
    obs.index = [f"c{i}" for i in range(N)]
    genes = pd.DataFrame(index=[f"g{i}" for i in range(GENES)])
    atlas = anndata.AnnData(sp.random(N, GENES, 0.3, "csr", np.float32, rng=rng), obs, genes)
    atlas.obsm = {"X_umap": rng.random((N, 2)), "X_pca": rng.random((N, 4))}
    path = tmp_path_factory.mktemp("dask") / "a.h5ad"
    atlas.write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def local(h5ad, tmp_path_factory):
    """The export of one process, as a dictionary of bytes."""
    out = tmp_path_factory.mktemp("local") / "out"
    aw.cellucid(h5ad, out, **OPTIONS)
    return content(out)


@pytest.fixture(scope="module")
def cluster():
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, memory_limit="4GiB", dashboard_address="127.0.0.1:0"
    ) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with distributed.Client(cluster, set_as_default=False) as client:
        yield client


@pytest.fixture(autouse=True)
def _many_tasks(monkeypatch):
    """As large data has."""
    monkeypatch.setattr(on_dask, "_LEAST_TASK", 1 << 14)


@pytest.fixture
def folder(tmp_path):
    """Where exports are written, and nothing else is."""
    path = tmp_path / "exports"
    path.mkdir()
    return path


@pytest.fixture
def held(client, tmp_path):
    """Folder: whoever has done a task, and not written it down, leaves its pid there and waits for ``go``."""
    place = tmp_path / "held"
    place.mkdir()

    def hold():
        from atlaswriter.engine.work import Work

        def perform(self, name, write):
            def wait(files):
                result = write(files)
                (place / str(os.getpid())).touch()
                while not (place / "go").exists():
                    time.sleep(0.01)
                return result

            return original(self, name, wait if self._journal is not None else write)

        original, Work.perform = Work.perform, perform
        Work.original = original

    def let_go():
        from atlaswriter.engine.work import Work

        if hasattr(Work, "original"):  # a worker that came later has none
            Work.perform = Work.original
            del Work.original

    client.run(hold)
    yield place
    (place / "go").touch()
    client.run(let_go)


def content(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
    return found


@contextmanager
def in_thread(*arguments, **options):
    """An export in another thread; the list that this gives holds its report or its error at the end."""
    result = []

    def work():
        try:
            result.append(aw.cellucid(*arguments, **options, **OPTIONS))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test looks at it
            result.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield result
    finally:
        thread.join(120)
        assert not thread.is_alive()


def pids(held):
    return [int(path.name) for path in held.iterdir() if path.name.isdigit()]


def first(held, result):
    """Pid of a process that waits; `result` is of `in_thread`."""
    wait_for(lambda: pids(held) or result)
    assert not result, result
    return pids(held)[0]


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


# ---------------------------------------------------------------- the same export


def test_the_export_is_that_of_one_process_and_leaves_nothing_else(h5ad, client, local, folder):
    report = aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, **OPTIONS)
    assert content(folder / "out") == local
    assert os.listdir(folder) == ["out"]
    assert {"plan", "tasks", "finish", "publish"} <= {phase.name for phase in report.phases}
    assert sum(phase.seconds for phase in report.phases if phase.name in ("plan", "tasks")) < report.seconds
    assert (report.files, report.bytes_out) == (len(local), sum(map(len, local.values())))


def test_no_data_goes_through_the_scheduler(h5ad, client, local, folder, monkeypatch):
    arguments, futures, submit = [], [], client.submit

    def spy(function, *given, **options):
        arguments.append(len(cloudpickle.dumps((function, given, options))))
        futures.append(submit(function, *given, **options))
        return futures[-1]

    monkeypatch.setattr(client, "submit", spy)
    aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, **OPTIONS)
    results = [len(cloudpickle.dumps(future.result())) for future in futures]
    assert len(futures) > 4
    assert max(arguments) < 2048
    assert max(results) < 2048
    assert sum(arguments) + sum(results) < h5ad.stat().st_size / 2


def test_address(h5ad, client, local, folder):
    aw.cellucid(h5ad, folder / "out", engine="dask", dask=client.scheduler.address, **OPTIONS)
    assert content(folder / "out") == local


def test_the_current_client_is_taken(h5ad, client, local, folder, monkeypatch):
    monkeypatch.setattr(distributed, "LocalCluster", None)
    with client.as_current():
        aw.cellucid(h5ad, folder / "out", engine="dask", **OPTIONS)
    assert content(folder / "out") == local


def test_local_on_the_command_line(h5ad, local, folder):
    options = ["--dask", "local", "--created-at", OPTIONS["created_at"], "--no-progress"]
    assert run(["-q", "cellucid", str(h5ad), str(folder / "out"), *options]) == 0
    assert content(folder / "out") == local
    assert os.listdir(folder) == ["out"]


def test_landscape_files_too(client, folder, tmp_path):
    bundle = make_bundle(tmp_path / "bundle", n_cells=60, n_genes=8, n_transcripts=3000, image=(260, 330)).folder
    options = {"clusters": bundle / "nothing.csv", "progress": False}
    with pytest.raises(InputError, match=r"nothing\.csv"):
        aw.landscape(bundle, folder / "out", engine="dask", dask=client, **options)
    aw.landscape(bundle, tmp_path / "local" / "out", progress=False)
    aw.landscape(bundle, folder / "out", engine="dask", dask=client, progress=False)
    assert content(folder / "out") == content(tmp_path / "local" / "out")
    assert os.listdir(folder) == ["out"]


# ---------------------------------------------------------------- what dies


def test_a_worker_is_killed_while_it_does_a_task(h5ad, client, local, folder, held):
    workers = client.run(os.getpid)
    with in_thread(h5ad, folder / "out", engine="dask", dask=client) as result:
        victim = first(held, result)
        address = next(name for name, pid in workers.items() if pid == victim)
        assert client.processing()[address]
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: not alive(victim))
        wait_for(lambda: address not in client.scheduler_info(n_workers=-1)["workers"])
        written = Journal(folder / ".out.atlaswriter-dask" / "journal").entries()
        assert not written  # it had done a task, and could not say so
        (held / "go").touch()
    assert not isinstance(result[0], Exception), result[0]
    assert content(folder / "out") == local
    assert os.listdir(folder) == ["out"]
    client.wait_for_workers(2)  # its nanny starts another
    assert victim not in client.run(os.getpid).values()


def test_workers_that_die_of_a_task_are_said(h5ad, client, cluster, folder, held, monkeypatch):
    monkeypatch.setattr(cluster.scheduler, "allowed_failures", 0)
    (folder / "out").mkdir()
    with in_thread(h5ad, folder / "out", engine="dask", dask=client) as result:
        os.kill(first(held, result), signal.SIGKILL)
        wait_for(lambda: result)
        (held / "go").touch()
    assert isinstance(result[0], OutputError)
    assert "workers died" in str(result[0])
    assert "memory" in str(result[0])
    client.wait_for_workers(2)
    assert content(folder) == {}


def test_a_cluster_that_dies_as_a_whole_is_resumed_on_another(h5ad, client, local, folder, tmp_path):
    script, out, place = tmp_path / "cluster.py", folder / "out", folder / ".out.atlaswriter-dask"
    script.write_text(CLUSTER)
    with subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            address = process.stdout.readline().strip()
            with in_thread(h5ad, out, engine="dask", dask=address, resume=True) as result:
                wait_for(lambda: Journal(place / "journal").entries() or result)
                os.killpg(process.pid, signal.SIGKILL)
        finally:
            process.kill()
    assert isinstance(result[0], OutputError), result
    assert "connection to the scheduler is lost" in str(result[0])
    assert not out.exists()

    done = {name for entry in Journal(place / "journal").entries() for name in entry.files}
    inodes = {name: (place / "files" / name).stat().st_ino for name in done}
    assert inodes
    with pytest.raises(InputError, match="compression"):
        aw.cellucid(h5ad, out, engine="dask", dask=client, resume=True, compression=1, **OPTIONS)
    assert {name: (place / "files" / name).stat().st_ino for name in done} == inodes

    aw.cellucid(h5ad, out, engine="dask", dask=client, resume=True, **OPTIONS)
    assert content(out) == local
    assert {name: (out / name).stat().st_ino for name in done} == inodes
    assert os.listdir(folder) == ["out"]


def test_what_was_interrupted_after_its_end_is_not_done_again(h5ad, client, local, folder, monkeypatch):
    def die(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, resume=True, **OPTIONS)
    assert sorted(os.listdir(folder)) == [".out.atlaswriter-dask", "out"]
    inode = (folder / "out").stat().st_ino
    monkeypatch.setattr(on_dask, "run_stages", None)
    report = aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, resume=True, **OPTIONS)
    assert report.files == len(local)
    assert (folder / "out").stat().st_ino == inode
    assert content(folder / "out") == local
    assert os.listdir(folder) == ["out"]


def test_what_was_published_and_is_gone_is_done_again(h5ad, client, local, folder, monkeypatch):
    def die(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, resume=True, **OPTIONS)
    shutil.rmtree(folder / "out")
    aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, resume=True, **OPTIONS)
    assert content(folder / "out") == local
    assert os.listdir(folder) == ["out"]


# ---------------------------------------------------------------- what is refused


@pytest.fixture
def damaged(h5ad, tmp_path):
    """An index of its last cell leaves the matrix, which only who reads that part can see."""
    path = tmp_path / "damaged.h5ad"
    path.write_bytes(h5ad.read_bytes())
    with h5py.File(path, "r+") as file:
        file["X/indices"][-1] = GENES + 7
    return path


def test_the_error_of_a_task_is_ours_and_the_target_is_as_it_was(h5ad, damaged, client, local, folder):
    aw.cellucid(h5ad, folder / "out", **OPTIONS)
    with pytest.raises(InputError, match="damaged"):
        aw.cellucid(damaged, folder / "out", engine="dask", dask=client, force=True, **OPTIONS)
    assert content(folder / "out") == local
    assert os.listdir(folder) == ["out"]


def test_folders_made_for_nothing_are_removed(damaged, client, folder):
    with pytest.raises(InputError):
        aw.cellucid(damaged, folder / "a" / "b" / "out", engine="dask", dask=client, **OPTIONS)
    assert os.listdir(folder) == []


def test_tasks_that_go_on_after_a_failure_bring_nothing_back(h5ad, client, folder, held, monkeypatch):
    others, run_stages = [], on_dask.run_stages

    def quietly(*arguments):
        with suppress(Exception):
            run_stages(*arguments)

    def fail(*arguments):
        others.append(threading.Thread(target=quietly, args=arguments))
        others[0].start()
        wait_for(lambda: pids(held))
        raise OutputError("as if another task had failed")

    monkeypatch.setattr(on_dask, "run_stages", fail)
    with pytest.raises(OutputError, match="as if"):
        aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, **OPTIONS)
    assert os.listdir(folder) == []
    (held / "go").touch()
    others[0].join(60)
    assert not others[0].is_alive()
    wait_for(lambda: not any(client.processing().values()))
    assert os.listdir(folder) == []


def test_a_task_that_comes_too_late_does_not_make_its_folder_again(tmp_path):
    with pytest.raises(OutputError), TaskSink(RunFolder(tmp_path / "gone"), tmp_path / "out"):
        pass
    assert os.listdir(tmp_path) == []


def test_what_is_no_cluster(h5ad, folder, client, monkeypatch):
    monkeypatch.setattr(engine, "_PATIENCE", "100ms")
    out = folder / "out"
    for wrong in (5, "nonsense", "tcp://127.0.0.1:1", "tcp://", ["local"]):
        with pytest.raises(InputError, match="dask"):
            aw.cellucid(h5ad, out, engine="dask", dask=wrong, **OPTIONS)
    with pytest.raises(InputError, match="engine='dask'"):
        aw.cellucid(h5ad, out, dask=client, **OPTIONS)
    with pytest.raises(InputError, match="engine: 'ray' is not known"):
        aw.cellucid(h5ad, out, engine="ray", **OPTIONS)
    with pytest.raises(InputError, match="workers"):
        aw.cellucid(h5ad, out, engine="dask", dask=client, workers=0, **OPTIONS)
    with pytest.raises(InputError, match="in memory"):
        aw.cellucid(anndata.read_h5ad(h5ad), out, engine="dask", dask=client, **OPTIONS)
    assert os.listdir(folder) == []


def test_clients_that_cannot_be_used(h5ad, folder, monkeypatch):
    monkeypatch.setattr(engine, "_SECONDS_FOR_WORKERS", 0.1)
    options = {"processes": False, "dashboard_address": "127.0.0.1:0", "n_workers": 0}
    with distributed.LocalCluster(**options) as empty:
        with distributed.Client(empty, set_as_default=False) as client, pytest.raises(InputError, match="no workers"):
            aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, **OPTIONS)
        with pytest.raises(InputError, match="closed"):
            aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, **OPTIONS)
        asyncio.run(refuse_asynchronous(h5ad, folder / "out", empty.scheduler_address))
    assert os.listdir(folder) == []


async def refuse_asynchronous(h5ad, out, address):
    async with distributed.Client(address, asynchronous=True, set_as_default=False) as client:
        with pytest.raises(InputError, match="asynchronous"):
            aw.cellucid(h5ad, out, engine="dask", dask=client, **OPTIONS)


def test_without_the_package_the_remedy_is_said(h5ad, folder, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "distributed", None)
    assert run(["cellucid", str(h5ad), str(folder / "out"), "--dask", "local"]) == 3
    assert 'pip install "atlaswriter[dask]"' in capsys.readouterr().err
    assert os.listdir(folder) == []


def test_a_second_writer_is_refused(h5ad, client, folder, held):
    with in_thread(h5ad, folder / "out", engine="dask", dask=client) as result:
        first(held, result)
        with pytest.raises(OutputError, match="another process is writing"):
            aw.cellucid(h5ad, folder / "out", engine="dask", dask=client, **OPTIONS)
        (held / "go").touch()
    assert not isinstance(result[0], Exception), result[0]
    assert os.listdir(folder) == ["out"]
