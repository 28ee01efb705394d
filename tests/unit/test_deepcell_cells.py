"""Cells, divisions, types, vectors and spots of DeepCell Label: what is read, what is refused, what comes back."""

import json

import numpy as np
import pytest

from atlaswriter.errors import InputError, Problems
from atlaswriter.formats.deepcell import cells as cells_module
from atlaswriter.formats.deepcell import divisions as divisions_module
from atlaswriter.formats.deepcell import extras, jsonlist
from atlaswriter.formats.deepcell import spots as spots_module
from atlaswriter.formats.deepcell.cells import Cells, derive, parse_cells, settle_features, validate, validate_range
from atlaswriter.formats.deepcell.divisions import Division, from_lineage, parse_divisions, validate_divisions
from atlaswriter.formats.deepcell.spots import parse_spots
from atlaswriter.formats.deepcell.values import Present

ROW = {"cell": 1, "value": 2, "t": 3, "c": 4}


def cells_of(*rows):
    return Cells(*np.array(rows, np.int64).reshape(-1, 4).T)


def rows_of(cells):
    return list(zip(*(column.tolist() for column in (cells.cell, cells.value, cells.t, cells.c)), strict=True))


def present_of(*lists, n_features=1):
    return Present.of([np.array(part, np.int32) for part in lists], n_features)


def read(content):
    """Cells that are parsed, warnings, and what is found wrong."""
    problems, warnings = Problems(), []
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    cells = parse_cells(content, "cells", problems, warnings)
    assert (cells is None) == bool(problems.found)
    return cells, warnings, [str(problem) for problem in problems.found]


# --- lists in JSON


@pytest.mark.parametrize("piece", [1, 7, 40, 1 << 20])
@pytest.mark.parametrize("indent", [None, 1])
def test_lists_come_whole_however_they_are_cut(piece, indent, monkeypatch):
    monkeypatch.setattr(jsonlist, "_PIECE", piece)
    rows = [{"a": n, "b": {"c": [{}, {"d": "}, {"}]}, "e": '"},\\"'} for n in range(9)]
    content = json.dumps(rows, indent=indent).encode()
    for text in (content, b"\xef\xbb\xbf \n" + content + b" \n"):
        assert [row for batch in jsonlist.items(text, "list") for row in batch] == rows
    vectors = [[1, 2], [], [[3]]]
    assert [row for batch in jsonlist.items(json.dumps(vectors).encode(), "l", "]") for row in batch] == vectors
    assert list(jsonlist.items(b" [ ] ", "list")) == [[]]


