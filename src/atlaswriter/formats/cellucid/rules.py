"""What the rules know of an export, and how they hand over what they find."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlaswriter.errors import listed
from atlaswriter.findings import Finding, Findings
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.rules_files import Payload
from atlaswriter.sources.untrusted import load_json


@dataclass(frozen=True)
class Task:
    """Payloads to be read, and the rule that looks at their arrays."""

    payloads: tuple[Payload, ...]
    examine: Callable[..., Iterable[Finding]]


@dataclass
class Survey:
    """What the manifests of one export say, gathered file by file.

    Attributes
    ----------
    identity
        Content of the identity, empty when it cannot be read.
    n_cells
        Number of cells, as soon as a file has told.
    dimensions
        Dimensions of the embeddings.
    tasks
        Payloads that must be there, with their rules.
    declared
        Every file that the manifests account for.
    uncertain
        Folders whose manifest cannot be read, so that nothing in them can be called stale.
    centroids
        By dimension, ``(field, category, position)``.
    """

    root: Path
    layout: Layout
    findings: Findings = field(default_factory=Findings)
    identity: dict[str, Any] = field(default_factory=dict)
    n_cells: int | None = None
    dimensions: list[int] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    declared: set[str] = field(default_factory=set)
    uncertain: set[str] = field(default_factory=set)
    centroids: dict[int, list[tuple[str, str, tuple[float, ...]]]] = field(default_factory=dict)

    def load(self, name: str, directory: str) -> dict[str, Any] | None:
        """Content of a manifest, or None with a finding."""
        self.declared.add(name)
        with self.findings.catching():
            return load_json(self.root, name)
        self.uncertain.add(directory)
        return None

    def add(self, examine: Callable[..., Iterable[Finding]], *payloads: Payload) -> None:
        """Ask for payloads to be read; without a number of cells, only note that they belong here."""
        if self.n_cells is not None:
            self.tasks.append(Task(payloads, examine))
        self.declared.update(payload.path for payload in payloads)

    def same_cells(self, n_cells: int, where: str) -> None:
        """Compare a manifest's number of cells with what was known before."""
        if self.n_cells is None:
            self.n_cells = n_cells
        elif n_cells != self.n_cells:
            found = f"{n_cells:,} cells, but {self.n_cells:,} elsewhere; files of two exports are mixed"
            self.findings.error("counts.cells", where, found, "remove the folder and export again")

    def compression(self, level: object, paths: Iterable[str], where: str) -> None:
        """The stated level is null or 1 to 9 and fits the paths."""
        if level is not None and (isinstance(level, bool) or level not in range(1, 10)):
            self.findings.strict("compression", where, f"compression is {level!a}, neither null nor 1 to 9")
        wrong = [path for path in paths if path.endswith(".gz") is (level is None)]
        if wrong:
            found = f"compression is {level!a}, which does not fit {listed(sorted(wrong), 3)}"
            self.findings.strict("compression", where, found)

    def exact_keys(self, found: dict[str, Any], wanted: Iterable[str], what: str, where: str) -> None:
        """The strict viewer wants exactly the keys of the layout."""
        missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
        parts = [f"{word} {', '.join(map(ascii, keys))}" for word, keys in (("no", missing), ("extra", extra)) if keys]
        if parts:
            self.findings.strict("keys.exact", where, f"{what} has {'; '.join(parts)}")
