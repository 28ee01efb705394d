"""Being told to end: it takes effect where what was begun can be put in order."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

# What schedulers send before they kill, and terminals when they are closed.
_TOLD_TO_END = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def ending_cleanly() -> Iterator[None]:
    """Raise `SystemExit` in the context, with 128 and the number of the signal, where it would end the process."""

    def end(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    with _handled(_TOLD_TO_END, end):
        yield


@contextmanager
def held() -> Iterator[None]:
    """Let signals that end the process, and Ctrl-C, take effect at the end of the context."""
    came: list[int] = []
    try:
        with _handled((*_TOLD_TO_END, signal.SIGINT), lambda number, _: came.append(number)):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


@contextmanager
def _handled(numbers: Sequence[signal.Signals], handler: Callable[[int, Any], None]) -> Iterator[None]:
    """Handle signals, but for those that are ignored; only the main thread is ever interrupted by them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    known = {number: signal.getsignal(number) for number in numbers}
    changed = {number: before for number, before in known.items() if before not in {signal.SIG_IGN, None}}
    try:
        for number in changed:
            signal.signal(number, handler)
        yield
    finally:
        for number, before in changed.items():
            signal.signal(number, before)
