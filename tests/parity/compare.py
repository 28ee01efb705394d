"""The same input exported by both programs, and everything that must hold between the two folders."""

import contextlib
import io
import re
import warnings

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.testing import assert_array_equal

from atlaswriter import prepare

from . import oracle
from .viewer import Folder

# Unit of rounding of float32: half the distance of 1 to its neighbour.
U = 2.0**-24


def quietly(work, *args, **options):
    """Call the original, which prints and uses deprecated functions."""
    hidden = io.StringIO()
    with contextlib.redirect_stdout(hidden), contextlib.redirect_stderr(hidden), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return work(*args, **options)


def by_us(out, **given):
    """Export with the fast engine, which prints nothing and raises no warning of NumPy or pandas."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), warnings.catch_warnings():
        warnings.simplefilter("error")
        prepare(out_dir=out, progress=False, **given)
    assert not printed.getvalue()
    return Folder(out)


def by_the_original(out, quantizer=None, **given):
    """Export with the reference engine.

    The original scales vectors in place (defect 20), so it gets copies; and of sparse genes it takes
    matrices only, of types that SciPy can convert.
    """
    if sp.issparse(given.get("gene_expression")):
        given["gene_expression"] = sp.csc_matrix(widened(given["gene_expression"]))
    if given.get("vector_fields"):
        given["vector_fields"] = {key: value.copy() for key, value in given["vector_fields"].items()}
    quietly(prepare, out_dir=out, engine="reference", **given)
    return Folder(out)


def compare(given, out, *, genes=None, real=False):
    """Export `given` with both engines below `out` and compare every file.

    `genes` limits whose values are compared. With `real` data, nearly all distances must be told apart
    by float64, and centroids are compared with the original's too, which are float32 sums.
    """
    ours = by_us(out / "export", **given)
    theirs = by_the_original(out / "reference" / "export", **given)
    assert ours.files() == theirs.files()
    check_identity(ours, theirs)
    for dim in ours.identity["embeddings"]["available_dimensions"]:
        check_points(ours, theirs, given, dim)
    check_vectors(ours, theirs, given)
    if given.get("connectivities") is not None:
        check_edges(ours, theirs, given["connectivities"])
    check_obs(ours, theirs, given, real)
    if given.get("gene_expression") is not None:
        check_genes(ours, theirs, given, genes)


def check_identity(ours, theirs):
    """Equal but for the documented improvements, which are checked one by one."""
    mine, other = dict(ours.identity), dict(theirs.identity)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", mine.pop("created_at"))
    assert mine.pop("cellucid_data_version").startswith("atlaswriter ")
    del other["created_at"], other["cellucid_data_version"]
    # Continuous fields first.
    mine_fields, other_fields = mine.pop("obs_fields"), other.pop("obs_fields")
    assert mine_fields == sorted(other_fields, key=lambda field: field["kind"] == "category")
    # Genes that were exported, not the width of the matrix.
    assert mine["stats"].pop("n_genes") == (len(ours.genes()) if ours.var else 0)
    del other["stats"]["n_genes"]
    # The width of codes, where all fields have the same.
    widths = {entry[2] for entry in ours.obs["_categoricalFields"]}
    setting = mine["export_settings"].pop("obs_categorical_dtype")
    assert setting == (widths.pop() if len(widths) == 1 else other["export_settings"]["obs_categorical_dtype"])
    del other["export_settings"]["obs_categorical_dtype"]
    # Every vector field has a basis.
    for field in mine.get("vector_fields", {}).get("fields", {}).values():
        assert field.pop("basis") == "umap"
    for field in other.get("vector_fields", {}).get("fields", {}).values():
        field.pop("basis", None)
    assert mine == other


def check_points(ours, theirs, given, dim):
    raw = np.asarray(given[f"X_umap_{dim}d"], np.float64)
    exact = oracle.normalised(raw)
    assert_array_equal(ours.points(dim), exact.astype(np.float32))
    # The original casts to float32, and rounds the middle, the width, the difference, the factor and
    # the product to it: each half an ulp of a number up to 1 (5 U with our one rounding, 1 U for
    # second order), or, relative to the box, of the raw coordinates (4 times).
    reach = np.abs(raw).max() / oracle.half_width(raw)
    assert np.abs(theirs.points(dim) - exact).max() <= U * (6 + 4 * reach)


def check_vectors(ours, theirs, given):
    for field, entry in ours.identity.get("vector_fields", {}).get("fields", {}).items():
        for dim in entry["available_dimensions"]:
            raw = _vectors(given["vector_fields"], field, dim)
            embedding = np.asarray(given[f"X_umap_{dim}d"], np.float64)
            half = oracle.half_width(embedding)
            assert_array_equal(ours.vectors(field, dim), (raw / half).astype(np.float32))
            # As for points, but relative to each component, and with no middle to subtract.
            reach = np.abs(embedding).max() / half
            off = np.abs(theirs.vectors(field, dim) - raw / half)
            assert np.all(off <= U * (5 + 2 * reach) * np.abs(raw / half) + 2.0**-149)


def _vectors(fields, name, dim):
    explicit = fields.get(f"{name}_{dim}d")
    raw = np.asarray(_dense(fields[name] if explicit is None else explicit), np.float64)
    return raw.reshape(len(raw), -1)


def check_edges(ours, theirs, matrix):
    sources, destinations, largest = oracle.edges(matrix)
    for found, expected in zip(ours.edges(), (sources, destinations), strict=True):
        assert_array_equal(found, expected)
    for found, expected in zip(theirs.edges(), (sources, destinations), strict=True):
        assert_array_equal(found, expected)
    mine, other = dict(ours.graph), dict(theirs.graph)
    assert mine.pop("max_neighbors") == largest
    # Self loops are neighbours in the original.
    assert other.pop("max_neighbors") in (largest, largest + 1)
    assert mine == other


def check_genes(ours, theirs, given, genes):
    assert _without(ours.var, "fields") == _without(theirs.var, "fields")
    assert ours.genes() == theirs.genes()
    matrix, column = given["gene_expression"], given.get("var_gene_id_column", "index")
    labels = given["var"].index if column in (None, "index") else given["var"][column]
    place = {str(label): position for position, label in enumerate(labels)}
    matrix = sp.csc_array(widened(matrix)) if sp.issparse(matrix) else matrix
    for name in ours.genes() if genes is None else genes:
        values = _dense(matrix[:, [place[name]]]).ravel()
        check_values(ours.gene(name), theirs.gene(name), values, given)


def check_obs(ours, theirs, given, real):
    fields = ("_continuousFields", "_categoricalFields")
    assert _without(ours.obs, *fields) == _without(theirs.obs, *fields)
    for kind in fields:
        assert [entry[0] for entry in ours.obs[kind]] == [entry[0] for entry in theirs.obs[kind]]
    for key, *_ in ours.obs["_continuousFields"]:
        values = pd.to_numeric(given["obs"][key]).to_numpy(dtype=np.float64, na_value=np.nan)
        check_values(ours.continuous(key), theirs.continuous(key), values, given)
    for key, *_ in ours.obs["_categoricalFields"]:
        check_category(ours, theirs, given, key, real)


def check_category(ours, theirs, given, key, real):
    mine, other = ours.category(key), theirs.category(key)
    assert mine[:4] == other[:4]
    assert_array_equal(ours.codes(key), theirs.codes(key))
    codes = given["obs"][key].astype("category").cat.codes.to_numpy()
    least = given.get("centroid_min_points", 10)
    dims = ours.identity["embeddings"]["available_dimensions"]
    assert mine[4].keys() == other[4].keys() == {str(dim) for dim in dims}
    for dim in dims:
        check_centroids(mine[4][str(dim)], oracle.normalised(given[f"X_umap_{dim}d"]), codes, mine[1], given, real)
        if real:
            check_centroids_loosely(mine[4][str(dim)], other[4][str(dim)])
    latent = _dense(given["latent_space"])
    exact = oracle.outlier_quantiles(latent, codes, len(mine[1]), least)
    if real:
        assert np.mean((exact[0] != exact[1]) & (exact[0] > 0)) < 1e-4
    from cellucid.prepare_data import _compute_latent_space_quantiles

    single = _compute_latent_space_quantiles(latent.astype(np.float32), codes, mine[1], least)
    check_outliers(ours.outliers(key), theirs.outliers(key), *exact, single, given)


def check_centroids(found, points, codes, labels, given, real):
    least, quantile = given.get("centroid_min_points", 10), given.get("centroid_outlier_quantile", 0.95)
    if quantile is None:
        assert found == []
        return
    expected, settled = oracle.centroids(points, codes, labels, quantile, least)
    assert [entry["category"] for entry in found] == [entry["category"] for entry in expected]
    assert not real or sum(settled) >= 0.75 * len(settled)
    for mine, exact, is_settled in zip(found, expected, settled, strict=True):
        if is_settled:
            assert mine["n_points"] == exact["n_points"]
            np.testing.assert_allclose(mine["position"], exact["position"], rtol=0, atol=1e-11)


def check_centroids_loosely(ours, theirs):
    """Sums in float32 move a centroid; one cell more or less inside moves it by its share."""
    assert [entry["category"] for entry in ours] == [entry["category"] for entry in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        swapped = abs(mine["n_points"] - other["n_points"])
        assert swapped <= 1 + mine["n_points"] // 1000
        off = np.abs(np.subtract(mine["position"], other["position"])).max()
        assert off <= 1e-3 + 2 * swapped / mine["n_points"]


def check_outliers(ours, theirs, least, most, single, given):
    """Quantiles of float64 distances, `least` to `most`; `single` are the original's, of float32 ones."""
    settled = (least == most) | np.isnan(least)
    if ours.low is None:
        assert_array_equal(ours.codes[settled], least[settled])
        assert np.all((least <= ours.codes) & (ours.codes <= most) | settled)
        assert_array_equal(theirs.codes, single)
    elif oracle.bounds(least) != oracle.bounds(most):
        assert_array_equal(ours.missing, np.isnan(least))
    elif given.get("quantizer") != "truncate":
        check_against_input(ours, least, settled)
    elif oracle.bounds(least) == oracle.bounds(single):
        assert (ours.low, ours.high) == (theirs.low, theirs.high)
        same = settled & (least == single) | np.isnan(least)
        assert_array_equal(ours.codes[same], theirs.codes[same])


