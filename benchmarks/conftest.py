"""Benchmarks import each other from the root of the repository, and end with costs per unit of work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

_COSTS: list[tuple[str, str]] = []


@pytest.fixture
def measure(benchmark: Any, request: pytest.FixtureRequest) -> Callable[..., Any]:
    """Time ``work(*args)``; its nanoseconds per unit go to ``extra_info`` and to the summary.

    `fresh` makes the arguments anew for each round, outside the time.
    """

    def run(units: dict[str, int], work: Callable[..., Any], *args: Any, fresh: Any = None) -> Any:
        if fresh is None:
            result = benchmark(work, *args)
        else:
            result = benchmark.pedantic(work, setup=lambda: (fresh(), {}), rounds=20, warmup_rounds=1)
        if benchmark.stats is not None:  # None with --benchmark-disable
            nanoseconds = benchmark.stats.stats.median * 1e9
            costs = {f"ns per {unit}": round(nanoseconds / count, 3) for unit, count in units.items()}
            benchmark.extra_info.update(costs)
            _COSTS.append((request.node.name, ", ".join(f"{cost:,.2f} {name}" for name, cost in costs.items())))
        return result

    return run


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show the costs, which pytest-benchmark writes to its JSON only."""
    if _COSTS:
        terminalreporter.section("cost per unit of work (median)")
        width = max(len(name) for name, _ in _COSTS)
        for name, cost in _COSTS:
            terminalreporter.line(f"{name:<{width}}  {cost}")
