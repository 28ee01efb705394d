"""Atlases of any size as .h5ad, written block by block: 100 million cells in well under 1 GiB of memory.

Densities of genes and sizes of cells vary log-normally, counts are geometric, X holds log1p. Equal arguments give
equal contents, whatever the number of threads; CSC is another draw of the same distribution than CSR and dense, which
are the same matrix. Cells stand in random order, as is worst for whoever compresses their columns. Names of cells are
strings of fixed length, which anndata reads as any others.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from atlaswriter.bench.sampling import WINDOW_BITS, Array, Genes, graph_rows
from atlaswriter.units import usable_cpus

DEFAULT_OBS = ("cell_type:30", "donor:200", "n_counts", "n_genes", "pct_mito", "score")
# Cells of a block of obs and obsm: random numbers begin anew in each, so this is part of the contents.
_BLOCK = 1 << 20
# Entries of a block of a matrix: 32 MiB of indices and as much of values, for each thread.
_ENTRIES = 1 << 23
# Cells of a gene in CSC that are drawn together; part of the contents as well.
_COLUMN_PART = 1 << 23
_THREADS = min(4, usable_cpus())
_TEXT = h5py.string_dtype()
# Version of the contents that a recipe gives; a file of another one is made anew.
_VERSION = 1


@dataclass(frozen=True)
class Recipe:
    """What to put into a file.

    Attributes
    ----------
    cells, genes
        Shape of X; without genes there is no X.
    density
        Share of X that is not zero, about.
    latent
        Dimensions of ``obsm['X_pca']``, 0 for none. ``X_umap_2d`` and ``X_umap_3d`` are there always.
    obs
        ``name`` of a continuous column (float32) or ``name:K`` of a categorical one of K categories.
    layout
        How X is stored: csr, csc or dense, always float32.
    compression
        none, gzip or lzf, of every array.
    chunk
        Entries (rows of 2D arrays) of a chunk; 0: contiguous, or what h5py chooses where it compresses.
    neighbors
        Of each cell in ``obsp['connectivities']``, 0 for no graph.
    seed
        Of all random numbers.
    """

    cells: int
    genes: int
    density: float = 0.07
    latent: int = 10
    obs: tuple[str, ...] = DEFAULT_OBS
    layout: Literal["csr", "csc", "dense"] = "csr"
    compression: Literal["none", "gzip", "lzf"] = "none"
    chunk: int = 0
    neighbors: int = 0
    seed: int = 0

    def stamp(self) -> str:
        """What the file says of itself."""
        return json.dumps({**asdict(self), "version": _VERSION}, sort_keys=True)


def ensure(path: Path, recipe: Recipe) -> dict[str, Any]:
    """Generate the file unless it is there already; what it holds (see `describe`), and how long that took."""
    reused, begin = is_made_by(path, recipe), time.perf_counter()
    if not reused:
        path.parent.mkdir(parents=True, exist_ok=True)
        generate(path, recipe)
    seconds = time.perf_counter() - begin
    return {**describe(path), "generated_in_seconds": None if reused else round(seconds, 2)}


def is_made_by(path: Path, recipe: Recipe) -> bool:
    """Whether a file is what `generate` makes of a recipe."""
    if not path.is_file():
        return False
    try:
        with h5py.File(path) as file:
            return bool(file.attrs.get("recipe") == recipe.stamp())
    except OSError:
        return False


def describe(path: Path) -> dict[str, Any]:
    """Cells, genes, stored values and bytes of a generated file."""
    with h5py.File(path) as file:
        recipe = json.loads(str(file.attrs["recipe"]))
        matrix = file.get("X")
        nonzeros = 0 if matrix is None else matrix["data"].size if isinstance(matrix, h5py.Group) else matrix.size
    known = {key: recipe[key] for key in ("cells", "genes", "layout", "compression")}
    return {**known, "nonzeros": int(nonzeros), "input_bytes": path.stat().st_size}


def generate(path: Path, recipe: Recipe) -> None:
    """Write a file; it appears under its name when it is complete."""
    unfinished = path.with_name(path.name + ".part")
    with h5py.File(unfinished, "w") as file:
        _encoded(file, "anndata", "0.1.0")
        for name in ("layers", "obsm", "obsp", "uns", "varm", "varp"):
            _encoded(file.create_group(name), "dict", "0.1.0")
        writer = _Writer(recipe)
        writer.obs(file)
        writer.var(file)
        writer.obsm(file["obsm"])
        if recipe.genes:
            {"csr": writer.csr, "csc": writer.csc, "dense": writer.dense}[recipe.layout](file)
        if recipe.neighbors:
            writer.graph(file["obsp"])
        file.attrs["recipe"] = recipe.stamp()
    unfinished.replace(path)


def _encoded(thing: Any, kind: str, version: str) -> Any:
    thing.attrs["encoding-type"], thing.attrs["encoding-version"] = kind, version
    return thing


class _Writer:
    """Writes the parts of a recipe, one after the other."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._genes = Genes.of(recipe.genes, recipe.density, recipe.seed)
        self._blocks = list(_ranges(recipe.cells, _BLOCK))

    def obs(self, file: h5py.File) -> None:
        """The table of cells."""
        columns = [name.partition(":")[::2] for name in self._recipe.obs]
        group = self._table(file, "obs", [name for name, _ in columns])
        digits = len(str(max(self._recipe.cells - 1, 0)))
        index = self._dataset(group, "_index", (self._recipe.cells,), f"S{digits + 1}", "string-array")
        self._fill(index, lambda first, last: _names(first, last, digits))
        kind = 0
        for stream, (name, categories) in enumerate(columns):
            if categories:
                self._categorical(group, name, stream, int(categories))
            else:
                values = self._dataset(group, name, (self._recipe.cells,), np.float32)
                self._fill(values, partial(self._continuous, stream, kind))
                kind += 1

    def _categorical(self, obs: h5py.Group, name: str, stream: int, categories: int) -> None:
        group = _encoded(obs.create_group(name), "categorical", "0.2.0")
        group.attrs["ordered"] = False
        labels = [f"{name} {position}" for position in range(categories)]
        _encoded(group.create_dataset("categories", data=labels, dtype=_TEXT), "string-array", "0.2.0")
        dtype = np.int8 if categories <= 127 else np.int16  # as pandas chooses
        codes = self._dataset(group, "codes", (self._recipe.cells,), dtype)
        self._fill(codes, lambda first, _last: self._codes(stream, categories, first).astype(dtype))

    def var(self, file: h5py.File) -> None:
        """The table of genes."""
        names = [f"gene-{number}" for number in range(self._recipe.genes)]
        group = self._table(file, "var", [])
        _encoded(group.create_dataset("_index", data=names, dtype=_TEXT), "string-array", "0.2.0")

    def obsm(self, group: h5py.Group) -> None:
        """Latent space, and embeddings: its first dimensions."""
        cells, latent = self._recipe.cells, self._recipe.latent
        arrays = [self._dataset(group, f"X_umap_{dim}d", (cells, dim), np.float32) for dim in (2, 3)]
        if latent:
            arrays.append(self._dataset(group, "X_pca", (cells, latent), np.float32))
        for (first, last), points in self._ahead(lambda block: self._points(block[0]), self._blocks):
            for array in arrays:
                array[first:last] = points[:, : array.shape[1]]

    def csr(self, file: h5py.File) -> None:
        """X by rows."""
        blocks, counts = self._counted()
        group, indptr, indices, data = self._compressed(file, "X", "csr_matrix", self._recipe.cells, sum(counts))
        group.attrs["shape"] = np.array([self._recipe.cells, self._recipe.genes])
        work = [(*block, count) for block, count in zip(blocks, counts, strict=True)]
        self._put_rows(self._ahead(lambda item: self._genes.rows(*item), work), indptr, indices, data)

    def csc(self, file: h5py.File) -> None:
        """X by columns."""
        cells, genes = self._recipe.cells, self._recipe.genes
        work = [(gene, *part) for gene in range(genes) for part in _ranges(cells, _COLUMN_PART)]
        sizes = [entries[0].size for _, entries in self._ahead(lambda item: self._genes.column(*item), work)]
        group, indptr, indices, data = self._compressed(file, "X", "csc_matrix", genes, sum(sizes))
        group.attrs["shape"] = np.array([cells, genes])
        starts = np.r_[0, np.cumsum(sizes)]
        indptr[:] = starts[:: max(1, len(work) // max(genes, 1))]
        for start, (_, (rows, values)) in zip(
            starts[:-1].tolist(), self._ahead(lambda item: self._genes.column(*item), work), strict=True
        ):
            indices[start : start + rows.size], data[start : start + rows.size] = rows, values

    def dense(self, file: h5py.File) -> None:
        """X in full: the matrix of `csr`."""
        shape = (self._recipe.cells, self._recipe.genes)
        array = self._dataset(file, "X", shape, np.float32)
        for (first, last), rows in self._ahead(self._dense_rows, _ranges(shape[0], max(1, 2 * _ENTRIES // shape[1]))):
            array[first:last] = rows

    def graph(self, group: h5py.Group) -> None:
        """Neighbours of cells."""
        cells, neighbors, key = self._recipe.cells, self._recipe.neighbors, self._genes.key
        window = 1 << WINDOW_BITS
        whole = cells // window * window
        nonzeros = whole * neighbors + graph_rows(whole, cells, cells, neighbors, key)[1].size
        found, indptr, indices, data = self._compressed(group, "connectivities", "csr_matrix", cells, nonzeros)
        found.attrs["shape"] = np.array([cells, cells])
        blocks = _ranges(cells, max(1, _ENTRIES // neighbors // window) * window)
        rows = self._ahead(lambda block: graph_rows(block[0], block[1], cells, neighbors, key), blocks)
        self._put_rows(rows, indptr, indices, data)

    def _counted(self) -> tuple[list[tuple[int, int]], list[int]]:
        """Blocks of rows of X, and the non-zeros of each."""
        blocks = list(_ranges(self._recipe.cells, min(_BLOCK, max(1, int(_ENTRIES / max(self._genes.per_cell, 1))))))
        return blocks, [count for _, count in self._ahead(lambda block: self._genes.count(*block), blocks)]

    def _dense_rows(self, block: tuple[int, int]) -> Array:
        indptr, indices, values = self._genes.rows(*block, self._genes.count(*block))
        rows = np.zeros((block[1] - block[0], self._recipe.genes), np.float32)
        rows[np.repeat(np.arange(len(rows)), np.diff(indptr)), indices] = values
        return rows

    def _compressed(self, parent: Any, name: str, kind: str, major: int, nonzeros: int) -> tuple[Any, ...]:
        group = _encoded(parent.create_group(name), kind, "0.1.0")
        wide = np.int64 if nonzeros >= 2**31 else np.int32
        indptr = self._dataset(group, "indptr", (major + 1,), wide, None)
        indices = self._dataset(group, "indices", (nonzeros,), np.int32, None)
        return group, indptr, indices, self._dataset(group, "data", (nonzeros,), np.float32, None)

    @staticmethod
    def _put_rows(rows: Iterator[tuple[Any, tuple[Array, Array, Array]]], indptr: Any, indices: Any, data: Any) -> None:
        start = 0
        for (first, last, *_), (pointers, columns, values) in rows:
            stop = start + columns.size
            indptr[first : last + 1] = pointers + start
            indices[start:stop], data[start:stop] = columns, values
            start = stop

    def _table(self, file: h5py.File, name: str, columns: list[str]) -> h5py.Group:
        group = _encoded(file.create_group(name), "dataframe", "0.2.0")
        group.attrs["_index"] = "_index"
        group.attrs["column-order"] = np.array(columns, dtype=_TEXT)
        return group

    def _dataset(
        self, group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, encoding: str | None = "array"
    ) -> h5py.Dataset:
        storage: dict[str, Any] = {}
        if self._recipe.compression != "none" and shape[0]:
            storage = {"compression": self._recipe.compression}
        if self._recipe.chunk and shape[0]:
            storage["chunks"] = (min(self._recipe.chunk, shape[0]), *shape[1:])
        array = group.create_dataset(name, shape, dtype, **storage)
        return array if encoding is None else _encoded(array, encoding, "0.2.0")

    def _fill(self, array: h5py.Dataset, make: Callable[[int, int], Array]) -> None:
        for (first, last), values in self._ahead(lambda block: make(*block), self._blocks):
            array[first:last] = values

    @staticmethod
    def _ahead(make: Callable[[Any], Any], work: Any) -> Iterator[tuple[Any, Any]]:
        """Each piece of work with its result, in order; threads make the next ones meanwhile."""
        with ThreadPoolExecutor(_THREADS) as pool:
            running: deque[tuple[Any, Future[Any]]] = deque()
            for item in work:
                running.append((item, pool.submit(make, item)))
                if len(running) > _THREADS:
                    done, future = running.popleft()
                    yield done, future.result()
            while running:
                done, future = running.popleft()
                yield done, future.result()

    def _random(self, stream: int, first: int) -> np.random.Generator:
        return np.random.default_rng([self._recipe.seed, stream, first // _BLOCK])

    def _size(self, first: int) -> int:
        return min(_BLOCK, self._recipe.cells - first)

    def _codes(self, stream: int, categories: int, first: int) -> Array:
        """Categories of a block of cells, the k-th about as often as k^-1.3, none of them empty in many cells."""
        shares = np.arange(1, categories + 1) ** -1.3
        slots = np.maximum(np.floor((1 << 16) * shares / shares.sum()), 1).astype(np.int64)
        slots[0] += (1 << 16) - slots.sum()
        table = np.repeat(np.arange(categories, dtype=np.int16), slots)
        return table[self._random(2 + stream, first).integers(1 << 16, size=self._size(first), dtype=np.uint16)]

    def _continuous(self, stream: int, kind: int, first: int, _last: int) -> Array:
        """A block of a column: totals, counts, percentages or scores, in turn."""
        normal = self._random(2 + stream, first).standard_normal(self._size(first), np.float32)
        kinds: Sequence[Callable[[], Array]] = (
            lambda: np.exp(np.float32(0.6) * normal + np.float32(8)),
            lambda: np.rint(np.exp(np.float32(0.5) * normal + np.float32(7))),
            lambda: np.float32(100) / (1 + np.exp(np.float32(3) - normal)),
            lambda: normal,
        )
        return kinds[kind % len(kinds)]()

    def _points(self, first: int) -> Array:
        """Latent coordinates of a block: a cloud for each category of the first categorical column."""
        dimensions = max(self._recipe.latent, 3)
        points = self._random(0, first).standard_normal((self._size(first), dimensions), np.float32)
        for stream, column in enumerate(self._recipe.obs):
            _, _, categories = column.partition(":")
            if categories:
                random = np.random.default_rng([self._recipe.seed, 1])
                centers = random.normal(0, 4, (int(categories), dimensions)).astype(np.float32)
                points += centers[self._codes(stream, int(categories), first)]
                break
        return points


def _ranges(n: int, step: int) -> Iterator[tuple[int, int]]:
    return pairwise([*range(0, n, step), n]) if n else iter(())


def _names(first: int, last: int, digits: int) -> Array:
    """``c000``, ``c001`` ... as bytes."""
    text = np.empty((last - first, digits + 1), np.uint8)
    text[:, 0] = ord("c")
    rest = np.arange(first, last)
    for place in range(digits, 0, -1):
        rest, digit = np.divmod(rest, 10)
        text[:, place] = digit + ord("0")
    return text.view(f"S{digits + 1}")[:, 0]
