"""Tasks of a plan on a Dask cluster: only their numbers travel, and what was done is in the journal."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from atlaswriter.engine.plan import RunPlan, Stage
from atlaswriter.errors import InputError, OutputError, Problem
from atlaswriter.progress import Progress
from atlaswriter.units import usable_cpus, usable_memory

log = logging.getLogger(__name__)

# Slices of a stage for each worker: enough to share them out evenly, as opening the source is part of each.
_SLICES = 4
# A cluster that grows by itself, or was just started, may have no workers yet.
_SECONDS_FOR_WORKERS = 60
# How often a slice is tried that failed; one whose worker died is given to another by the cluster.
_RETRIES = 2
# Of a worker's memory limit: above 0.6 Dask begins to move its own data to disk, of which there is none.
_SHARE = 0.6

# How long to wait for a scheduler.
_PATIENCE = "30s"

# Does tasks of a stage: stage, numbers, memory budget in bytes and threads; any process must be able to import it.
Do = Callable[[str, list[int], int, int], Any]


@contextmanager
def connected(dask: Any) -> Iterator[Any]:
    """A client; one that is made here, and a cluster for it, ends with the context.

    Parameters
    ----------
    dask
        A ``distributed.Client``, the address of a scheduler, ``"local"``, or None: the current client, else as
        ``"local"``.

    Raises
    ------
    InputError
        The package is missing, nobody answers at the address, or the client is an asynchronous one.
    """
    distributed = _distributed()
    if isinstance(dask, distributed.Client):
        _refuse_unusable(dask)
        yield dask
    elif isinstance(dask, str) and dask != "local":
        try:
            client = distributed.Client(dask, timeout=_PATIENCE)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                Problem("dask", f"no scheduler answers at {dask!r} ({error})", "check the address")
            ) from error
        with client:
            yield client
    elif dask is None and (current := _current(distributed)) is not None:
        _refuse_unusable(current)
        yield current
    elif dask in (None, "local"):
        with (
            distributed.LocalCluster(
                n_workers=usable_cpus(), threads_per_worker=1, memory_limit=0, dashboard_address="127.0.0.1:0"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
    else:
        raise InputError(Problem("dask", f"{dask!r} is no client, and no address", 'use "local" or tcp://HOST:PORT'))


def _distributed() -> Any:
    try:
        return import_module("distributed")
    except ImportError as error:
        remedy = 'install it with: pip install "atlaswriter[dask]"'
        raise InputError(Problem("engine='dask'", "dask.distributed is not installed", remedy)) from error


def _current(distributed: Any) -> Any:
    try:
        return distributed.Client.current()
    except ValueError:
        return None


def _refuse_unusable(client: Any) -> None:
    if client.asynchronous or client.status != "running":
        found = "the client is asynchronous" if client.asynchronous else f"the client is {client.status}"
        raise InputError(Problem("dask", found, "pass distributed.Client(ADDRESS), or the address"))


def shares(client: Any, memory_budget: int | None, workers: int | None) -> tuple[int, int]:
    """Memory budget in bytes, and threads, of a process of the cluster, unless they are given."""
    with suppress(TimeoutError):
        client.wait_for_workers(1, timeout=_SECONDS_FOR_WORKERS)
    found = client.scheduler_info(n_workers=-1)["workers"].values()
    if not found:
        remedy = "start some, and wait for them: client.wait_for_workers(N)"
        raise InputError(Problem("dask", "the cluster has no workers", remedy))
    threads = workers or min(worker["nthreads"] for worker in found)
    limits = [worker["memory_limit"] for worker in found if worker["memory_limit"]]
    room = int(min(limits) * _SHARE) if limits else usable_memory() // 2 // len(found)
    return memory_budget or room, threads


def run_stages(
    client: Any, plan: RunPlan, left: dict[str, list[int]], do: Do, memory: int, threads: int, show: bool | None
) -> None:
    """Do tasks of all stages, each as soon as those before it are done.

    Parameters
    ----------
    client
        A ``distributed.Client``.
    plan
        The plan.
    left
        Numbers of the tasks to do, by stage.
    do
        Does some of them in a worker.
    memory, threads
        Of each.
    show
        Progress: see `progress.Progress`.

    Raises
    ------
    OutputError
        Workers die whenever they do one of the tasks, or the scheduler is gone. Otherwise what a task raises.
    """
    waiting = [stage for stage in plan.stages if left[stage.name]]
    running: dict[Any, tuple[Stage, list[int]]] = {}
    open_tasks = {stage.name: len(left[stage.name]) for stage in waiting}
    progress, results = Progress(show), _distributed().as_completed(loop=client.loop)
    total = sum(stage.tasks[number].bytes_in for stage in waiting for number in left[stage.name])
    n_workers = len(client.scheduler_info(n_workers=-1)["workers"])
    try:
        with _failing_as_ours(), progress.phase("tasks", total):
            while waiting or running:
                ready = [stage for stage in waiting if not any(open_tasks.get(name) for name in stage.after)]
                for stage in ready:
                    waiting.remove(stage)
                    for numbers in _slices(left[stage.name], n_workers * _SLICES):
                        future = client.submit(do, stage.name, numbers, memory, threads, pure=False, retries=_RETRIES)
                        running[future] = stage, numbers
                        results.add(future)
                done = next(results)
                done.result()
                stage, numbers = running.pop(done)
                open_tasks[stage.name] -= len(numbers)
                progress.add(sum(stage.tasks[number].bytes_in for number in numbers))
    finally:
        for future in running:
            future.cancel()


@contextmanager
def _failing_as_ours() -> Iterator[None]:
    distributed = _distributed()
    try:
        yield
    except distributed.KilledWorker as error:
        remedy = "see their logs; if it is for want of memory, give them more, or set a smaller memory budget"
        raise OutputError(str(Problem("dask", "several workers died while they did the same tasks", remedy))) from error
    except (CancelledError, distributed.comm.CommClosedError) as error:
        remedy = "with resume (--resume) the next run goes on from here if this one had it too"
        raise OutputError(str(Problem("dask", "the connection to the scheduler is lost", remedy))) from error


def _slices(numbers: list[int], count: int) -> Iterator[list[int]]:
    count = min(count, len(numbers))
    for position in range(count):
        yield numbers[position * len(numbers) // count : (position + 1) * len(numbers) // count]
