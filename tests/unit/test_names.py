"""Keys to file names: the rule, and every way names can clash."""

import string

import pytest

from atlaswriter.errors import Problems
from atlaswriter.names import MAX_SAFE_NAME, is_path_like, plan_names, safe_name


def safe_name_by_hand(key):
    """The viewer's rule, letter by letter."""
    kept = string.ascii_letters + string.digits + "._-"
    out = []
    for letter in key:
        if letter in kept:
            out.append(letter)
        elif not out or out[-1] is not None:
            out.append(None)
    return "".join(letter or "_" for letter in out).strip("._") or "field"


def plan(keys, *, make_unique=False, case_sensitive=True):
    problems = Problems()
    result = plan_names(keys, where="genes", make_unique=make_unique, case_sensitive=case_sensitive, problems=problems)
    return result, [str(problem) for problem in problems.found]


@pytest.mark.parametrize(
    "key",
    [
        "CD3E",
        "a b",
        "a//b",
        " a ",
        "__a__",
        "..",
        "",
        ".hidden.",
        "β",
        "a_ b",
        "HLA-A",
        "x" * 300,
        "a\0b",
        "🙂a🙂",
        "\n",
    ],
)
def test_safe_name_follows_the_rule(key):
    assert safe_name(key) == safe_name_by_hand(key)


@pytest.mark.parametrize(
    ("key", "expected"),
    [("a b/c", "a_b_c"), ("β", "field"), ("", "field"), ("..", "field"), ("_x.", "x"), ("1.0", "1.0")],
)
def test_safe_name_examples(key, expected):
    assert safe_name(key) == expected


@pytest.mark.parametrize("key", ["..", ".", "../x", "a/../b", "/etc/passwd", "\\x", "..\\x"])
def test_keys_that_lead_elsewhere_are_path_like(key):
    assert is_path_like(key)


@pytest.mark.parametrize("key", ["a/b", "CD4/CD8 T", "...", "a..b", "", "1.0", "x.", "°/m"])
def test_ordinary_keys_are_not_path_like(key):
    assert not is_path_like(key)


def test_good_names_pass_unchanged():
    result, problems = plan(["b", "a", "A-1", "β cells"])
    assert (result.keys, result.renamed, result.case_only, problems) == (["b", "a", "A-1", "β cells"], [], [], [])


def test_every_kind_of_clash_is_named():
    keys = ["a", "a", "b/c", "b_c", "β", "γ", "../up", "x" * (MAX_SAFE_NAME + 1)]
    _, problems = plan(keys)
    text = "\n".join(problems)
    assert len(problems) == 5
    for part in ("'a'", "'b/c', 'b_c'", "'b_c'", "'β', 'γ'", "'field'", "'../up'", "too long", "make_unique"):
        assert part in text


def test_longest_name_still_fits_a_file():
    key = "x" * MAX_SAFE_NAME
    assert plan([key])[1] == []
    assert len(f"{key}.outliers.u16.gz") == 255


def test_make_unique_uses_anndata_suffixes():
    result, problems = plan(["a", "a", "a", "b"], make_unique=True)
    assert problems == []
    assert result.keys == ["a", "a-1", "a-2", "b"]
    assert result.renamed == [("a", "a-1"), ("a", "a-2")]


def test_make_unique_does_not_take_a_name_that_is_there():
    result, _ = plan(["a", "a", "a-1"], make_unique=True)
    assert result.keys[0] == "a"
    assert result.keys[2] == "a-1"
    assert len({safe_name(key) for key in result.keys}) == 3


def test_make_unique_looks_at_file_names():
    result, problems = plan(["b/c", "b_c", "β", "γ"], make_unique=True)
    assert problems == []
    assert result.keys == ["b/c", "b_c-1", "β", "γ-1"]
    assert safe_name("γ-1") == "-1"


def test_make_unique_takes_paths_apart():
    result, problems = plan(["../up", "/etc/passwd", "up"], make_unique=True)
    assert problems == []
    assert not any(is_path_like(key) for key in result.keys)
    assert {old for old, _ in result.renamed} >= {"../up", "/etc/passwd"}


def test_make_unique_cannot_shorten():
    _, problems = plan(["x" * 300], make_unique=True)
    assert len(problems) == 1
    assert "too long" in problems[0]


def test_case_is_a_warning_or_a_refusal():
    keys = ["Pisd", "PISD", "Actb"]
    result, problems = plan(keys)
    assert (result.case_only, problems) == ([["Pisd", "PISD"]], [])
    _, problems = plan(keys, case_sensitive=False)
    assert len(problems) == 1
    assert "Pisd / PISD" in problems[0]


def test_make_unique_tells_case_apart_where_the_disk_does_not():
    result, problems = plan(["Pisd", "PISD"], make_unique=True, case_sensitive=False)
    assert problems == []
    assert result.keys == ["Pisd", "PISD-1"]
    assert result.case_only == []
    result, _ = plan(["Pisd", "PISD"], make_unique=True)
    assert result.keys == ["Pisd", "PISD"]


def test_clashes_by_case_after_sanitising_are_seen():
    result, _ = plan(["a b", "A_B"])
    assert result.case_only == [["a b", "A_B"]]
