"""What the work may cost in memory."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable

from atlaswriter.errors import BudgetError
from atlaswriter.sources.base import AnyArray, n_bytes, overhead
from atlaswriter.sources.lazy import is_stored, load
from atlaswriter.units import (
    format_bytes,
    parse_bytes,
    resident_memory,
    return_freed_memory,
    trim_memory,
    usable_memory,
)

# What numba and cached kernels take once they are loaded, and kernels alone; compiling them takes 60 MiB more.
_KERNELS, _MACHINE_CODE = 160 << 20, 80 << 20
# Threads, output buffers and what the allocator keeps: 10-13 MiB beyond the buffers drawn, measured on
# 400,000 × 400 CSR, CSC and dense exports with budgets of 40 to 200 MiB.
_OVERHEAD = 16 << 20


def _still_to_be_loaded() -> int:
    """Bytes that numba and kernels will take."""
    if "numba" not in sys.modules:
        return _KERNELS
    kernels = sys.modules.get("atlaswriter.kernels._jit")
    return 0 if kernels is not None and kernels.any_ready() else _MACHINE_CODE


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
        What the process holds beside the work: interpreter, libraries, the caller's data.
    free
        What the work may take.
    peak
        The most that was ever drawn.
    """

    def __init__(self, limit: str | int | None = None) -> None:
        return_freed_memory()
        trim_memory()
        self.base = resident_memory() + _still_to_be_loaded()
        if limit is None:
            self.limit = self.base + max(usable_memory() - self.base, 0) // 2
        else:
            self.limit = parse_bytes(limit)
        self._offered = self._kept = self._aside = self._taken = self.peak = 0
        self._changed = threading.Condition()

    @property
    def free(self) -> int:
        """What the work may take, bytes."""
        return max(self.limit - self.base - _OVERHEAD - self._kept - self._aside, 0)

    def settle(self) -> None:
        """Take what the process really holds for the base, once all libraries and kernels are loaded."""
        trim_memory()
        self.base = max(resident_memory() - self._kept - self._taken, 0)

    def smallest_for(self, size: int) -> int:
        """The smallest limit with which `size` bytes are free beside the arrays that are kept."""
        return self.base + _OVERHEAD + self._aside + size + min(self._offered, size // 3 + 1)

    def require(self, size: int, what: str) -> None:
        """Raise `BudgetError`, with numbers, when `size` bytes can never be drawn."""
        if size > self.free:
            held, smallest = self.base + self._kept + self._aside, -(-self.smallest_for(size) // 2**20)
            raise BudgetError(
                f"{what} needs {format_bytes(size)}, but of the memory budget of {format_bytes(self.limit)} "
                f"only {format_bytes(self.free)} are left beside the {format_bytes(held)} the process holds already, "
                f"and {format_bytes(_OVERHEAD)} for threads; the smallest budget that works is about "
                f"{smallest}MiB (memory_budget=, -M)"
            )

    @property
    def held(self) -> int:
        """Bytes of the process when nothing is drawn."""
        return self.base + _OVERHEAD + self._kept + self._aside

    def set_aside(self, size: int, what: str) -> None:
        """Keep `size` bytes for the whole run: they are not free any more, so nobody plans with them."""
        self.require(size, what)
        self._aside += size

    def keep(self, array: AnyArray, workers: int) -> AnyArray:
        """An array in memory for the whole run if it is small beside the budget, else as it is.

        What is used several times is better read once; a quarter of what is free is for such arrays.
        """
        size = n_bytes(array) if is_stored(array) else 0
        self._offered += size
        if not size or size + overhead(array) * workers + self._kept > (self.free + self._kept) // 4:
            return array
        self._kept += size
        return load(array, workers)

    def take(self, size: int, what: str, others: Callable[[], object] = lambda: True) -> None:
        """Draw `size` bytes until `give_back`; waits for them, or raises `BudgetError`.

        `others` says whether anybody is left who may give some back.
        """
        self.require(size, what)
        with self._changed:
            self._changed.wait_for(lambda: self._taken + size <= self.free or not others())
            if self._taken + size > self.free:
                taken = format_bytes(self._taken)
                found = f"{what} needs {format_bytes(size)} of {format_bytes(self.free)}, of which {taken} are taken"
                raise BudgetError(f"{found}; this should have been planned for: report it, and use a larger budget")
            self._taken += size
            self.peak = max(self.peak, self._kept + self._aside + self._taken)

    def give_back(self, size: int) -> None:
        """Return `size` bytes drawn with `take`."""
        with self._changed:
            self._taken -= size
            self._changed.notify_all()
