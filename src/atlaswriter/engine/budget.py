"""What the work may cost in memory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from atlaswriter.errors import BudgetError
from atlaswriter.units import format_bytes, parse_bytes, resident_memory, usable_memory

# Threads, output buffers and what the allocator keeps: 10-13 MiB beyond the buffers drawn, measured on
# 400,000 × 400 CSR, CSC and dense exports with budgets of 40 to 200 MiB.
_OVERHEAD = 16 << 20


class Budget:
    """Bytes that buffers may take; drawing waits until others have given back enough.

    Parameters
    ----------
    limit
        Largest resident size of the whole process, as a size or in bytes. None: what the process
        holds already plus half of what it may still use.

    Attributes
    ----------
    limit
        As above, in bytes.
    base
        What the process held before the work began: interpreter, libraries, the caller's data.
    free
        What the work may take.
    """

    def __init__(self, limit: str | int | None = None) -> None:
        self.base = resident_memory()
        if limit is None:
            self.limit = self.base + max(usable_memory() - self.base, 0) // 2
        else:
            self.limit = parse_bytes(limit)
        self.free = max(self.limit - self.base - _OVERHEAD, 0)
        self._taken = 0
        self._changed = threading.Condition()

    def require(self, size: int, what: str) -> None:
        """Raise `BudgetError`, with numbers, when `size` bytes can never be drawn."""
        if size > self.free:
            raise BudgetError(
                f"{what} needs {format_bytes(size)}, but of the memory budget of {format_bytes(self.limit)} "
                f"only {format_bytes(self.free)} are left beside the {format_bytes(self.base)} the process "
                f"holds already, and {format_bytes(_OVERHEAD)} for threads; the smallest budget that works is about "
                f"{-(-(self.base + _OVERHEAD + size) // 2**20)}MiB (memory_budget=, -M)"
            )

    def set_aside(self, size: int, what: str) -> None:
        """Keep `size` bytes for the whole run: they are not free any more, so nobody plans with them."""
        self.require(size, what)
        self.free -= size

    @contextmanager
    def draw(self, size: int, what: str) -> Iterator[None]:
        """Hold `size` bytes while the context lasts; waits for them, or raises `BudgetError`."""
        self.take(size, what)
        try:
            yield
        finally:
            self.give_back(size)

    def take(self, size: int, what: str) -> None:
        """Draw `size` bytes until `give_back`; waits for them, or raises `BudgetError`."""
        self.require(size, what)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + size <= self.free)
            self._taken += size

    def give_back(self, size: int) -> None:
        """Return `size` bytes drawn with `take`."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()
