"""Kinds, order and labels of columns, against pandas and the rules of cellucid 0.0.9."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlaswriter.errors import InputError
from atlaswriter.sources.base import Categorical, Continuous
from atlaswriter.sources.columns import column_from_pandas


def read(values, **options):
    series = pd.Series(values, **options)
    before = series.copy(deep=True)
    column = column_from_pandas(series, "obs['x']")
    pd.testing.assert_series_equal(series, before)
    return column


def assert_as_cellucid(series):
    """0.0.9: ``cat = s.astype("category")``, labels by `str`, codes by ``cat.cat.codes``."""
    column = column_from_pandas(series, "obs['x']")
    expected = series.astype("category")
    assert isinstance(column, Categorical)
    assert column.categories == [str(label) for label in expected.cat.categories]
    np.testing.assert_array_equal(column.codes, expected.cat.codes)
    assert column.codes.dtype.kind == "i"


@pytest.mark.parametrize(
    "dtype", ["int8", "uint8", "int16", "uint32", "int64", "uint64", "float16", "float32", "float64"]
)
def test_numbers_keep_their_dtype(dtype):
    column = read(np.array([1, 0, 3], dtype))
    assert isinstance(column, Continuous)
    assert column.values.dtype == dtype
    assert column.values.tolist() == [1, 0, 3]


@pytest.mark.parametrize("dtype", [">i4", ">f4", ">f8"])
def test_big_endian_numbers_become_native(dtype):
    column = read(np.array([1, 2], dtype))
    assert column.values.dtype.isnative
    assert column.values.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("dtype", "plain"),
    [("Int8", "int8"), ("UInt16", "uint16"), ("Int64", "int64"), ("Float32", "float32"), ("Float64", "float64")],
)
def test_nullable_numbers(dtype, plain):
    assert read([1, 2], dtype=dtype).values.dtype == plain
    column = read([1, None], dtype=dtype)
    assert column.values.dtype == np.float64
    np.testing.assert_array_equal(column.values, [1, np.nan])


def test_sparse_numbers_become_dense():
    column = read(pd.arrays.SparseArray([0.0, 0.0, 2.5]))
    assert column.values.tolist() == [0, 0, 2.5]


@pytest.mark.parametrize("dtype", ["bool", "boolean"])
@pytest.mark.parametrize("values", [[True, False, True], [True, True], [False], []])
def test_booleans_are_categories_that_occur(values, dtype):
    column = read(values, dtype=dtype)
    assert column.categories == [str(value) for value in sorted(set(values))]
    assert [column.categories[code] for code in column.codes] == [str(value) for value in values]


def test_missing_booleans():
    column = read([True, None, False], dtype="boolean")
    assert column.categories == ["False", "True"]
    assert column.codes.tolist() == [1, -1, 0]


def test_declared_categories_keep_order_and_unused_ones():
    column = read(pd.Categorical(["b", "a", None, "b"], categories=["c", "b", "a"]))
    assert column.categories == ["c", "b", "a"]
    assert column.codes.tolist() == [1, 2, -1, 1]


@pytest.mark.parametrize(
    "categories",
    [
        [3, 1, 2],
        [0.5, 1.0, 1e-300],
        [False, True],
        pd.interval_range(0, 3),
        pd.to_datetime(["2020-01-01", "2021-06-01"]),
        pd.Index([0.1, 2.0], dtype="float32"),
        ["é", "z", "日本"],
        [b"bytes", b"more"],
    ],
)
def test_categories_of_any_type_are_labelled_by_str(categories):
    assert_as_cellucid(pd.Series(pd.Categorical.from_codes([0, -1, 1], categories=categories)))


@pytest.mark.parametrize(
    "values",
    [
        ["b", "a", None, "b", np.nan, pd.NA],
        [1, "1", 1.5, "a"],
        [True, None, False],
        [("x", 1), "a", ("x", 1)],
        [dt.date(2020, 1, 2), dt.date(2019, 1, 1)],
        [None, None],
        [],
    ],
)
def test_objects_are_categories_as_pandas_orders_them(values):
    assert_as_cellucid(pd.Series(values, dtype=object))


def test_intervals_and_strings_are_categories():
    assert_as_cellucid(pd.Series(pd.arrays.IntervalArray.from_breaks([2, 3, 4])))
    assert_as_cellucid(pd.Series(["b", None, "a"], dtype="string"))


@given(st.lists(st.one_of(st.none(), st.text(max_size=4), st.integers(-3, 3), st.booleans())))
def test_any_objects_as_cellucid(values):
    assert_as_cellucid(pd.Series(values, dtype=object))


@given(st.lists(st.one_of(st.none(), st.floats(), st.integers(-(2**62), 2**62))))
def test_any_numbers_are_continuous(values):
    series = pd.Series(values, dtype="float64")
    column = column_from_pandas(series, "obs['x']")
    assert isinstance(column, Continuous)
    np.testing.assert_array_equal(column.values, series.to_numpy())


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        (np.array([1 + 2j]), "real part"),
        (pd.to_datetime(["2020-01-01"]), "strftime"),
        (pd.to_datetime(["2020-01-01"]).tz_localize("UTC"), "strftime"),
        (pd.to_timedelta([1]), "total_seconds"),
        (pd.period_range("2020", periods=1, freq="M"), "strftime"),
    ],
)
def test_refused_dtypes_name_the_column_and_a_remedy(values, remedy):
    with pytest.raises(InputError, match=r"obs\['x'\]: .*cannot be shown") as caught:
        read(values)
    assert remedy in caught.value.problems[0].remedy


def test_objects_that_cannot_be_categories_are_refused():
    with pytest.raises(InputError, match=r"obs\['x'\].*unhashable"):
        column_from_pandas(pd.Series([["a"], ["b"]]), "obs['x']")