@pytest.mark.parametrize("piece", [1, 1 << 20])
@pytest.mark.parametrize(
    "content",
    [
        b"", b"null", b"{}", b"[", b"]", b"[{}", b"[{}]]", b"[{},]", b"[{}, ]", b"[,{}]", b"[{} {}]", b"[{}][{}]",
        b"[{}],[{}]", b"[{},],[{}]", b"[{}]x", b'[{"a": NaN}]', b'[{"a": 1, "a": 2}]', b'[{"a": "\xff"}]', b"[{,}]",
        b"[{}, {]", b"[" * 100_000 + b"]" * 100_000, b"\xff\xfe[\x00]\x00", b'[{"a": ' + b"9" * 5000 + b"}]", b"[}]",
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(content, piece, monkeypatch):
    monkeypatch.setattr(jsonlist, "_PIECE", piece)
    with pytest.raises(InputError, match=r"^the list: (is not standard JSON|does not hold a JSON list)"):
        list(jsonlist.items(content, "the list"))


@pytest.mark.parametrize(
    ("value", "number"),
    [(1, 1), (1.0, 1), (-3, -3), (2**63 - 1, 2**63 - 1), (2**63, None), (10**400, None), (1.5, None), (True, None),
     (float("nan"), None), (float("inf"), None), (1e300, None), ("1", None), (None, None), ([], None)],
)  # fmt: skip
def test_whole_numbers(value, number):
    assert jsonlist.whole(value) == number


# --- cells


def test_cells_are_read_and_come_back():
    rows = [{"cell": n + 1, "value": 2 * n + 1, "t": n % 3, "c": n % 2} for n in range(40_000)]
    cells, warnings, _ = read(rows)
    assert warnings == []
    assert rows_of(cells) == [tuple(row.values()) for row in rows]
    content = b"".join(cells_module.to_json(cells))
    assert json.loads(content) == rows
    assert content == json.dumps(rows).encode()
    assert b"".join(cells_module.to_json(cells_of())) == b"[]"
    assert rows_of(read([])[0]) == []


def test_integral_floats_are_integers_and_other_keys_are_told():
    cells, warnings, _ = read([{"c": 0, "t": 1.0, "value": 2.0, "cell": 3, "z": 0}, ROW])
    assert rows_of(cells) == [(3, 2, 1, 0), (1, 2, 3, 4)]
    assert len(warnings) == 1
    assert "1 rows have other keys" in warnings[0]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (7, "2 rows are no objects: row 1 is 7; row 2 is 7"),
        (None, "are no objects: row 1 is None"),
        ([1, 2, 3, 4], "are no objects: row 1 is a list"),
        ("cell", "are no objects: row 1 is 'cell'"),
        ({}, "have no cell and no value and no t: row 1 {}"),
        ({"cell": 1, "t": 0, "c": 0}, "have no value: row 1 {'cell': 1, 't': 0, 'c': 0}"),
        ({**ROW, "cell": 1.5}, "no whole ones: row 1 {'cell': 1.5"),
        ({**ROW, "cell": True}, "no whole ones"),
        ({**ROW, "cell": "1"}, "no whole ones"),
        ({**ROW, "cell": None}, "no whole ones"),
        ({**ROW, "cell": 10**30}, "no whole ones"),
        ({**ROW, "t": 1e400}, "no whole ones"),
        ({**ROW, "c": -1}, "have a negative c|have a c below 0"),
        ({**ROW, "cell": 0}, "have a cell below 1: row 1 (cell 0, value 2, t 3, c 4)"),
        ({**ROW, "cell": -1}, "have a cell below 1"),
        ({**ROW, "value": 0}, "have a value below 1"),
        ({**ROW, "value": 2**31}, "have a value above 2,147,483,647"),
        ({**ROW, "cell": 2**31}, "have a cell above 2,147,483,647"),
        ({**ROW, "t": -1}, "have a t below 0"),
        ({**ROW, "t": 2**40}, "have a t above"),
    ],
)
def test_bad_rows_are_counted_with_examples(row, message):
    content = json.dumps([ROW, row, row]).replace("Infinity", "1e400").encode()
    _, _, (found,) = read(content)
    assert found.startswith("cells: 2 rows ")
    assert any(part in found for part in message.split("|"))


def test_every_kind_of_bad_row_is_listed_at_once_and_few_examples_are_shown():
    _, _, found = read([ROW, *[3] * 10, {**ROW, "t": 0.5}, {"cell": 1}])
    assert len(found) == 3
    assert "10 rows are no objects: row 1 is 3; row 2 is 3; row 3 is 3 and 7 more" in found[0]
    _, _, found = read([{**ROW, "cell": 0}, 5, {**ROW, "value": -5}, ROW])
    assert len(found) == 3
    assert "row 2 (cell 1, value -5" in found[2]


@pytest.mark.parametrize("content", [b"{}", b"[", b'[{"cell": NaN}]', b"\xff", b'[{"cell": 1, "cell": 2}]'])
def test_cells_that_are_no_list_are_a_problem(content):
    _, _, found = read(content)
    assert len(found) == 1


