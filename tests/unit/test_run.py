"""The team: results, failures, cancellation, memory; with threads and without."""

import threading
import time

import pytest

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.run import Team
from atlaswriter.errors import BudgetError

both = pytest.mark.parametrize("workers", [1, 4])


@pytest.fixture
def budget():
    one = Budget()
    one.limit = one.held + 100
    return one


@both
def test_results_come_by_position(workers, budget):
    def slow_first(number):
        time.sleep(0.01 * (5 - number))
        return number

    with Team(workers, budget) as team:
        assert [future.result() for future in [team.submit(slow_first, number) for number in range(5)]] == list(
            range(5)
        )
        team.wait()


@both
def test_wait_waits_for_everything(workers, budget):
    done = []
    with Team(workers, budget) as team:
        for number in range(20):
            team.submit(lambda n=number: (time.sleep(0.002), done.append(n)))
        team.wait()
        assert sorted(done) == list(range(20))


def test_one_worker_works_in_the_callers_thread(budget):
    with Team(1, budget) as team:
        future = team.submit(threading.get_ident)
        assert future.done()
        assert future.result() == threading.get_ident()


def test_many_workers_work_at_once(budget):
    barrier = threading.Barrier(3, timeout=5)
    with Team(3, budget) as team:
        for _ in range(3):
            team.submit(barrier.wait)
        team.wait()


@both
def test_failure_is_raised_and_the_rest_dropped(workers, budget):
    started = []

    def fail():
        raise KeyError("first")

    with pytest.raises(KeyError, match="first"), Team(workers, budget) as team:  # noqa: PT012
        team.submit(fail)
        for number in range(50):
            team.submit(lambda n=number: (time.sleep(0.02), started.append(n)))
        team.wait()
    assert len(started) < 50


@both
def test_failure_of_the_caller_drops_what_waits(workers, budget):
    started = []
    with pytest.raises(ZeroDivisionError), Team(workers, budget) as team:  # noqa: PT012
        if workers > 1:
            for number in range(50):
                team.submit(lambda n=number: (time.sleep(0.02), started.append(n)))
        raise ZeroDivisionError
    assert len(started) < 50


@both
def test_interrupt_passes_through(workers, budget):
    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Team(workers, budget) as team:  # noqa: PT012
        team.submit(interrupt, memory=60)
        team.wait()
    budget.take(100, "all of it is back")


@both
def test_memory_is_held_while_the_work_lasts(workers, budget):
    held = []
    with Team(workers, budget) as team:
        for _ in range(10):
            team.submit(lambda: held.append(budget._taken), memory=40)
        team.wait()
    assert len(held) == 10
    assert all(40 <= taken <= 100 for taken in held)
    assert budget._taken == 0


@both
def test_memory_comes_back_after_failures(workers, budget):
    def fail():
        raise KeyError

    with pytest.raises(KeyError), Team(workers, budget) as team:  # noqa: PT012
        for _ in range(4):
            team.submit(fail, memory=30)
        team.wait()
    assert budget._taken == 0


@both
def test_too_much_memory_is_refused_by_name(workers, budget):
    with Team(workers, budget) as team, pytest.raises(BudgetError, match="the graph needs 101 B"):
        team.submit(print, memory=101, what="the graph")
    assert budget._taken == 0


def test_a_stopped_team_takes_no_work(budget):
    with Team(2, budget) as team:
        pass
    with pytest.raises(RuntimeError):
        team.submit(print, memory=50)
    assert budget._taken == 0
