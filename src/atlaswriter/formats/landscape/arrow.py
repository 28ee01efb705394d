"""Memory of Arrow while an export runs."""

from __future__ import annotations

import threading

import pyarrow as pa


class SystemMemory:
    """Lets Arrow use the C library's memory, which is told to give back what is free; its own pools keep it.

    Exports may overlap: the last one to end restores the pool that the first one found.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._users, self._before = 0, pa.default_memory_pool()

    def __enter__(self) -> None:
        with self._guard:
            if not self._users:
                self._before = pa.default_memory_pool()
                pa.set_memory_pool(pa.system_memory_pool())
            self._users += 1

    def __exit__(self, *error: object) -> None:
        with self._guard:
            self._users -= 1
            if not self._users:
                pa.set_memory_pool(self._before)


system_memory = SystemMemory()