def test_rows_without_a_feature_count_for_every_feature_with_their_value():
    cells, warnings, _ = read(
        [{"cell": 5, "value": 1, "t": 0}, ROW | {"t": 1, "c": 1}, {"cell": 6, "value": 9, "t": 1}]
    )
    assert '2 rows have no "c"' in warnings[0]
    present = present_of([1, 2], [1], [2], [2], n_features=2)
    settled = settle_features(cells, present)
    assert rows_of(settled) == [(5, 1, 0, 0), (5, 1, 0, 1), (1, 2, 1, 1), (6, 9, 1, 0)]
    assert settle_features(settled, present) is settled
    problems = Problems()
    validate_range(cells, 2, 2, "cells", problems)
    assert "2 rows have a c below 0" in str(problems.found[0])
    one = settle_features(cells_of((5, 2**31 - 1, 0, -1), (5, 1, 99, -1)), present)
    assert rows_of(one) == [(5, 2**31 - 1, 0, 0), (5, 1, 99, 0)]


def test_derived_cells():
    present = present_of([1, 2**31 - 1], [3], [], [1], n_features=2)
    top = 2**31 - 1
    assert rows_of(derive(present)) == [(1, 1, 0, 0), (top, top, 0, 0), (3, 3, 0, 1), (1, 1, 1, 1)]
    problems = Problems()
    validate(derive(present), 2, 2, present, "cells", problems)
    assert problems.found == []


def test_everything_wrong_with_cells_is_listed():
    present = present_of([1, 2], [1, 3])
    rows = [
        (1, 1, 0, 0), (2, 1, 0, 0), (1, 1, 0, 0), (1, 1, 2, 0), (1, 1, 0, 1), (4, 3, 0, 0), (4, 7, 1, 0), (1, 1, 0, 0),
        (2**40, 1, 0, 0), (1, 3, 1, 0),
    ]  # fmt: skip
    problems = Problems()
    validate(cells_of(*rows), 2, 1, present, "cells", problems)
    found = [problem.found for problem in problems.found]
    assert found == [
        f"1 rows have a cell above 2,147,483,647: row 8 (cell {2**40}, value 1, t 0, c 0)",
        "1 rows have a t that is not there: there are 2 frames: row 3 (cell 1, value 1, t 2, c 0)",
        "1 rows have a c that is not there: there are 1 features: row 4 (cell 1, value 1, t 0, c 1)",
        "2 rows are there already: row 2 (cell 1, value 1, t 0, c 0); row 7 (cell 1, value 1, t 0, c 0)",
        "2 rows name a value that no pixel of their frame and feature has: row 5 (cell 4, value 3, t 0, c 0); "
        "row 6 (cell 4, value 7, t 1, c 0)",
    ]
    problems = Problems()
    validate(cells_of(*rows), 2, 1, None, "cells", problems)
    assert len(problems.found) == 4
    problems = Problems()
    validate_range(cells_of(*rows), 2, 1, "cells", problems)
    assert len(problems.found) == 3


# --- divisions

# Cell 1 in frames 0 and 1; its daughters 2 and 3 from frame 2 on; cell 4 everywhere.
SPANS = cells_of(*[(1, 1, t, 0) for t in (0, 1)], *[(c, c, t, 0) for c in (2, 3) for t in (2, 3)],
                 *[(4, 4, t, 0) for t in range(4)])  # fmt: skip


def divide(*divisions):
    problems, warnings = Problems(), []
    validate_divisions([Division(*one) for one in divisions], SPANS, 4, "divisions", problems, warnings)
    return " | ".join(str(problem) for problem in problems.found), " | ".join(warnings)


def test_divisions_are_read_and_come_back():
    rows = [{"parent": 1, "daughters": [2, 3], "t": 2}, {"parent": 4, "daughters": [], "t": 1}]
    problems = Problems()
    divisions = parse_divisions(json.dumps(rows).encode(), "divisions", problems)
    assert divisions == [Division(1, (2, 3), 2), Division(4, (), 1)]
    assert json.loads(b"".join(divisions_module.to_json(divisions))) == rows
    assert b"".join(divisions_module.to_json([])) == b"[]"
    assert problems.found == []


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (5, "are no objects: number 1 is 5"),
        ({"parent": 1}, "have no daughters and no t"),
        ({"parent": 1, "daughters": 2, "t": 1}, "no whole ones"),
        ({"parent": 1, "daughters": [2, 2.5], "t": 1}, "no whole ones"),
        ({"parent": 1, "daughters": [None], "t": 1}, "no whole ones"),
        ({"parent": "1", "daughters": [2], "t": 1}, "no whole ones"),
        ({"parent": 1, "daughters": [2], "t": True}, "no whole ones"),
    ],
)
def test_bad_divisions_are_listed(row, message):
    problems = Problems()
    content = json.dumps([{"parent": 1, "daughters": [2, 3], "t": 2}, row]).encode()
    assert parse_divisions(content, "divisions", problems) is None
    assert message in str(problems.found[0])


