"""Progress by bytes: a bar on a terminal or in a notebook, plain lines elsewhere, or nothing."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from atlaswriter.units import format_bytes

log = logging.getLogger(__name__)

# A log file should tell that the work is alive without being filled by it.
_SECONDS_BETWEEN_LINES = 10.0
# Work shorter than this shows no bar.
_BAR_DELAY_SECONDS = 0.5


class Progress:
    """Counts bytes done in the current phase; safe to call from several threads.

    Parameters
    ----------
    show
        True: always show; False: never; None: show a bar when standard error is a terminal.
    """

    def __init__(self, show: bool | None = None) -> None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
        self._bar_wanted = bool(show if show is not None else terminal) and (terminal or _in_notebook())
        self._lines_wanted = bool(show) and not self._bar_wanted
        self._lock = threading.Lock()
        self._bar: Any = None
        self._name = ""
        self._total = self._done = 0
        self._last_line = 0.0

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[None]:
        """Begin a phase of `total` bytes; ends with the context."""
        self._name, self._total, self._done = name, total, 0
        self._last_line = time.monotonic()
        if self._bar_wanted:
            from tqdm.auto import tqdm

            self._bar = tqdm(
                total=total,
                desc=name,
                unit="B",
                unit_scale=True,
                leave=False,
                delay=_BAR_DELAY_SECONDS,
                mininterval=0.2,
            )
        try:
            yield
        finally:
            if self._bar is not None:
                self._bar.close()
                self._bar = None

    def add(self, size: int) -> None:
        """`size` more bytes are done."""
        with self._lock:
            self._done += size
            if self._bar is not None:
                self._bar.update(size)
            elif self._lines_wanted and time.monotonic() - self._last_line >= _SECONDS_BETWEEN_LINES:
                self._last_line = time.monotonic()
                share = 100 * self._done / self._total if self._total else 100.0
                log.info(
                    "%s: %s of %s (%.0f %%)", self._name, format_bytes(self._done), format_bytes(self._total), share
                )


def _in_notebook() -> bool:
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and hasattr(shell, "kernel")
