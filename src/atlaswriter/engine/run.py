"""A team of threads that draws on one budget.

Kernels, codecs and file writes release the GIL, so threads are enough; work is handed out in
order and its results are collected by name or position, never by time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from types import TracebackType
from typing import Any, TypeVar

from atlaswriter.engine.budget import Budget

T = TypeVar("T")
Item = TypeVar("Item")


class Team:
    """Threads for one run; use as a context.

    Parameters
    ----------
    workers
        Number of threads. 1 does all work at once, in the caller's thread.
    budget
        Where the memory of each piece of work is drawn.
    """

    def __init__(self, workers: int, budget: Budget) -> None:
        self.workers = workers
        self.budget = budget
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="atlaswriter") if workers > 1 else None
        self._pending: set[Future[Any]] = set()
        self._failed: list[Future[Any]] = []

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=kind is not None)

    def submit(self, work: Callable[..., T], *args: Any, memory: int = 0, what: str = "") -> Future[T]:
        """Start a piece of work once its `memory` bytes are free.

        `what` names it in a `BudgetError`. Whoever submits is responsible for no piece needing
        more than is left beside what the submitter itself holds. When an earlier piece has failed,
        its error is raised instead.
        """
        self.raise_if_failed()
        self.budget.take(memory, what, lambda: self._pending)
        future: Future[T]
        if self._pool is None:
            future = Future()
            try:
                future.set_result(work(*args))
            finally:
                self.budget.give_back(memory)
            return future
        try:
            future = self._pool.submit(work, *args)
        except BaseException:
            self.budget.give_back(memory)
            raise
        self._pending.add(future)
        future.add_done_callback(lambda done: self._finish(done, memory))
        return future

    def in_order(self, work: Callable[[Item], T], items: Iterable[Item], *, memory: int, what: str) -> Iterator[T]:
        """Results of ``work(item)``, in the order of the items, several at work at a time.

        Each piece of work takes `memory` bytes until the next result is asked for; there are as many under way as
        there is room for, at most two for each thread and one: `in_order_room` says what they take together.
        """
        self.budget.require(memory, what)
        most = self._ahead(memory)
        self.budget.take(most * memory, what)
        waiting: deque[Future[T]] = deque()
        try:
            for item in items:
                if len(waiting) == most:
                    yield waiting.popleft().result()
                waiting.append(self.submit(work, item))
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
            self.budget.give_back(most * memory)

    def in_order_room(self, memory: int) -> int:
        """Bytes that `in_order` draws."""
        return self._ahead(memory) * memory

    def _ahead(self, memory: int) -> int:
        return max(1, min(2 * self.workers + 1, self.budget.free // max(memory, 1)))

    def _finish(self, future: Future[Any], memory: int) -> None:
        if not future.cancelled() and future.exception() is not None:
            self._failed.append(future)
        self._pending.discard(future)
        # Last, as it wakes whoever waits, who looks at the rest.
        self.budget.give_back(memory)

    def raise_if_failed(self) -> None:
        """Raise what a finished piece of work raised, if any did."""
        for future in self._failed:
            future.result()

    def wait(self) -> None:
        """Wait for everything submitted; when a piece fails, its error is raised and what has not begun is dropped."""
        pending = self._pending.copy()
        done, rest = (set(), pending) if self._failed else wait(pending, return_when=FIRST_EXCEPTION)
        if failed := [*self._failed, *(future for future in done if future.exception() is not None)]:
            for future in rest:
                future.cancel()
            failed[0].result()
