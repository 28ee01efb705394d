"""Errors say place, finding and remedy, all at once."""

import pickle

import pytest

from atlaswriter.errors import (
    AtlasWriterError,
    BudgetError,
    FormatError,
    InputError,
    OutputError,
    Problem,
    Problems,
    listed,
)


def test_problem_reads_as_a_sentence():
    assert str(Problem("obs['x']", "is bad", "drop it")) == "obs['x']: is bad → drop it"
    assert str(Problem("obs['x']", "is bad")) == "obs['x']: is bad"


def test_one_problem_is_one_line():
    assert str(InputError(Problem("a", "b"))) == "a: b"


def test_many_problems_are_a_list():
    error = InputError([Problem("a", "b"), Problem("c", "d", "e")])
    assert str(error) == "2 problems:\n  - a: b\n  - c: d → e"
    assert [problem.where for problem in error.problems] == ["a", "c"]


@pytest.mark.parametrize(
    ("kind", "base", "code"),
    [
        (InputError, ValueError, 3),
        (BudgetError, MemoryError, 4),
        (OutputError, OSError, 5),
        (FormatError, ValueError, 3),
    ],
)
def test_kinds_of_errors(kind, base, code):
    assert issubclass(kind, AtlasWriterError)
    assert issubclass(kind, base)
    assert kind.exit_code == code


@pytest.mark.parametrize(
    "error",
    [InputError([Problem("a", "b", "c"), Problem("d", "e")]), BudgetError("x"), OutputError("x"), FormatError("x")],
)
def test_errors_come_back_from_other_processes(error):
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert str(back) == str(error)
    assert getattr(back, "problems", ()) == getattr(error, "problems", ())


def test_problems_collects_and_raises_once():
    def refuse(count):
        raise InputError([Problem("x", str(number)) for number in range(count)])

    problems = Problems()
    problems.raise_if_any()
    problems.add("a", "b")
    assert problems.attempt(refuse, 2) is None
    assert problems.attempt(lambda x, y: x + y, 1, y=2) == 3
    with pytest.raises(InputError) as caught:
        problems.raise_if_any()
    assert [problem.found for problem in caught.value.problems] == ["b", "0", "1"]


def test_attempt_lets_other_errors_through():
    with pytest.raises(ZeroDivisionError):
        Problems().attempt(lambda: 1 // 0)


def test_listed_is_short():
    assert listed([]) == ""
    assert listed(["a", 2]) == "'a', '2'"
    assert listed(range(12), limit=3) == "'0', '1', '2' and 9 more"