def check_values(ours, theirs, values, given):
    single = values.astype(np.float32)
    if ours.low is None:
        assert_array_equal(theirs.codes, single)
        # No infinity: it would break the viewer's colour range.
        assert_array_equal(ours.codes, np.where(np.isfinite(single), single, np.float32(np.nan)))
        return
    assert (theirs.low, theirs.high) == oracle.bounds(single)
    if given.get("quantizer") == "truncate":
        assert (ours.low, ours.high) == (theirs.low, theirs.high)
        assert_array_equal(ours.codes, theirs.codes)
    else:
        check_against_input(ours, values)
        check_no_further_off(ours, theirs, values)


def check_against_input(stored, values, settled=True):
    """Rounded to the nearest code between the float64 bounds of the input."""
    assert (stored.low, stored.high) == oracle.bounds(values)
    assert_array_equal(stored.missing, ~np.isfinite(values))
    held = ~stored.missing & settled
    positions = oracle.positions(values, 8 * stored.codes.itemsize)[held]
    assert np.abs(stored.codes[held] - positions).max(initial=0) <= 0.5 + 1e-9


def check_no_further_off(ours, theirs, values):
    """The largest error of a field, in its own units, is not larger than the original's."""
    held = ~ours.missing
    if not held.any():
        return
    values = values[held].astype(np.float64)
    if np.array_equal(values, values.astype(np.float32)):
        # The same bounds, so this holds for each value, before the viewer rounds to float32.
        slack = 1e-9 * (ours.high - ours.low) / oracle.TOP[8]
        assert np.all(np.abs(ours.exact()[held] - values) <= np.abs(theirs.exact()[held] - values) + slack)
    errors = [np.abs(stored.decoded()[held] - values).max() for stored in (ours, theirs)]
    # The original's bounds are float32; theirs and the viewer's rounding may happen to help.
    assert errors[0] <= errors[1] + 2 * U * np.abs(values).max() + 2.0**-149


def widened(matrix):
    """float32 for float16, for which SciPy has no arithmetic."""
    return matrix.astype(np.float32) if matrix.dtype == np.float16 else matrix


def _dense(matrix):
    return widened(matrix).toarray() if sp.issparse(matrix) else np.asarray(matrix)


def _without(manifest, *keys):
    return {key: value for key, value in manifest.items() if key not in keys}
