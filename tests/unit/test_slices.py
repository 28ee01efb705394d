"""Which tasks of a stage a process does."""

import pytest

from atlaswriter.engine.plan import ranges_of
from atlaswriter.engine.slices import chosen_tasks
from atlaswriter.errors import InputError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, [0, 1, 2, 3, 4, 5, 6]),
        ("0-6", [0, 1, 2, 3, 4, 5, 6]),
        ("3", [3]),
        ("3,5", [3, 5]),
        ("5, 3,3-4", [3, 4, 5]),
        ("2-2", [2]),
        ("0/1", [0, 1, 2, 3, 4, 5, 6]),
        ("1/3", [2, 3]),
        ("3/9", [2]),
        ("4/9", []),  # more slices than tasks
        ([4, 1, 1], [1, 4]),
        ((), []),
        (range(2), [0, 1]),
    ],
    ids=repr,
)
def test_chosen(given, expected):
    assert chosen_tasks(given, 7) == expected


@pytest.mark.parametrize("count", [1, 2, 3, 6, 7, 8, 50])
def test_slices_have_every_task_once_and_are_about_equal(count):
    slices = [chosen_tasks(f"{position}/{count}", 7) for position in range(count)]
    assert [number for some in slices for number in some] == list(range(7))
    assert max(map(len, slices)) - min(map(len, slices)) <= 1


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("7", "there is no task 7 → there are 0 to 6"),
        ("7-9", "there is no task 7"),
        ("99", "there is no task 99"),
        ("5-999999999", "there is no task 999999999"),
        ("4-2", "'4-2' is empty"),
        ("", "'' is not understood"),
        ("1,", "'' is not understood"),
        ("-1", "'-1' is not understood"),
        ("1-", "'1-' is not understood"),
        ("1.5", "'1.5' is not understood"),
        ("1-2-3", "'1-2-3' is not understood"),
        ("all", "'all' is not understood"),
        ("AUTO", "'AUTO' is not understood"),
        ("1:3", "'1:3' is not understood"),
        ("0-10000000000", "is not understood"),
        ("1/2/3", "is not understood"),
        ("3/3", "there is no slice 3 of 3 → slices count from 0"),
        ("0/0", "there is no slice 0 of 0"),
        ("-1/3", "is not understood"),
        ([7], "there is no task 7"),
        ([-1], "there is no task -1"),
    ],
    ids=repr,
)
def test_refused(given, found):
    with pytest.raises(InputError) as caught:
        chosen_tasks(given, 7)
    assert str(caught.value).startswith("tasks: ")
    assert found in str(caught.value)


def array(number, count, **more):
    names = {"ID": number, "COUNT": count, **more}
    return {f"SLURM_ARRAY_TASK_{name}": str(value) for name, value in names.items()}


@pytest.mark.parametrize("first", [None, 0, 1])
def test_elements_of_an_array(first):
    found = []
    for number in range(3):
        limits = {} if first is None else {"MIN": first, "MAX": first + 2}
        found += chosen_tasks("auto", 7, array((first or 0) + number, 3, **limits))
    assert found == list(range(7))


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, "auto needs SLURM_ARRAY_TASK_ID, which is not set → run it as an array job, or name the tasks"),
        ({"SLURM_ARRAY_TASK_ID": "0"}, "auto needs SLURM_ARRAY_TASK_COUNT"),
        (array("x", 3), "are no numbers"),
        (array(0, ""), "are no numbers"),
        (array(3, 3), "there is no slice 3 of 3"),
        (array(-1, 3), "there is no slice -1 of 3"),
        (array(4, 3, MIN=0, MAX=4), "3 elements from 0 to 4; auto takes whole ones, from 0 or 1 → name the slice"),
        (array(5, 1, MIN=5, MAX=5), "1 elements from 5 to 5; auto takes whole ones"),
        (array(0, 0), "there is no slice 0 of 0"),
    ],
    ids=["none", "no count", "no number", "empty", "beyond", "below", "steps", "one again", "no elements"],
)
def test_no_element_of_an_array(environment, found):
    with pytest.raises(InputError) as caught:
        chosen_tasks("auto", 7, environment)
    assert found in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "text"), [([], ""), ([0], "0"), ([3, 1, 2, 7], "1-3,7"), ([0, 2, 4], "0,2,4"), (range(1000), "0-999")]
)
def test_ranges_are_understood_again(numbers, text):
    assert ranges_of(list(numbers)) == text
    if text:
        assert chosen_tasks(text, 1000) == sorted(numbers)
