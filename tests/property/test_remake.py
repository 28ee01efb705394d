"""Labels made anew, against a slow version that looks at every pixel."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.formats.deepcell.cells import Cells, to_json
from atlaswriter.formats.deepcell.remake import plan_remake, remake
from atlaswriter.formats.deepcell.values import Present


def cells_of(rows):
    return Cells(*np.array(rows, np.int64).reshape(-1, 4).T)


def rows_of(cells):
    return list(zip(*(column.tolist() for column in (cells.cell, cells.value, cells.t, cells.c)), strict=True))


def meaning(y, rows):
    """Set of cells of every pixel."""
    found = {}
    for c, t, row, column in np.ndindex(y.shape):
        value = int(y[c, t, row, column])
        found[c, t, row, column] = {r[0] for r in rows if r[1:] == (value, t, c)} if value else set()
    return found


def present_of(y):
    n_features, n_frames = y.shape[:2]
    lists = [np.setdiff1d(y[c, t], [0]).astype(np.int32) for t in range(n_frames) for c in range(n_features)]
    return Present.of(lists, n_features)


def slow(y, rows):
    """The rule, by the words of the page, value by value: new pixels and new rows as a set."""
    n_features, n_frames = y.shape[:2]
    out = np.zeros(y.shape, np.int32)
    made = set()
    for t in range(n_frames):
        used = [r for r in rows if r[2] == t and (y[r[3], t] == r[1]).any()]
        largest = max((r[0] for r in used), default=0)
        codes = {}
        for c in range(n_features):
            here = [r for r in used if r[3] == c]
            for value in dict.fromkeys(r[1] for r in here):
                members = frozenset(r[0] for r in here if r[1] == value)
                if len(members) == 1:
                    (new,) = members
                else:
                    new = codes.setdefault(members, largest + 1 + len(codes))
                out[c, t][y[c, t] == value] = new
                made |= {(cell, new, t, c) for cell in members}
    return out, made


@st.composite
def projects(draw):
    """Few values, rows that overlap, are missing, are there twice, name absent values, or name cells anew."""
    n_features, n_frames = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    shape = (n_features, n_frames, draw(st.integers(1, 3)), draw(st.integers(1, 4)))
    size = int(np.prod(shape))
    scale = draw(st.sampled_from([1, 1, 1000, 2**28]))
    pixels = draw(st.lists(st.integers(0, 6), min_size=size, max_size=size))
    y = np.array(pixels, np.int32).reshape(shape) * scale
    row = st.tuples(
        st.integers(1, 6), st.integers(1, 7).map(lambda v: v * scale), st.integers(0, n_frames - 1),
        st.integers(0, n_features - 1),
    )  # fmt: skip
    rows = draw(st.lists(row, max_size=24))
    again = draw(st.lists(st.sampled_from(rows), max_size=4)) if rows else []
    return y, draw(st.permutations(rows + again))


@given(projects())
@example((np.array([[[[1, 2, 3]]], [[[3, 0, 1]]]], np.int32), [(4, 1, 0, 0), (5, 1, 0, 0), (5, 3, 0, 1), (4, 3, 0, 1)]))
def test_remade_labels(project):
    y, rows = project
    before = y.copy()
    new, cells = remake(y, cells_of(rows))
    made = rows_of(cells)
    np.testing.assert_array_equal(y, before)

    expected, expected_rows = slow(y, rows)
    np.testing.assert_array_equal(new, expected)
    assert new.dtype == np.int32
    assert len(made) == len(set(made))
    assert set(made) == expected_rows
    assert meaning(new, made) == meaning(y, rows)

    for t in range(y.shape[1]):
        cells_here = [r[0] for r in made if r[2] == t]
        meanings = {}
        for c in range(y.shape[0]):
            here = [r for r in made if r[2:] == (t, c)]
            members = {value: {r[0] for r in here if r[1] == value} for value in (r[1] for r in here)}
            for value, cells_of_value in members.items():
                assert meanings.setdefault(value, cells_of_value) == cells_of_value
                assert (cells_of_value == {value}) == (len(cells_of_value) == 1)
                assert len(cells_of_value) == 1 or value > max(cells_here)
            # rows of a value are adjacent, single cells first
            assert [r[1] for r in here] == sorted(r[1] for r in here)
    assert made == sorted(made, key=lambda r: (r[2], r[3], r[1], r[0]))


@given(projects())
def test_once_is_enough(project):
    y, rows = project
    new, cells = remake(y, cells_of(rows))
    again, cells_again = remake(new, cells)
    np.testing.assert_array_equal(again, new)
    assert b"".join(to_json(cells_again)) == b"".join(to_json(cells))
    plan = plan_remake(cells, y.shape[1], y.shape[0], present_of(new))
    assert all(plan.identity(t, c) for t in range(y.shape[1]) for c in range(y.shape[0]))
    assert plan.n_rows_dropped == plan.n_rows_repeated == plan.n_values_removed == 0


@given(projects())
def test_the_plan_counts_and_knows_what_stays(project):
    y, rows = project
    n_features, n_frames = y.shape[:2]
    plan = plan_remake(cells_of(rows), n_frames, n_features, present_of(y))
    new, _ = remake(y, cells_of(rows))
    removed = 0
    for t in range(n_frames):
        for c in range(n_features):
            assert plan.identity(t, c) == (new[c, t] == y[c, t]).all()
            removed += len(set(y[c, t][(new[c, t] == 0) & (y[c, t] != 0)].tolist()))
    used = [r for r in rows if (y[r[3], r[2]] == r[1]).any()]
    assert plan.n_rows_dropped == len(rows) - len(used)
    assert plan.n_rows_repeated == len(used) - len(set(used))
    assert plan.n_values_removed == removed


@given(projects())
def test_without_a_look_at_the_pixels_the_meaning_is_the_same(project):
    y, rows = project
    n_features, n_frames = y.shape[:2]
    plan = plan_remake(cells_of(rows), n_frames, n_features)
    out = np.empty_like(y)
    for t in range(n_frames):
        for c in range(n_features):
            assert not plan.identity(t, c)
            n = plan.table(t, c).apply(y[c, t], out[c, t])
            assert n == ((out[c, t] == 0) & (y[c, t] != 0)).sum()
    assert meaning(out, rows_of(plan.cells)) == meaning(y, rows)


def test_codes_are_numbered_as_they_appear_and_shared_by_features():
    y = np.array([[[[10, 20, 30]]], [[[20, 10, 5]]]], np.int32)
    rows = [
        (9, 5, 0, 1), (1, 20, 0, 0), (2, 20, 0, 0), (3, 10, 0, 0), (2, 10, 0, 0),
        (3, 20, 0, 1), (2, 20, 0, 1), (1, 30, 0, 0), (1, 10, 0, 1), (9, 10, 0, 1),
    ]  # fmt: skip
    new, cells = remake(y, cells_of(rows))
    assert new[:, 0, 0].tolist() == [[11, 10, 1], [11, 12, 9]]
    assert rows_of(cells) == [
        (1, 1, 0, 0), (1, 10, 0, 0), (2, 10, 0, 0), (2, 11, 0, 0), (3, 11, 0, 0),
        (9, 9, 0, 1), (2, 11, 0, 1), (3, 11, 0, 1), (1, 12, 0, 1), (9, 12, 0, 1),
    ]  # fmt: skip


def test_values_of_one_cell_merge_and_leave_one_row():
    new, cells = remake(np.array([[[[1, 2, 0]]]], np.int64), cells_of([(5, 1, 0, 0), (5, 2, 0, 0)]))
    assert new.ravel().tolist() == [5, 5, 0]
    assert rows_of(cells) == [(5, 5, 0, 0)]


def test_no_number_is_left_for_an_overlap():
    top = 2**31 - 1
    y = np.array([[[[1, 2, top]]]], np.int32)
    new, _ = remake(y, cells_of([(top, 1, 0, 0), (top - 1, top, 0, 0)]))
    assert new.ravel().tolist() == [top, 0, top - 1]
    with pytest.raises(InputError, match=r"frame 0.*no number for overlaps"):
        remake(y, cells_of([(top, 1, 0, 0), (1, 1, 0, 0)]))
    new, _ = remake(y, cells_of([(top - 1, 1, 0, 0), (1, 1, 0, 0)]))
    assert new.ravel().tolist() == [top, 0, 0]
    with pytest.raises(InputError, match="no number"):
        remake(y, cells_of([(top - 1, 1, 0, 0), (1, 1, 0, 0), (2, 2, 0, 0), (1, 2, 0, 0)]))


@pytest.mark.parametrize(
    ("y", "rows", "message"),
    [
        (np.zeros((1, 1, 2, 2), np.float32), [], "float32"),
        (np.zeros((1, 2, 2), np.int32), [], "3 axes"),
        (np.full((1, 1, 2, 2), 2**31, np.int64), [], "beyond"),
        (np.full((1, 1, 2, 2), 2**63 + 5, np.uint64), [], "beyond"),
        (np.full((1, 1, 2, 2), -1, np.int16), [], "1 values are negative: -1 in frame 0, feature 0"),
        (np.zeros((1, 1, 2, 2), np.int32), [(1, 1, 1, 0)], "1 rows have a t that is not there"),
        (np.zeros((1, 1, 2, 2), np.int32), [(1, 1, 0, 3)], "1 rows have a c that is not there"),
        (np.zeros((1, 1, 2, 2), np.int32), [(1, 1, 0, -1)], "1 rows have a c below 0"),
        (np.zeros((1, 1, 2, 2), np.int32), [(2**31, 1, 0, 0)], "have a cell above 2,147,483,647"),
        (np.zeros((1, 1, 2, 2), np.int32), [(1, 0, 0, 0)], "have a value below 1"),
    ],
)
def test_what_cannot_be_remade_is_refused(y, rows, message):
    with pytest.raises(InputError, match=message):
        remake(y, cells_of(rows))


@pytest.mark.parametrize("shape", [(1, 1, 0, 3), (2, 0, 3, 3), (1, 1, 1, 1)])
def test_nothing_there(shape):
    new, cells = remake(np.zeros(shape, np.int32), cells_of([]))
    assert new.shape == shape
    assert cells.n == 0
