"""Benchmarks import each other from the root of the repository, and end with costs per unit of work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

_COSTS: list[tuple[str, str]] = []
_ROUNDS = 20


def _note(benchmark: Any, request: pytest.FixtureRequest, units: dict[str, int]) -> None:
    """Keep what a unit of work takes; of bytes also how many a second takes."""
    if benchmark.stats is None:  # with --benchmark-disable
        return
    seconds = benchmark.stats.stats.median
    costs = {f"ns per {unit}": round(seconds * 1e9 / count, 3) for unit, count in units.items()}
    if "byte" in units:
        costs["MB/s"] = round(units["byte"] / seconds / 1e6, 1)
    benchmark.extra_info.update(costs)
    name = f"{request.path.stem}.{request.node.name}".replace("test_", "")
    _COSTS.append((name, ", ".join(f"{cost:,.2f} {unit}" for unit, cost in costs.items())))


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Time ``work(*args)`` and return its result; cost per unit goes to ``extra_info`` and to the summary."""

    def run(units: dict[str, int], work: Callable[..., Any], *args: Any) -> Any:
        result = benchmark(work, *args)
        _note(benchmark, request, units)
        return result

    return run


@pytest.fixture
def measure_fresh(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """As `measure`, of work that changes its arguments: ``make()`` makes them for each round, outside the time.

    Returns the last result and the arguments it was made with.
    """

    def run(units: dict[str, int], work: Callable[..., Any], make: Callable[[], tuple[Any, ...]]) -> Any:
        last: tuple[Any, ...] = ()

        def setup() -> tuple[tuple[Any, ...], dict[str, Any]]:
            nonlocal last
            last = make()
            return last, {}

        result = benchmark.pedantic(work, setup=setup, rounds=_ROUNDS, warmup_rounds=1)
        _note(benchmark, request, units)
        return result, last

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the costs, which pytest-benchmark writes to its JSON only."""
    if _COSTS:
        terminalreporter.section("cost per unit of work (median)")
        width = max(len(name) for name, _ in _COSTS)
        for name, cost in _COSTS:
            terminalreporter.line(f"{name:<{width}}  {cost}")
