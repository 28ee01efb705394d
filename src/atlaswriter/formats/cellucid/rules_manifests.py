"""Rules about the manifests of obs, var and connectivity, and which payloads they ask for."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from atlaswriter.errors import listed
from atlaswriter.findings import ReadError
from atlaswriter.formats.cellucid import layout as names
from atlaswriter.formats.cellucid import rules_entries as entries
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.rules import Survey
from atlaswriter.formats.cellucid.rules_entries import Category, Schema
from atlaswriter.formats.cellucid.rules_identity import compare_edges, compare_fields, compare_genes, compare_settings
from atlaswriter.formats.cellucid.rules_payloads import examine_codes, examine_edges, examine_outliers, examine_values
from atlaswriter.names import safe_name
from atlaswriter.sources.untrusted import count, locate, number

_RENAME = "rename the column or gene, export again"
_WEIGHT_KEYS = ("weightsPath", "weight_dtype", "weight_bytes")

# Manifests of nothing, to compare key sets with.
_OBS = names.obs_manifest(
    Layout(), n_cells=0, centroid_outlier_quantile=None, compression=None, bits=8, continuous=[[]], categorical=[[]]
)
_VAR = names.var_manifest(Layout(), n_cells=0, gene_id_column=None, compression=None, bits=8, genes=[])
_EDGES = names.connectivity_manifest(Layout(), n_cells=0, n_edges=0, max_neighbors=0, compression=None)


def survey_obs(survey: Survey) -> None:
    """Check the obs manifest and ask for its payloads."""
    where = survey.layout.obs_manifest
    manifest = survey.load(where, survey.layout.obs_dir)
    if manifest is None:
        return
    survey.exact_keys(manifest, _OBS, "the manifest", where)
    schemas: dict[str, Any] = {}
    with survey.findings.catching():
        entries.require_format(manifest, "_format", names.MANIFEST_FORMAT, where)
        survey.same_cells(count(manifest.get("n_points"), "n_points", where), where)
        schemas = entries.as_dict(manifest.get("_obsSchemas"), "_obsSchemas", where)
    quantile = manifest.get("centroid_outlier_quantile")
    if quantile is not None:
        with survey.findings.catching():
            number(quantile, "centroid_outlier_quantile", where)
    continuous = _continuous(survey, manifest, schemas, where)
    categorical = _categorical(survey, manifest, schemas, where)
    _keys(survey, continuous + [key for key, _ in categorical], where)
    compare_fields(survey, continuous, categorical)
    _compression(survey, manifest, survey.layout.obs_dir, where)


def _schema(survey: Survey, raw: Any, sample: Mapping[str, Any], directory: str, where: str) -> Schema:
    """Schema of continuous values with its rules; raises when it cannot be understood."""
    manifest = entries.as_dict(raw, "the schema of continuous values", where)
    schema = entries.value_schema(manifest, where)
    wanted = set(sample) - ({"quantizationBits"} if schema.bits is None else set())
    survey.exact_keys(manifest, wanted, "the schema of continuous values", where)
    known = {names.values_pattern(directory, schema.bits, gz) for gz in (False, True)}
    if schema.pattern not in known or manifest.get("ext") != names.EXTENSIONS[schema.bits]:
        survey.findings.strict("schema.name", where, f"pattern or extension are not those of {schema.dtype}")
    return schema


def _continuous(survey: Survey, manifest: Mapping[str, Any], schemas: Mapping[str, Any], where: str) -> list[str]:
    fields = entries.as_list(manifest.get("_continuousFields"))
    if fields:
        with survey.findings.catching():
            sample = _OBS["_obsSchemas"]["continuous"]
            schema = _schema(survey, schemas.get("continuous"), sample, survey.layout.obs_dir, where)
            compare_settings(survey, where, obs_continuous_quantization=schema.bits)
            return _value_fields(survey, fields, schema, where)
    return []


def _value_fields(survey: Survey, fields: Sequence[Any], schema: Schema, where: str) -> list[str]:
    keys = []
    for field in fields:
        with survey.findings.catching():
            key, values = entries.value_entry(field, schema, survey.n_cells or 0, where)
            keys.append(key)
            _key_is_text(survey, field, where)
            survey.add(partial(examine_values, entry=values), values.payload)
    return keys


def _key_is_text(survey: Survey, field: Any, where: str) -> None:
    if not isinstance(entries.as_list(field)[0], str):
        survey.findings.strict("keys.text", where, f"the name {entries.as_list(field)[0]!a} is not text", _RENAME)


def _categorical(
    survey: Survey, manifest: Mapping[str, Any], schemas: Mapping[str, Any], where: str
) -> list[tuple[str, int]]:
    result = []
    dtypes = set()
    schema: dict[str, Any] = {}
    fields = entries.as_list(manifest.get("_categoricalFields"))
    with survey.findings.catching():
        schema = entries.as_dict(schemas.get("categorical"), "the schema of categorical fields", where)
        if fields:
            survey.exact_keys(schema, _OBS["_obsSchemas"]["categorical"], "the schema of categorical fields", where)
    for field in fields:
        with survey.findings.catching():
            key, category = entries.category_entry(field, schema, survey.n_cells or 0, where)
            result.append((key, len(category.categories)))
            dtypes.add(category.codes.dtype)
            _key_is_text(survey, field, where)
            _labels(survey, key, category, field[1], where)
            needed = _centroids(survey, key, category, where)
            survey.add(partial(examine_codes, key=key, category=category, needed=needed), category.codes)
            survey.add(partial(examine_outliers, entry=category.outliers), category.outliers.payload)
    if len(dtypes) == 1:
        compare_settings(survey, where, obs_categorical_dtype=dtypes.pop())
    elif dtypes:
        survey.findings.strict("settings", where, "categorical fields have codes of two widths", "set one codes dtype")
    return result


def _labels(survey: Survey, key: str, category: Category, raw: Any, where: str) -> None:
    """Labels are a list, distinct, and leave the missing code free."""
    findings, n_categories = survey.findings, len(category.categories)
    if not isinstance(raw, list):
        remedy = "write them as a list, with brackets"
        findings.error("shape.unboxed", where, f"categories of {key!a} are not a list", remedy)
    shown = Counter(" ".join(label.split()) for label in category.categories)
    repeated = [label for label, n in shown.items() if n > 1]
    if repeated:
        findings.strict("categories.unique", where, f"{key!a} shows {listed(repeated)} more than once")
    usual = names.MISSING[names.BITS_OF_DTYPE[category.codes.dtype]]
    if n_categories > usual:
        found = f"{key!a} has {n_categories:,} categories, more than its {category.codes.dtype} codes can tell apart"
        findings.error("categories.count", where, found, "merge categories or use uint16 codes, export again")
    elif category.missing < n_categories:
        findings.error("codes.missing", where, f"the missing code {category.missing} of {key!a} is also a category")
    elif category.missing != usual:
        findings.strict("codes.missing", where, f"the missing code of {key!a} is {category.missing}, not {usual}")


def _centroids(survey: Survey, key: str, category: Category, where: str) -> dict[str, int]:
    """Check label positions; returns how many cells each category must have at least."""
    needed: dict[str, int] = {}
    dims = {str(dim): dim for dim in survey.dimensions}
    if set(category.centroids) != set(dims):
        found = f"{key!a} has label positions in dimensions {listed(category.centroids)}, points in {listed(dims)}"
        survey.findings.strict("centroids.dimensions", where, found)
    for name, dim in dims.items():
        raw = category.centroids.get(name)
        with survey.findings.catching():
            found_in = entries.centroid_entries(raw, dim, key, where)
            if any(not isinstance(item.get("position"), list) for item in entries.as_list(raw)):
                remedy = "write them as lists, with brackets"
                survey.findings.error("shape.unboxed", where, f"label positions of {key!a} are not lists", remedy)
            labels = [centroid.category for centroid in found_in]
            _centroid_labels(survey, key, labels, category, where)
            survey.centroids.setdefault(dim, []).extend(
                (key, centroid.category, centroid.position) for centroid in found_in
            )
            for centroid in found_in:
                needed[centroid.category] = max(centroid.n_points, needed.get(centroid.category, 1))
    return needed


def _centroid_labels(survey: Survey, key: str, labels: Sequence[str], category: Category, where: str) -> None:
    unknown = set(labels) - set(category.categories)
    if unknown:
        found = f"{key!a} has label positions for {listed(sorted(unknown))}, which are no categories"
        survey.findings.error("centroids.category", where, found)
    if len(set(labels)) < len(labels):
        survey.findings.strict("centroids.repeated", where, f"{key!a} has two positions for one category")


def _keys(survey: Survey, keys: Sequence[str], where: str) -> None:
    """Names are distinct, and so are the files that the viewer derives from them."""
    findings = survey.findings
    repeated = [key for key, n in Counter(keys).items() if n > 1]
    if repeated:
        findings.error("keys.repeated", where, f"{listed(repeated)} occur more than once", _RENAME)
    files, folded = defaultdict(list), defaultdict(set)
    for key in dict.fromkeys(keys):
        files[safe_name(key)].append(key)
        folded[safe_name(key).lower()].add(safe_name(key))
    for name, group in files.items():
        if len(group) > 1:
            findings.error("keys.collision", where, f"{listed(group)} share the file name {name!r}", _RENAME)
    by_case = [" / ".join(sorted(group)) for group in folded.values() if len(group) > 1]
    if by_case:
        found = f"file names differ only by case: {listed(by_case)}"
        findings.warning("keys.case", where, found, "do not copy this folder to a macOS or Windows disk")
    nameless = [key for key in files.get("field", []) if key != "field"]
    if nameless:
        found = f"nothing of {listed(nameless)} is left in the file name"
        findings.strict("keys.nameless", where, found, _RENAME)


def _compression(survey: Survey, manifest: Mapping[str, Any], directory: str, where: str) -> None:
    level = manifest.get("compression")
    survey.compression(level, (path for path in survey.declared if path.startswith(f"{directory}/")), where)
    compare_settings(survey, where, compression=level)


def survey_var(survey: Survey) -> None:
    """Check the var manifest, if there is one, and ask for its payloads."""
    where, directory = survey.layout.var_manifest, survey.layout.var_dir
    if not _exists(survey, where):
        compare_genes(survey, None)
        return
    manifest = survey.load(where, directory)
    if manifest is None:
        return
    survey.exact_keys(manifest, _VAR, "the manifest", where)
    keys: list[str] = []
    with survey.findings.catching():
        entries.require_format(manifest, "_format", names.MANIFEST_FORMAT, where)
        survey.same_cells(count(manifest.get("n_points"), "n_points", where), where)
        schema = _schema(survey, manifest.get("_varSchema"), _VAR["_varSchema"], directory, where)
        if manifest.get("quantization") != schema.bits:
            survey.findings.strict("settings", where, "quantization and the schema contradict each other")
        compare_settings(survey, where, var_quantization=schema.bits)
        keys = _value_fields(survey, entries.as_list(manifest.get("fields")), schema, where)
        compare_genes(survey, len(keys))
    _keys(survey, keys, where)
    _compression(survey, manifest, directory, where)


def _exists(survey: Survey, name: str) -> bool:
    try:
        return locate(survey.root, name).exists()
    except ReadError:
        return True


def survey_edges(survey: Survey) -> None:
    """Check the connectivity manifest, if there is one, and ask for its payloads."""
    where, directory = survey.layout.connectivity_manifest, survey.layout.connectivity_dir
    if not _exists(survey, where):
        compare_edges(survey, None)
        return
    manifest = survey.load(where, directory)
    if manifest is None:
        return
    survey.exact_keys(manifest, _EDGES.keys() | (manifest.keys() & set(_WEIGHT_KEYS)), "the manifest", where)
    with survey.findings.catching():
        edges = entries.edges_entry(manifest, where)
        n_cells = count(manifest.get("n_cells"), "n_cells", where)
        survey.same_cells(n_cells, where)
        if edges.weights is None:
            found = "edges have no weights, which the strict viewer wants"
            survey.findings.strict("edges.weights", where, found, "none in this layout; open it in the viewer of 0.0.9")
        # The strict viewer counts one cell more into uint16 than 0.0.9 does.
        usual = {names.index_dtype(n_cells)[0], names.index_dtype(max(n_cells - 1, 0))[0]} - {"uint64"}
        if edges.sources.dtype not in usual:
            survey.findings.strict("edges.dtype", where, f"{edges.sources.dtype} is not the smallest index dtype")
        weights = () if edges.weights is None else (edges.weights,)
        survey.add(partial(examine_edges, entry=edges, n_cells=n_cells), edges.sources, edges.destinations, *weights)
        compare_edges(survey, edges.sources.shape[0])
    _compression(survey, manifest, directory, where)
