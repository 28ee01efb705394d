"""Options: every wrong value is named, together, before anything else happens."""

from pathlib import Path

import numpy as np
import pytest

from atlaswriter.engine.resources import Resources
from atlaswriter.errors import Problems
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.options import Options


def problems_of(options):
    problems = Problems()
    options.check(problems)
    return problems.found


def test_defaults_are_fine():
    assert problems_of(Options()) == []
    assert problems_of(Resources()) == []


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("var_quantization", [None, 8, 16]),
        ("obs_continuous_quantization", [None, 8, 16]),
        ("obs_categorical_dtype", ["auto", "uint8", "uint16"]),
        ("compression", [None, *range(10)]),
        ("centroid_outlier_quantile", [None, 0.51, 0.95, 0.999, np.float64(0.9)]),
        ("centroid_min_points", [1, 10]),
        ("quantizer", ["nearest", "truncate"]),
        ("force", [True, False]),
        ("dataset_name", [None, "", "β"]),
        ("created_at", ["2026-01-02T03:04:05Z"]),
    ],
)
def test_right_values(name, values):
    for value in values:
        assert problems_of(Options(**{name: value})) == [], value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("var_quantization", [4, 32, "8", 8.0, True, 0, [8]]),
        ("obs_continuous_quantization", [7, "16", 16.0, False]),
        ("obs_categorical_dtype", ["uint32", None, 8, "UINT8"]),
        ("compression", [-1, 10, 6.0, "6", True, False, float("nan")]),
        ("centroid_outlier_quantile", [0.5, 1, 1.0, 0, -1, 2, float("nan"), float("inf"), "0.9", True]),
        ("centroid_min_points", [0, -1, 1.5, "10", True, None]),
        ("quantizer", ["floor", None, True]),
        ("force", [1, "yes", None]),
        ("make_unique", [1, None]),
        ("merge_equal_categories", ["no"]),
        ("dataset_name", [1, True, Path("x")]),
        ("dataset_id", [5]),
        ("source_url", [b"x"]),
        ("created_at", [20260102]),
        ("compression", [np.array([1, 2])]),
    ],
)
def test_wrong_values(name, values):
    for value in values:
        found = problems_of(Options(**{name: value}))
        assert [problem.where for problem in found] == [name], value
        assert repr(value) in found[0].found


def test_all_problems_at_once():
    options = Options(var_quantization=3, compression=True, quantizer="x", centroid_min_points=0, force=None)
    assert [p.where for p in problems_of(options)] == [
        "var_quantization",
        "quantizer",
        "compression",
        "force",
        "centroid_min_points",
    ]


@pytest.mark.parametrize(
    "value", ["", "../x", "a/b", "/x", ".", "..", ".hidden", "a\\b", "a\0", "a b", 5, None, "x" * 300]
)
def test_custom_names_must_be_plain(value):
    found = problems_of(Options(layout=Layout(obs_dir=value)))
    assert [problem.where for problem in found] == ["file and folder names"]


@pytest.mark.parametrize(
    "layout",
    [
        Layout(obs_dir="var"),
        Layout(obs_manifest="x.json", var_manifest="x.json"),
        Layout(obs_manifest="dataset_identity.json"),
        Layout(connectivity_dir="vectors"),
        Layout(var_dir="points_2d.bin"),
        Layout(var_dir="points_2d.bin.gz"),
    ],
)
def test_custom_names_must_not_meet_each_other_or_fixed_ones(layout):
    assert [problem.where for problem in problems_of(Options(layout=layout))] == ["file and folder names"]


def test_custom_names_that_are_fine():
    assert problems_of(Options(layout=Layout(obs_dir="meta-1", var_manifest="Genes.json"))) == []


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "2"])
def test_workers(value):
    assert [problem.where for problem in problems_of(Resources(workers=value))] == ["workers"]


@pytest.mark.parametrize("value", [1, "yes"])
def test_progress(value):
    assert [problem.where for problem in problems_of(Resources(progress=value))] == ["progress"]


@pytest.mark.parametrize("value", ["lots", True, 0, -1, 1.5])
def test_memory_budget(value):
    assert [problem.where for problem in problems_of(Resources(memory_budget=value))] == ["memory_budget"]


def test_identity_defaults_come_from_the_folder():
    target = Path("some/my atlas")
    assert Options().dataset(target) == {"id": "my_atlas", "name": "my atlas", "description": ""}
    given = Options(dataset_name="A b", dataset_description="d")
    assert given.dataset(target) == {"id": "A_b", "name": "A b", "description": "d"}
    assert Options(dataset_name="A", dataset_id="x").dataset(target)["id"] == "x"


def test_source_holds_only_what_was_given():
    assert Options().source() == {}
    assert Options(source_name="S", source_url="", source_citation="C").source() == {"name": "S", "citation": "C"}


def test_level_zero_is_none():
    assert Options(compression=0).level is None
    assert Options(compression=None).level is None
    assert Options(compression=3).level == 3


def test_timestamp(monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert Options().timestamp() == "1970-01-02T00:00:00Z"
    assert Options(created_at="then").timestamp() == "then"
    monkeypatch.delenv("SOURCE_DATE_EPOCH")
    assert Options().timestamp().endswith("Z")


@pytest.mark.parametrize("value", ["yesterday", "1.5", "9" * 20])
def test_source_date_epoch_must_be_a_time(monkeypatch, value):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", value)
    assert [problem.where for problem in problems_of(Options())] == ["SOURCE_DATE_EPOCH"]
    assert problems_of(Options(created_at="then")) == []
