"""Generated input, exported by both programs; and the quantisers side by side."""

import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from .compare import by_us, check_against_input, check_no_further_off, compare, quietly
from .viewer import Stored

pytestmark = pytest.mark.usefixtures("original")

SPARSE = {
    f"{name}_{kind}": getattr(sp, f"{name}_{kind}") for name in ("csr", "csc", "coo") for kind in ("matrix", "array")
}
GENE_TYPES = ["bool", "int8", "uint16", "int32", "int64", "float16", "float32", "float64"]


def numbers(rng, shape, dtype, *, special=True):
    """Values that a dtype can hold, floats with some that are not finite."""
    dtype = np.dtype(dtype)
    if dtype.kind == "b":
        return rng.random(shape) < 0.5
    scale, offset = rng.choice([1e-3, 1.0, 1000.0]), rng.choice([0.0, 1.0, -300.0])
    values = rng.normal(size=shape) * scale + offset
    if dtype.kind in "iu":
        limit = min(np.iinfo(dtype).max, 2**40)
        return np.clip(values * rng.choice([1, 2**20]), 0 if dtype.kind == "u" else -limit, limit).astype(dtype)
    if special:
        holes = rng.random(shape) < rng.choice([0, 0.1, 1], p=[0.5, 0.4, 0.1])
        values = np.where(holes, rng.choice([np.nan, np.inf, -np.inf], shape), values)
    return values.astype(dtype)


def labels(rng, n, categories, **options):
    """A categorical with missing values and, as likely as not, unused categories."""
    return pd.Categorical.from_codes(rng.integers(-1, rng.integers(1, len(categories) + 1), n), categories, **options)


def nullable(rng, values, dtype):
    return pd.array([value if rng.random() < 0.8 else pd.NA for value in values.tolist()], dtype=dtype)


COLUMNS = {
    "text labels": lambda rng, n: labels(rng, n, ["b", "a c", "ä", "<NA>"]),
    "ordered labels": lambda rng, n: labels(rng, n, ["low", "high", "unused"], ordered=True),
    "integer labels": lambda rng, n: labels(rng, n, [3, 1, 2]),
    "float labels": lambda rng, n: labels(rng, n, [0.5, 1.0, -1e-9]),
    "many labels": lambda rng, n: labels(rng, n, [f"c{number}" for number in range(300)]),
    "bool": lambda rng, n: rng.random(n) < 0.3,
    "boolean": lambda rng, n: nullable(rng, rng.random(n) < 0.3, "boolean"),
    "Int64": lambda rng, n: nullable(rng, rng.integers(-5, 5, n), "Int64"),
    "Float32": lambda rng, n: nullable(rng, rng.normal(size=n), "Float32"),
    "string": lambda rng, n: nullable(rng, rng.choice(["x", "y", "Z"], n), "string"),
    "object": lambda rng, n: rng.choice(np.array(["x", "yy", None], object), n),
    "mixed object": lambda rng, n: rng.choice(np.array(["x", 2.5, None, True], object), n),
    **{
        dtype: lambda rng, n, dtype=dtype: numbers(rng, n, dtype)
        for dtype in ("int8", "uint16", "int64", "float16", "float32", "float64", ">f4", ">f8", ">i4")
    },
}


def points(draw, rng, shape, dtypes=("f4", "f8", "i4")):
    """Coordinates; on a grid some are equally far from a centre, which must not matter either."""
    values = rng.normal(size=shape) * draw(st.sampled_from([0.1, 1.0, 100.0])) + draw(
        st.sampled_from([0.0, -7.0, 1000.0])
    )
    if draw(st.booleans()):
        values = np.round(values)
    return np.asarray(values, dtype=draw(st.sampled_from(dtypes)), order=draw(st.sampled_from("CF")))


def sparse(draw, rng, shape, dtype, *, formats=tuple(SPARSE), special=True):
    """A sparse matrix with stored zeros, in any order; entries may be given twice."""
    form = draw(st.sampled_from(formats))
    stored = rng.random(shape) < draw(st.sampled_from([0.0, 0.2, 0.7]))
    rows, columns = np.nonzero(stored)
    data = numbers(rng, rows.size, dtype, special=special)
    data[rng.random(rows.size) < draw(st.sampled_from([0.0, 0.2]))] = 0
    if form.startswith("coo") and draw(st.booleans()):
        # Eighths add up exactly in any order and precision, small ones without overflow.
        data = np.clip(np.round(data.astype(np.float64) * 8) / 8, 0, 60).astype(dtype)
        rows, columns, data = np.r_[rows, rows], np.r_[columns, columns], np.r_[data, data]
    order = rng.permutation(rows.size)
    rows, columns, data = rows[order], columns[order], data[order]
    if form.startswith("coo"):
        return SPARSE[form]((data, (rows, columns)), shape=shape)
    major, minor = (rows, columns) if form.startswith("csr") else (columns, rows)
    by_major = np.argsort(major, kind="stable")
    indptr = np.r_[0, np.cumsum(np.bincount(major, minlength=shape[form.startswith("csc")]))]
    return SPARSE[form]((data[by_major], minor[by_major], indptr), shape=shape)


def gene_matrix(draw, rng, shape):
    dtype = draw(st.sampled_from(GENE_TYPES))
    if draw(st.booleans()):
        return np.asarray(numbers(rng, shape, dtype), order=draw(st.sampled_from("CF")))
    formats = [form for form in SPARSE if dtype != "float16" or not form.startswith("coo")]
    return sparse(draw, rng, shape, dtype, formats=formats)