def test_a_division_that_makes_sense():
    assert divide((1, (2, 3), 2)) == ("", "")


@pytest.mark.parametrize(
    ("division", "message"),
    [
        ((4, (2,), 0), "have a t outside 1 to 3: parent 4, daughters [2], t 0"),
        ((1, (2,), 4), "have a t outside 1 to 3"),
        ((1, (2,), -1), "have a t outside 1 to 3"),
        ((1, (99,), -1), "have a daughter that is in no frame from t on: 99 of parent 1"),
        ((1, (), 2), "have no daughters"),
        ((2, (4,), 2), "have a parent that is in no frame before t"),
        ((99, (2,), 2), "have a parent that is in no frame before t"),
        ((4, (1,), 2), "have a daughter that is in no frame from t on: 1 of parent 4"),
        ((1, (2, 99), 2), "have a daughter that is in no frame from t on: 99 of parent 1"),
        ((4, (2, 4), 2), "have their parent as a daughter"),
        ((1, (2, 2), 2), "have a daughter twice"),
    ],
)
def test_a_division_that_makes_none(division, message):
    assert message in divide(division)[0]


def test_divisions_that_exclude_each_other_are_all_listed():
    problems, _ = divide((1, (2,), 2), (1, (3,), 2), (4, (3,), 2), (4, (2, 2), 0))
    for message in ("4 divisions have a parent that divides more than once", "4 divisions have a daughter of another",
                    "have a daughter twice", "have a t outside"):  # fmt: skip
        assert message in problems


@pytest.mark.parametrize(
    ("division", "message"),
    [
        ((1, (2,), 2), "have one daughter"),
        ((4, (2, 3), 2), "have a parent that is still there at t"),
        ((1, (2, 4), 2), "have a daughter that is there before t: 4 of parent 1"),
        ((1, (2, 3), 3), "have a daughter that is there before t"),
    ],
)
def test_what_the_client_warns_of_is_a_warning(division, message):
    problems, warnings = divide(division)
    assert problems == ""
    assert message in warnings


def lineage(**changes):
    entry = {"parent": None, "daughters": [], "frame_div": None, "capped": False}
    found = {
        "1": {**entry, "label": 1, "frames": [0, 1], "daughters": [2, 3], "frame_div": 2, "capped": True},
        "2": {**entry, "label": 2, "frames": [2, 3], "parent": 1},
        "3": {**entry, "label": 3, "frames": [3], "parent": 1},
    }
    for key, change in changes.items():
        cell = key.removeprefix("cell_")
        found[cell] = {**found[cell], **change} if isinstance(change, dict) and cell in found else change
    return found


def from_table(document):
    problems, warnings = Problems(), []
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    found = from_lineage(content, "lineage", 4, problems, warnings)
    assert (found is None) == bool(problems.found)
    return found, " | ".join(str(problem) for problem in problems.found), " | ".join(warnings)


@pytest.mark.parametrize("document", [lineage(), [lineage()]])
def test_a_lineage_gives_divisions(document):
    assert from_table(document) == ([Division(1, (2, 3), 2)], "", "")


def test_frame_div_that_is_the_last_frame_of_the_parent_is_corrected():
    found, _, warnings = from_table(lineage(cell_1={"frame_div": 1}))
    assert found == [Division(1, (2, 3), 2)]
    assert "1 has 1 (the last frame of the parent), its daughters begin in 2" in warnings
    found, _, warnings = from_table(lineage(cell_1={"frame_div": 3}))
    assert found == [Division(1, (2, 3), 2)]
    assert "not the first frame of their daughters" in warnings


