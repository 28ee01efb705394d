"""What a thread keeps of an array between two slices."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import Any

from atlaswriter.sources.base import Array

# Arrays of which a thread keeps something: the three parts of a sparse matrix, and one more.
_MOST = 4

_threads = threading.local()


class Kept:
    """A block that was decoded and used in part.

    Attributes
    ----------
    key
        Which block; None without one.
    block
        Its content.
    """

    def __init__(self) -> None:
        self.key: Any = None
        self.block: Array | None = None

    def clear(self) -> None:
        """Release the block."""
        self.key = self.block = None

    def keep(self, key: Any, block: Array) -> None:
        """Keep a block, and release those of arrays that this thread has not used for long."""
        self.key, self.block = key, block
        recent: deque[weakref.ref[Kept]] = _threads.__dict__.setdefault("recent", deque())
        mine = weakref.ref(self)
        if mine in recent:
            recent.remove(mine)
        recent.append(mine)
        while len(recent) > _MOST:
            oldest = recent.popleft()()
            if oldest is not None:
                oldest.clear()


class Keeper:
    """One `Kept` for each thread that reads an array; all are released with it."""

    def __init__(self) -> None:
        self._local = threading.local()

    def of_this_thread(self) -> Kept:
        """What this thread keeps."""
        kept: Kept | None = getattr(self._local, "kept", None)
        if kept is None:
            kept = self._local.kept = Kept()
        return kept
