"""What happened in one run: for people, for machines and for notebooks."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from atlaswriter.units import format_bytes, peak_memory


@dataclass
class Phase:
    """One part of the work: its name, wall-clock seconds, and bytes of data it went through."""

    name: str
    seconds: float
    bytes: int = 0


@dataclass
class Report:
    """Summary of a finished export.

    Attributes
    ----------
    output
        Path of what was written.
    format
        Name of the format, such as ``"cellucid v1"``.
    contents
        Counts and choices, in the order they are shown: cells, genes, embeddings ...
    phases
        Where the time went. Phases that ran side by side overlap.
    seconds
        Wall-clock time of the whole run.
    bytes_in
        Bytes of the arrays that were exported, as held in memory.
    bytes_out, files
        Bytes and number of files written.
    spill_bytes
        Bytes of temporary files.
    peak_memory
        Largest resident size of the process so far, bytes.
    warnings
        Everything worth a second look.
    renamed
        ``(kind, old, new)`` of every key that was changed.
    """

    output: str
    format: str
    contents: dict[str, Any] = field(default_factory=dict)
    phases: list[Phase] = field(default_factory=list)
    seconds: float = 0.0
    bytes_in: int = 0
    bytes_out: int = 0
    files: int = 0
    spill_bytes: int = 0
    peak_memory: int = 0
    warnings: list[str] = field(default_factory=list)
    renamed: list[tuple[str, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._started = time.perf_counter()

    @contextmanager
    def phase(self, name: str, size: int = 0) -> Iterator[Phase]:
        """Time one part of the work; `size` bytes may also be set on the phase inside.

        A name that comes again goes on with its phase.
        """
        phase = next((known for known in self.phases if known.name == name), None)
        if phase is None:
            phase = Phase(name, 0.0, size)
            self.phases.append(phase)
        start = time.perf_counter()
        try:
            yield phase
        finally:
            phase.seconds += time.perf_counter() - start

    def close(self) -> None:
        """Take the final time and peak memory."""
        self.seconds = time.perf_counter() - self._started
        self.peak_memory = peak_memory()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Report:
        """The opposite of `to_dict`."""
        phases = [Phase(**phase) for phase in content["phases"]]
        renamed = [(kind, old, new) for kind, old, new in content["renamed"]]
        return cls(**{**content, "phases": phases, "renamed": renamed})

    def to_json(self) -> str:
        """One JSON object."""
        return json.dumps(self.to_dict())

    def _rows(self) -> list[tuple[str, str]]:
        rate = self.bytes_in / self.seconds / 1e6 if self.seconds else 0.0
        rows = [("output", self.output), ("format", self.format)]
        rows += [(name, _shown(value)) for name, value in self.contents.items()]
        rows += [
            ("time", f"{self.seconds:.2f} s ({rate:,.0f} MB/s of input)"),
            ("phases", ", ".join(f"{phase.name} {phase.seconds:.2f} s" for phase in self.phases)),
            ("written", f"{format_bytes(self.bytes_out)} in {self.files:,} files"),
            ("peak memory", format_bytes(self.peak_memory)),
        ]
        rows += [("temporary files", format_bytes(self.spill_bytes))] if self.spill_bytes else []
        rows += [(f"renamed {kind}", f"{old} → {new}") for kind, old, new in self.renamed]
        return rows + [("warning", text) for text in self.warnings]

    def __str__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())


def text_table(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns for a terminal."""
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)


def html_table(rows: Iterable[tuple[str, str]]) -> str:
    """Two columns for a notebook."""
    left = "style='text-align:left'"
    cells = (f"<tr><th {left}>{html.escape(name)}</th><td {left}>{html.escape(text)}</td></tr>" for name, text in rows)
    return f"<table>{''.join(cells)}</table>"


def _shown(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | list | tuple | dict):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(item)}" for name, item in value.items()) or "none"
    names = [str(item) for item in value]
    return ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "") or "none"