def test_frame_div_counts_where_frames_are_not_given():
    assert from_table(lineage(cell_2={"frames": []}, cell_3={"frames": []}))[0] == [Division(1, (2, 3), 2)]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (lineage(cell_1={"daughters": [2]}), "are missing in their parent's daughters: 3, whose parent is 1"),
        (lineage(cell_3={"parent": 2}), "have a daughter with another parent: 1 has 3, whose parent is 2"),
        (lineage(cell_3={"parent": None}), "have a daughter with another parent: 1 has 3, whose parent is none"),
        (lineage(cell_1={"frame_div": None}), "have daughters but no frame_div: 1"),
        (lineage(cell_1={"daughters": [2, 3, 9]}), "have a daughter that has no entry: 1 has 9"),
        (lineage(cell_2={"parent": 9}), "have a parent that has no entry: 2 has 9"),
        (lineage(cell_2={"label": 7}), "have another label than key: 2 has label 7"),
        (lineage(cell_2={"frames": [4]}), "are in frames that are not there: there are 4: 2 in frames 4 to 4"),
        (lineage(cell_2={"frames": [-1]}), "are in frames that are not there"),
        (lineage(cell_2={"frames": ["1"]}), "no whole numbers"),
        (lineage(cell_1={"daughters": 5}), "no whole numbers"),
        (lineage(cell_1={"frame_div": 1.5}), "no whole numbers"),
        (lineage(cell_x={}), "have a key that is no number from 1: 'x'"),
        (lineage(cell_0={}), "have a key that is no number from 1: '0'"),
        (lineage(cell_9=[]), "are no objects: 9 is a list"),
        ([], "holds a list of 0 movies"),
        ([lineage(), lineage()], "holds a list of 2 movies"),
        (7, "holds 7, not the lineage of one movie"),
        ([7], "holds 7, not"),
        (b"{", "is not standard JSON"),
        (b'{"1": {}, "1": {}}', "has the key '1' twice"),
    ],
)
def test_a_lineage_that_contradicts_itself_is_refused(document, message):
    assert message in from_table(document)[1]


def test_all_contradictions_are_listed():
    _, problems, _ = from_table(lineage(cell_1={"daughters": [2, 9], "frame_div": None}, cell_2={"label": 5}))
    for message in ("no entry: 1 has 9", "no frame_div", "missing in their parent's daughters: 3", "another label"):
        assert message in problems


# --- types and vectors

TYPE = {"id": 1, "cells": [1, 2], "color": "#58b5e1", "name": "T cell \u00e9", "feature": 0}


def test_types_are_read_and_come_back():
    problems, warnings = Problems(), []
    rows = [TYPE, {**TYPE, "id": 2, "cells": [], "color": "#FFFFFF", "name": ""}]
    types = extras.parse_cell_types(json.dumps(rows).encode(), "types", problems)
    extras.validate_cell_types(types, SPANS, 1, "types", problems, warnings)
    assert (problems.found, warnings) == ([], [])
    assert json.loads(b"".join(extras.cell_types_to_json(types))) == rows


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": 1}, "no whole numbers"),
        ({"cells": [1, "2"]}, "no whole numbers"),
        ({"id": None}, "no whole numbers"),
        ({"feature": 0.5}, "no whole numbers"),
        ({"color": "red"}, "not #rrggbb"),
        ({"color": "#12345"}, "not #rrggbb"),
        ({"color": None}, "not #rrggbb"),
        ({"name": 5}, "not #rrggbb"),
        (None, "are no objects with id, cells, color, name, feature: number 1 is"),
    ],
)
def test_bad_types_are_listed(change, message):
    problems = Problems()
    row = {"id": 1} if change is None else {**TYPE, **change}
    assert extras.parse_cell_types(json.dumps([TYPE, row]).encode(), "types", problems) is None
    assert message in str(problems.found[0])


