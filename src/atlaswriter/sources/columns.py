"""Kinds of obs columns: which are continuous, which categorical, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atlaswriter.errors import InputError, Problem
from atlaswriter.sources.base import Array, Categorical, Column, Continuous, as_native

if TYPE_CHECKING:
    import pandas as pd


def column_from_pandas(series: pd.Series[Any], where: str) -> Column:
    """One column of a table, by the rules of cellucid 0.0.9.

    Categorical and boolean columns are categorical, other numbers continuous, everything else
    is categorical in the order of ``series.astype("category")``. Labels are made by `str`.

    Parameters
    ----------
    series
        The column; it is not modified.
    where
        Its name in messages, such as ``obs['cell_type']``.

    Returns
    -------
    Column
        Continuous values keep their dtype, in native byte order. Nullable ones become the plain
        dtype, or float64 with NaN when a value is missing. Codes are -1 where missing.

    Raises
    ------
    InputError
        Complex numbers, dates, durations, periods, or objects that cannot be categories.
    """
    import pandas as pd

    dtype: Any = series.dtype
    if isinstance(dtype, pd.CategoricalDtype):
        return _categorical(series)
    if dtype.kind in "cmM" or isinstance(dtype, pd.PeriodDtype):
        raise _refused(dtype, where)
    if pd.api.types.is_numeric_dtype(dtype) and not pd.api.types.is_bool_dtype(dtype):
        return Continuous(as_native(_numbers(series)))
    try:
        return _categorical(series.astype("category"))
    except TypeError as error:
        remedy = "convert it to text, for example with .astype(str)"
        raise InputError(Problem(where, f"its values cannot be categories ({error})", remedy)) from None


def _categorical(series: pd.Series[Any]) -> Categorical:
    return Categorical(series.cat.codes.to_numpy(), [str(label) for label in series.cat.categories])


def _numbers(series: pd.Series[Any]) -> Array:
    # Only nullable and Arrow dtypes know a "numpy_dtype"; it is object for decimals.
    plain = getattr(series.dtype, "numpy_dtype", None)
    if plain is None:
        return series.to_numpy()
    if plain.kind == "O" or series.isna().any():
        return series.to_numpy(dtype=np.float64, na_value=np.nan)
    return series.to_numpy(dtype=plain)


def _refused(dtype: Any, where: str) -> InputError:
    if dtype.kind == "c":
        remedy = "keep its real part or its absolute value instead"
    elif dtype.kind == "m":
        remedy = "convert it to a number first, for example with .dt.total_seconds()"
    else:
        remedy = (
            "convert it to text or to a number first, for example with .dt.strftime('%Y-%m-%d') or .astype('int64')"
        )
    return InputError(Problem(where, f"columns of dtype {dtype} cannot be shown", remedy))
