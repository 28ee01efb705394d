"""What the hardware does at most: what measured times are compared with."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Any

import numpy as np

from atlaswriter.bench.sampling import Array, Genes
from atlaswriter.codecs import gzip
from atlaswriter.sinks import fs
from atlaswriter.units import usable_memory

FILE_BYTES = 20_000
_DISK_BLOCK, _LEAST_SECONDS, _MOST_RUNS = 4 << 20, 0.15, 20
# Cells and genes of the columns that are compressed: as many genes as fit into a core's cache are no measure.
_CELLS, _GENES, _DENSITY = 200_000, 8, 0.05


@dataclass(frozen=True)
class Yardsticks:
    """Bytes a second, but for `files`.

    Attributes
    ----------
    memcpy, memcpy_all
        Bytes copied from one large array to another, by one thread and by all together.
    write, disk
        Writing one file from its begin to its end, and the same until it is on the disk.
    files
        Files of 20 kB a second, made by all threads, without waiting for the disk.
    gzip, gzip_all
        Bytes that ISA-L (level 1) compresses, of quantised genes.
    inflate
        Bytes that ISA-L makes of these again.
    workers
        Number of threads.
    """

    memcpy: float
    memcpy_all: float
    write: float
    disk: float
    files: float
    gzip: float
    gzip_all: float
    inflate: float
    workers: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, with units in the names."""
        units = {"files": "files_per_second", "workers": "workers"}
        return {units.get(name, f"{name}_bytes_per_second"): value for name, value in asdict(self).items()}

    def seconds(self, kind: str, content: float, files: int = 0) -> float:
        """How long a yardstick alone takes for bytes.

        ``memcpy`` and ``ISA-L`` with all threads; ``write``, bytes and files made without waiting for the disk,
        whichever takes longer; or ``sync``, what was written reaches the disk.
        """
        if kind == "write":
            return max(content / self.write, files / self.files)
        if kind == "sync":
            return content / self.disk - content / self.write
        return content / (self.memcpy_all if kind == "memcpy" else self.gzip_all)


def measure(folder: Path, workers: int, seed: int = 0, most_bytes: int = 256 << 20) -> Yardsticks:
    """Measure all yardsticks.

    Parameters
    ----------
    folder
        Where files are written; small ones stay, as deleting them would slow down what comes next.
    workers
        Threads.
    seed
        Of the contents.
    most_bytes
        Of each array, and of all files.
    """
    size = max(1 << 20, min(most_bytes, usable_memory() // 16))
    memcpy = _copying(size, 1), _copying(size, workers)
    random = np.random.default_rng(seed)
    block = random.integers(0, 256, min(_DISK_BLOCK, size), np.uint8)
    columns = gene_columns(seed, max(1, min(_CELLS, size // 4)))
    packed = [gzip.compress(column, 1) for column in columns]
    n_dense = sum(column.nbytes for column in columns)
    return Yardsticks(
        *memcpy,
        *_writing(folder, block, size),
        files=_making(folder, block[:FILE_BYTES], min(1000, size // FILE_BYTES), workers),
        gzip=n_dense / _fastest(lambda: [gzip.compress(column, 1) for column in columns]),
        gzip_all=workers * n_dense / _compressing(columns, workers),
        inflate=n_dense / _fastest(lambda: [gzip.inflate(one, columns[0].nbytes) for one in packed]),
        workers=workers,
    )


def gene_columns(seed: int, n_cells: int) -> list[Array]:
    """Quantised expression of genes, uint8 (n_cells,) each, drawn as in the atlas."""
    genes = Genes.of(_GENES, _DENSITY, seed)
    columns = []
    for gene in range(_GENES):
        rows, values = genes.column(gene, 0, n_cells)
        codes = np.zeros(n_cells, np.uint8)
        codes[rows] = np.rint(values * (254 / max(float(values.max(initial=0)), 1.0))).astype(np.uint8)
        columns.append(codes)
    return columns


def _fastest(work: Callable[[], object]) -> float:
    """Seconds of the fastest of several runs, of which the first is not counted."""
    work()
    times: list[float] = []
    while len(times) < _MOST_RUNS and (len(times) < 3 or sum(times) < _LEAST_SECONDS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return min(times)


def _copying(size: int, workers: int) -> float:
    source, target = np.ones(size, np.uint8), np.zeros(size, np.uint8)
    parts = list(zip(np.array_split(source, workers), np.array_split(target, workers), strict=True))
    with ThreadPoolExecutor(workers) as pool:
        return size / _fastest(lambda: list(pool.map(lambda part: np.copyto(part[1], part[0]), parts)))


def _compressing(columns: list[Array], workers: int) -> float:
    with ThreadPoolExecutor(workers) as pool:
        return _fastest(lambda: list(pool.map(lambda column: gzip.compress(column, 1), columns * workers)))


def _writing(folder: Path, block: Array, size: int) -> tuple[float, float]:
    """Bytes a second, into the page cache and until they are on the disk."""
    with TemporaryDirectory(dir=folder) as scratch:
        begin = time.perf_counter()
        descriptor = fs.create(Path(scratch, "large"))
        try:
            for _ in range(size // block.nbytes):
                fs.append(descriptor, block)
            written = time.perf_counter() - begin
            os.fsync(descriptor)
            synced = time.perf_counter() - begin
        finally:
            os.close(descriptor)
        content = size // block.nbytes * block.nbytes
        return content / written, content / synced


def _making(folder: Path, content: Array, count: int, workers: int) -> float:
    scratch = mkdtemp(dir=folder)
    with ThreadPoolExecutor(workers) as pool:
        begin = time.perf_counter()
        for _ in pool.map(lambda index: fs.write_file(Path(scratch, str(index)), [content]), range(count)):
            pass
        seconds = time.perf_counter() - begin
    fs.sync_tree(Path(scratch))  # not to slow down what is measured next
    return count / seconds