def test_types_that_make_no_sense():
    problems, warnings = Problems(), []
    rows = [TYPE, {**TYPE, "feature": 1}, {**TYPE, "id": 3, "cells": [1, 77, 1]}]
    types = extras.parse_cell_types(json.dumps(rows).encode(), "types", problems)
    extras.validate_cell_types(types, SPANS, 1, "types", problems, warnings)
    assert [problem.found.split(":")[0] for problem in problems.found] == [
        "1 types have the id of another", "1 types have a feature that is not there",
    ]  # fmt: skip
    assert "1 types have a cell twice" in warnings[0]
    assert "id 3 has [77] (1 in all)" in warnings[1]


def test_vectors_are_read_and_come_back(monkeypatch):
    monkeypatch.setattr(jsonlist, "_PIECE", 100)
    monkeypatch.setattr(extras, "_VECTORS_AT_ONCE", 3)
    expected = np.random.default_rng(0).normal(0, 1, (20, 4))
    problems = Problems()
    content = b"".join(extras.embeddings_to_json(expected))
    found = extras.parse_embeddings(content, "vectors", problems)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.float64
    assert extras.parse_embeddings(b" null\n", "vectors", problems) is None
    assert b"".join(extras.embeddings_to_json(None)) == b"null"
    assert extras.parse_embeddings(b"[[0, 1], [2, 3]]", "vectors", problems).tolist() == [[0, 1], [2, 3]]
    assert extras.parse_embeddings(b"[]", "vectors", problems).shape == (0, 0)
    assert problems.found == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[[1, 2], [3]]", "1 vectors are not as long as the first, 2: number 1 has 1"),
        (b"[[1, 2], 3]", "are no lists of numbers: number 1 is 3"),
        (b"[[1, true]]", "are no lists of numbers"),
        (b"[[1, null]]", "are no lists of numbers"),
        (b"[[[1]]]", "are no lists of numbers"),
        (b"[[1, 1e999]]", "not finite: number 0"),
        (b"[[1, NaN]]", "is not standard JSON"),
        (b"[[1" + b"0" * 400 + b"]]", "no finite float64"),
        (b"{}", "does not hold a JSON list"),
    ],
)
def test_bad_vectors_are_refused(content, message):
    problems = Problems()
    assert extras.parse_embeddings(content, "vectors", problems) is None
    assert message in str(problems.found[0])


def test_cells_without_a_vector_are_told():
    warnings = []
    extras.validate_embeddings(np.zeros((3, 2)), SPANS, "vectors", warnings)
    assert "none for 2 cells: 3, 4" in warnings[0]
    extras.validate_embeddings(np.zeros((5, 2)), SPANS, "vectors", warnings)
    assert len(warnings) == 1


# --- spots


def spots_of(content, height=100, width=200):
    problems, warnings = Problems(), []
    spots = parse_spots(content, "spots", height, width, problems, warnings)
    assert (spots is None) == bool(problems.found)
    return spots, " | ".join(str(problem) for problem in problems.found), " | ".join(warnings)


CLEAN = b"x,y,cell_0,gene\n1.50000,2.0,7,CD3\n200,100,0,\n0,0,3,\xff\xe9\n"


@pytest.mark.parametrize(
    "content",
    [
        CLEAN, CLEAN[:-1], CLEAN.replace(b"\n", b"\r\n"), CLEAN + b"\n\n", CLEAN + b"\r\n \t\r\n", CLEAN + b"  ",
        CLEAN.replace(b"\n", b"\n\n \n"), CLEAN.replace(b"\n", b"\r\n\r\n")[:-4],
    ],
)  # fmt: skip
def test_spots_keep_their_text_and_end_in_one_line_feed(content):
    spots, problems, warnings = spots_of(content)
    assert (problems, warnings) == ("", "")
    assert b"".join(spots.to_csv()) == CLEAN
    assert spots.n == 3
    assert spots.columns == ["x", "y", "cell_0", "gene"]
    assert spots.xy_px().tolist() == [[1.5, 2], [200, 100], [0, 0]]