def graph(draw, rng, n):
    """Positive weights, in both directions or one, self loops among them."""
    dtype = draw(st.sampled_from(["bool", "uint8", "float32", "float64"]))
    matrix = sparse(draw, rng, (n, n), "bool").astype(dtype)
    matrix.data[matrix.data > 0] = 1
    return matrix.toarray() if draw(st.booleans()) else matrix


def vectors(draw, rng, n):
    fields = {}
    for name in draw(st.sets(st.sampled_from(["velocity_umap", "T_fwd_umap", "drift"]))):
        for dim in draw(st.sets(st.sampled_from([1, 2, 3]), min_size=1)):
            fields[f"{name}_{dim}d"] = points(draw, rng, (n, dim))
        if draw(st.booleans()):
            implicit = points(draw, rng, (n, draw(st.sampled_from([1, 2, 3]))))
            fields[name] = implicit[:, 0] if implicit.shape[1] == 1 else implicit
    return fields


@st.composite
def exports(draw):
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=4, unique=True))
    latent_shape = (n, draw(st.integers(1, 4)))
    in_latent = {"formats": [name for name in SPARSE if name.endswith("matrix")], "special": False}
    options = {
        "obs": pd.DataFrame({kind: COLUMNS[kind](rng, n) for kind in kinds}, index=range(n)),
        "latent_space": sparse(draw, rng, latent_shape, "float64", **in_latent)
        if draw(st.booleans())
        else points(draw, rng, latent_shape),
        **{
            f"X_umap_{dim}d": points(draw, rng, (n, dim))
            for dim in draw(st.sets(st.sampled_from([1, 2, 3]), min_size=1))
        },
        "obs_continuous_quantization": draw(st.sampled_from([None, 8, 16])),
        "var_quantization": draw(st.sampled_from([None, 8, 16])),
        "quantizer": draw(st.sampled_from(["nearest", "truncate"])),
        "compression": draw(st.sampled_from([None, 0, 1, 6, 9])),
        "centroid_min_points": draw(st.sampled_from([1, 3, 10])),
        "centroid_outlier_quantile": draw(st.sampled_from([None, 0.6, 0.95])),
        "obs_categorical_dtype": draw(st.sampled_from(["auto", "uint16"])),
    }
    if draw(st.booleans()):
        names = ["CD3E", "a b/c", "λ-1", "MT-CO1", "1.0", "Pisd", "PISD", "HLA.A"][: draw(st.integers(0, 8))]
        options["gene_expression"] = gene_matrix(draw, rng, (n, len(names)))
        options["var"] = pd.DataFrame({"symbol": [f"s{name}" for name in names]}, index=pd.Index(names, dtype=object))
        options["var_gene_id_column"] = draw(st.sampled_from([None, "index", "symbol"]))
        known = options["var"].symbol if options["var_gene_id_column"] == "symbol" else names
        options["gene_identifiers"] = draw(st.none() | st.permutations([*known])) if len(known) else None
    if draw(st.booleans()):
        options["connectivities"] = graph(draw, rng, n)
    if draw(st.booleans()):
        options["vector_fields"] = vectors(draw, rng, n)
    return options


@given(exports())
def test_generated_exports(options):
    with tempfile.TemporaryDirectory() as folder:
        compare(options, Path(folder))


@pytest.mark.parametrize("form", SPARSE.values())
@pytest.mark.parametrize("sign", [-1, 1])
def test_zeros_that_are_not_stored_count(form, sign, tmp_path):
    """They are the maximum of negative values and the minimum of others, unless every value is stored."""
    matrix = form(np.array([[1, 0, 2], [3, 0, 5], [2, 0, 0.5], [4, 7, 0]]) * sign)
    places = np.arange(4)[:, None]
    genes = {"gene_expression": matrix, "var": pd.DataFrame(index=["full", "one", "some"])}
    rest = {"latent_space": places, "X_umap_1d": places, "obs": pd.DataFrame(index=range(4))}
    compare({**genes, **rest, "var_quantization": 8}, tmp_path)


columns = st.lists(st.floats(width=32), min_size=1, max_size=40) | st.lists(
    st.floats(-2, 2, width=32) | st.sampled_from([0.0, 1.0, float("nan"), float("inf")]), min_size=1, max_size=40
)


def stored(values, bits, quantizer="nearest"):
    """One obs column, exported."""
    places = np.arange(values.size)[:, None]
    table = pd.DataFrame({"x": values})
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "export"
        options = {"obs_continuous_quantization": bits, "quantizer": quantizer}
        return by_us(out, latent_space=places, X_umap_1d=places, obs=table, **options).continuous("x")


@given(columns)
def test_float32_keeps_what_is_finite(values):
    """An infinity, which the original stores, would break the viewer's colour range."""
    values = np.array(values, np.float32)
    assert_array_equal(stored(values, None).codes, np.where(np.isinf(values), np.float32(np.nan), values))


@given(columns, st.sampled_from([8, 16]))
def test_truncate_is_the_originals_quantiser(original, values, bits):
    values = np.array(values, np.float32)
    codes, low, high = _by_the_original(original, values, bits)
    found = stored(values, bits, "truncate")
    assert (found.low, found.high) == (low, high)
    assert_array_equal(found.codes, codes)


@given(columns, st.sampled_from([8, 16]), st.sampled_from([np.float32, np.float64]))
def test_nearest_is_never_further_off(original, values, bits, dtype):
    values = np.array(values, dtype)
    found = stored(values, bits)
    check_against_input(found, values)
    check_no_further_off(found, Stored(*_by_the_original(original, values.astype(np.float32), bits)), values)


def _by_the_original(original, values, bits):
    try:
        return quietly(original._quantize_continuous, values, bits)[:3]
    except ZeroDivisionError:
        assume(False)  # defect 5
