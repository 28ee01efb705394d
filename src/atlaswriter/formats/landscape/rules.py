"""What the rules know of one set of LandscapeFiles, and how they hand over what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from atlaswriter.findings import Findings
from atlaswriter.formats.landscape.columns import Array, Names, read_table
from atlaswriter.formats.landscape.content import Genes
from atlaswriter.formats.landscape.header import Header

# Row groups for one thread: each batch reads the footer again, in the time of some ten row groups.
_BATCH = 64

Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass
class Survey:
    """One set of files, as far as it is known.

    Attributes
    ----------
    root
        The folder, resolved.
    header
        Its parameters.
    files
        Bytes of every file that is there, by path relative to `root`.
    pool
        Threads.
    findings
        What was found so far.
    declared
        Files that belong to the set.
    """

    root: Path
    header: Header
    files: dict[str, int]
    pool: Executor
    findings: Findings = field(default_factory=Findings)
    declared: set[str] = field(default_factory=set)

    def table(self, name: str) -> pa.Table | None:
        """Content of a Parquet file that belongs to the set, or None with a finding."""
        self.declared.add(name)
        return self.attempt(read_table, self.root, name)

    def attempt(self, work: Callable[..., Value], *arguments: Any) -> Value | None:
        """Result of ``work(*arguments)``, or None with a finding."""
        with self.findings.catching():
            return work(*arguments)
        return None

    def each(self, work: Callable[[Item, Findings], Value], items: Iterable[Item]) -> list[Value | None]:
        """Results of ``work(item, findings)``, several at a time; None where a file cannot be read."""

        def one(item: Item) -> tuple[Value | None, Findings]:
            findings = Findings()
            with findings.catching():
                return work(item, findings), findings
            return None, findings

        results = []
        for value, findings in self.pool.map(one, items):
            results.append(value)
            self.findings += findings
        return results

    def within(self, folder: str) -> list[str]:
        """Names of the files directly in a folder, sorted."""
        start = f"{folder}/"
        names = (path.removeprefix(start) for path in self.files if path.startswith(start))
        return sorted(name for name in names if "/" not in name)


@dataclass
class Segmentation:
    """One segmentation's cells and genes, as far as they can be read.

    Attributes
    ----------
    name
        None for the default one.
    cells
        Names of the cells by id.
    genes
        Names of the genes by id.
    table
        Statistics and colours of the genes.
    labels
        Cluster of each cell, as a position in `clusters`; -1 where there is none.
    clusters
        Labels of the clusters.
    """

    name: str | None
    cells: Names | None = None
    genes: Names | None = None
    table: Genes | None = None
    labels: Array | None = None
    clusters: list[str] = field(default_factory=list)


def kind_matches(findings: Findings, column: pa.Array | None, int_index: bool, where: str) -> None:
    """Ids are numbers exactly where the parameters say so."""
    if column is not None and pa.types.is_integer(column.type) is not int_index:
        has, wants = ("numbers", "names") if not int_index else (str(column.type), "row numbers")
        found = f"has {has} where use_int_index = {str(int_index).lower()} makes the viewer look for {wants}"
        findings.error("ids.kind", where, found)


def batched_by_file(places: Iterable[tuple[str, Value]]) -> list[tuple[str, list[Value]]]:
    """Things in files, file by file, few enough together that threads have something to share."""
    batches: list[tuple[str, list[Value]]] = []
    for file, thing in places:
        if not batches or batches[-1][0] != file or len(batches[-1][1]) == _BATCH:
            batches.append((file, []))
        batches[-1][1].append(thing)
    return batches
