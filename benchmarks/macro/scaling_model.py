"""How long the tasks of a plan take on a cluster: a model, from costs that were measured on tasks.

A stage is done when the slowest of three things is:

- **processes**: its tasks, shared out to all processes as an array job does it (slices of neighbours), each process
  opening the source first. A task takes ``per_task + per_byte * bytes_in`` seconds of one core (fitted to measured
  tasks of that stage), less with more threads by `Cluster.thread_efficiency`. A node holds as many processes as it has
  cores and memory for.
- **disk**: what all tasks read and write, at the bandwidth that the nodes in use, or all of the shared disk, have.
- **files**: what is created, renamed, opened and looked at, at the rate of the file system's metadata server.

Stages that need nothing of each other share the cluster: their work is added up. Then come those that need them, and
at the end `finish`, one process, which looks at every file once and renames one folder. Nothing else is serial, so the
model says by itself where more nodes gain nothing: where disk or files are slower than the processes, where there are
more processes than tasks, and where starting takes longer than working.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Cost:
    """What tasks of a stage cost one core.

    Attributes
    ----------
    per_byte
        Seconds for a byte that a task reads.
    per_task
        Seconds for a task, whatever its size.
    """

    per_byte: float
    per_task: float

    @classmethod
    def fit(cls, bytes_in: Sequence[float], seconds: Sequence[float]) -> Cost:
        """Least squares of relative errors; neither number is negative."""
        size, time = np.array(bytes_in, float), np.maximum(np.array(seconds, float), 1e-9)
        if np.ptp(size) > 0:
            slope, base = np.linalg.lstsq(
                np.column_stack([size, np.ones_like(size)]) / time[:, None], np.ones_like(time)
            )[0]
            if slope > 0 and base > 0:
                return cls(float(slope), float(base))
        return cls(float((time * size).sum() / max((size**2).sum(), 1)), 0.0)

    def seconds(self, bytes_in: float) -> float:
        """Of one task."""
        return self.per_task + self.per_byte * bytes_in


@dataclass(frozen=True)
class Load:
    """The tasks of one stage.

    Attributes
    ----------
    after
        Stages that must be done before.
    bytes_in, bytes_out, files
        Of each task: bytes read and written, files created.
    opened
        Files that are opened, in all tasks together, beside those that they create.
    memory
        Of a process, bytes.
    threads
        Of a process.
    busy
        Of these, those that work on a task.
    cost
        Of its tasks.
    start
        Seconds that a process takes before its first task.
    """

    after: tuple[str, ...]
    bytes_in: Sequence[float]
    bytes_out: Sequence[float]
    files: Sequence[float]
    opened: float
    memory: float
    threads: int
    busy: int
    cost: Cost
    start: float


@dataclass(frozen=True)
class Cluster:
    """Machines that share a disk.

    Attributes
    ----------
    nodes, cores, memory
        Number of machines; cores and bytes of each.
    disk, node_disk
        Bytes a second of the shared disk, and of one machine's connection to it.
    metadata
        Files that can be created, renamed, opened or looked at in a second, by all together.
    launch
        Seconds until the elements of an array job run.
    thread_efficiency
        What a further thread of a process adds, of a whole one.
    """

    nodes: int
    cores: int
    memory: float
    disk: float
    node_disk: float
    metadata: float
    launch: float = 0.0
    thread_efficiency: float = 0.75

    def speed(self, threads: int) -> float:
        """Of a process, in single threads."""
        return 1 + (threads - 1) * self.thread_efficiency


@dataclass(frozen=True)
class Prediction:
    """How long something takes, and why.

    Attributes
    ----------
    seconds
        All of it.
    bound
        ``"processes"``, ``"disk"`` or ``"files"``.
    parts
        Seconds that each of these would take alone.
    processes
        That work side by side.
    """

    seconds: float
    bound: str
    parts: Mapping[str, float]
    processes: int


def predict(loads: Mapping[str, Load], cluster: Cluster, n_files: float, finish: float) -> dict[str, Prediction]:
    """What every level of stages takes, and ``finish``; the sum of their seconds is the wall time.

    Parameters
    ----------
    loads
        The stages.
    cluster
        Where they run.
    n_files
        Files of the export.
    finish
        Seconds that ``finish`` takes, beside looking at these.
    """
    found, done = {}, set[str]()
    while len(done) < len(loads):
        level = {name: load for name, load in loads.items() if name not in done and done.issuperset(load.after)}
        found[" + ".join(level)] = _level(list(level.values()), cluster)
        done |= level.keys()
    parts = {"processes": cluster.launch + finish, "disk": 0.0, "files": n_files / cluster.metadata}
    found["finish"] = Prediction(parts["processes"] + parts["files"], _largest(parts), parts, 1)
    return found


def _level(loads: Sequence[Load], cluster: Cluster) -> Prediction:
    slots = cluster.nodes * min(_on_a_node(load, cluster) for load in loads)
    if not slots:
        raise ValueError("a node has not the cores or the memory for one process")
    ends = np.zeros(slots)
    for load in loads:
        ends = _done(load, cluster, ends)
    processes = int((ends > 0).sum())
    nodes = min(cluster.nodes, processes)
    moved = sum(sum(load.bytes_in) + sum(load.bytes_out) for load in loads)
    # A file is created under another name, and renamed.
    touched = sum(2 * sum(load.files) + load.opened for load in loads)
    parts = {
        "processes": cluster.launch + float(ends.max()),
        "disk": moved / min(cluster.disk, nodes * cluster.node_disk),
        "files": touched / cluster.metadata,
    }
    return Prediction(max(parts.values()), _largest(parts), parts, processes)


def _on_a_node(load: Load, cluster: Cluster) -> int:
    return int(min(cluster.cores // load.threads, cluster.memory // load.memory))


def _done(load: Load, cluster: Cluster, ends: np.ndarray) -> np.ndarray:
    """When each process is done, after what it had to do before: slices of tasks, shortest queue first."""
    count, n_tasks = min(ends.size, len(load.bytes_in)), len(load.bytes_in)
    ends = np.sort(ends)
    for position in range(count):
        own = load.bytes_in[position * n_tasks // count : (position + 1) * n_tasks // count]
        ends[position] += load.start + sum(map(load.cost.seconds, own)) / cluster.speed(load.busy)
    return ends


def _largest(parts: Mapping[str, float]) -> str:
    return max(parts, key=parts.__getitem__)
