"""What an export will do and cost, as numbers to look at before it starts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from atlaswriter.engine.strategy import Choice
from atlaswriter.report import html_table, text_table
from atlaswriter.units import format_bytes


@dataclass(frozen=True)
class Plan:
    """Estimates of one export.

    Attributes
    ----------
    choice
        How expression is regrouped; None without expression.
    seconds
        About how long it takes with `workers` threads; measured on 2 cores of a server, warm files.
    memory
        Largest resident size of the process, bytes: never more than `budget`.
    least
        Smallest budget that works, bytes.
    spill_bytes, files, bytes_out
        Temporary files, and what will be written.
    """

    workers: int
    budget: int
    choice: Choice | None
    seconds: float
    memory: int
    least: int
    spill_bytes: int
    files: int
    bytes_out: int

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)

    def _rows(self) -> list[tuple[str, str]]:
        return [
            (
                "time",
                f"about {self.seconds:,.0f} s with {self.workers} threads" if self.seconds >= 1 else "about a second",
            ),
            ("memory", f"at most {format_bytes(self.memory)} of {format_bytes(self.budget)}"),
            ("smallest budget", format_bytes(self.least)),
            ("regrouping", "no expression" if self.choice is None else str(self.choice)),
            ("temporary files", format_bytes(self.spill_bytes) if self.spill_bytes else "none"),
            ("output", f"about {format_bytes(self.bytes_out)} in {self.files:,} files"),
        ]

    def __str__(self) -> str:
        return text_table(self._rows())

    def _repr_html_(self) -> str:
        return html_table(self._rows())