def test_clean_spots_are_not_copied():
    assert spots_of(CLEAN)[0].text is CLEAN


@pytest.mark.parametrize("content", [b"x,y\n", b"x,y", b"x,y\r\n\r\n"])
def test_no_spots(content):
    spots, _, _ = spots_of(content)
    assert b"".join(spots.to_csv()) == b"x,y\n"
    assert (spots.n, spots.xy_px().shape) == (0, (0, 2))


@pytest.mark.parametrize(
    ("header", "problem", "warning"),
    [
        (b'"x","y"', "", ""),
        (b"\xef\xbb\xbfX, Y", "", ""),
        (b"1.5,2", "names of columns must be", ""),
        (b"y,x", "put x and y first", ""),
        (b"id,x,y", "put x and y first", ""),
        (b"x", "no header line", ""),
        (b"", "no header line", ""),
        (b"col,row", "", "'col' and 'row' as its first columns"),
    ],
)
def test_headers(header, problem, warning):
    rows = b"1,2\n" if header.count(b",") < 2 else b"3,1,2\n"
    _, problems, warnings = spots_of(header + b"\n" + rows)
    assert problem in problems
    assert bool(problem) == bool(problems)
    assert warning in warnings
    assert bool(warning) == bool(warnings)


def test_a_file_of_nothing_has_no_header():
    assert "no header line" in spots_of(b"")[1]


@pytest.mark.parametrize("block", [40, 4 << 20])
def test_everything_wrong_with_spots_is_listed_by_number(block, monkeypatch):
    monkeypatch.setattr(spots_module, "_BLOCK_BYTES", block)
    rows = ["1,2,0", "1,2", "x,2,0", "nan,3,0", "1,2,3,4", "201,5,0", " 1 ,\t2,0", "5,-0.5,0", "1e999,1,0", ",,"]
    rows += ["0x1,2,0", "7,100.5,1", "5,5,5"]
    _, problems, _ = spots_of("\n".join(["x,y,cell", *rows]).encode())
    assert problems.count("spots: ") == 3
    fields = "2 spots have another number of fields than the header, which has 3: spot 2 '1,2'; spot 5 '1,2,3,4'"
    assert fields in problems
    numbers = "5 spots have an x or y that is no number: spot 3 'x,2'; spot 4 'nan,3'; spot 9 '1e999,1' and 2 more"
    assert numbers in problems
    outside = "3 spots are outside of the image, 200 pixels wide and 100 high: spot 6 '201,5'; spot 8 '5,-0.5'; "
    assert outside + "spot 12 '7,100.5'" in problems


@pytest.mark.parametrize("number", [b"1", b"+1", b"1.", b".5", b"1e1", b"1E+01", b" 1\t", b"-0"])
def test_numbers_that_are_numbers(number):
    spots, problems, _ = spots_of(b"x,y\n" + number + b",1\n")
    assert problems == ""
    assert spots.xy_px()[0, 0] == float(number)


@pytest.mark.parametrize("number", [b"", b"1_0", b"0x1", b"inf", b"nan", b"1,5"[:1] + b"\x00", b"\xff", b"1 2", b"--1"])
def test_numbers_that_are_none(number):
    assert "1 spots have an x or y that is no number: spot 2" in spots_of(b"x,y\n1,1\n" + number + b",1\n")[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'x,y,n\n1,2,a\n1,2,"a,b"\n', "has quotes, first at spot 2"),
        (b"x,y\r1,2\r3,4\r", "carriage return only"),
        (b"x,y\n" + b"1" * (9 << 20) + b",1\n", "is no number|cannot be read as CSV"),
        (b"x,y\n1;2\n", "another number of fields"),
        (b"\x00\x01\x02\n\x00", "no header line"),
        (
            b"x,y,n\n1,2,a\n1,2\xff\n",
            "1 spots have another number of fields than the header, which has 3: spot 2 '1,2?'",
        ),
    ],
)
def test_spots_that_are_refused(content, message):
    _, problems, _ = spots_of(content)
    assert any(part in problems for part in message.split("|"))
