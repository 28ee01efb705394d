"""Rules about ``dataset_identity.json``, alone and against the manifests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from atlaswriter.errors import listed
from atlaswriter.formats.cellucid import layout as names
from atlaswriter.formats.cellucid import rules_entries as entries
from atlaswriter.formats.cellucid.rules import Survey
from atlaswriter.formats.cellucid.rules_payloads import examine_points, examine_vectors
from atlaswriter.names import safe_name
from atlaswriter.sources.untrusted import count, text

_WHERE = names.IDENTITY
_MIXED = "remove the folder and export again"

# An identity with every key that is always there, to compare others with.
_SAMPLE = names.identity(
    dataset={"id": "", "name": "", "description": ""},
    created_at="",
    writer="",
    n_cells=0,
    n_genes=0,
    obs_fields=[],
    n_edges=None,
    dimensions=[1],
    settings=dict.fromkeys(("compression", "var_quantization", "obs_continuous_quantization", "obs_categorical_dtype")),
    source={},
    vectors={},
)


def survey_identity(survey: Survey) -> bool:
    """Check the identity by itself; False when nothing else can be understood without it."""
    identity = survey.load(_WHERE, "")
    if identity is None:
        return False
    before = len(survey.findings)
    with survey.findings.catching():
        entries.require_version(identity)
    if len(survey.findings) > before:
        return False
    survey.identity = identity
    wanted = _SAMPLE.keys() | (identity.keys() & {"source", "vector_fields"})
    survey.exact_keys(identity, wanted, "the identity", _WHERE)
    for key in ("stats", "export_settings"):
        with survey.findings.catching():
            survey.exact_keys(entries.as_dict(identity.get(key), key, _WHERE), _SAMPLE[key], key, _WHERE)
    with survey.findings.catching():
        stats = entries.as_dict(identity.get("stats"), "stats", _WHERE)
        survey.same_cells(count(stats.get("n_cells"), "n_cells", _WHERE), _WHERE)
    _texts(survey)
    _embeddings(survey)
    _vectors(survey)
    with survey.findings.catching():
        settings = entries.as_dict(identity.get("export_settings"), "export_settings", _WHERE)
        survey.compression(settings.get("compression"), survey.declared - {_WHERE}, _WHERE)
    return True


def _texts(survey: Survey) -> None:
    for key in ("id", "name", "description", "created_at", "cellucid_data_version"):
        with survey.findings.catching():
            text(survey.identity.get(key, ""), key, _WHERE)
    with survey.findings.catching():
        source = entries.as_dict(survey.identity.get("source"), "source", _WHERE)
        if source and not source.get("name"):
            survey.findings.strict("source.name", _WHERE, "the source has no name", "give source_name")


def _dimensions(survey: Survey, entry: dict[str, Any], what: str) -> list[int]:
    """Dimensions of the embeddings or of a vector field, with their rules."""
    result: list[int] = []
    with survey.findings.catching():
        result = entries.dimensions(entry, _WHERE)
        if not isinstance(entry["available_dimensions"], list):
            found = f"available_dimensions of {what} is not a list"
            survey.findings.error("shape.unboxed", _WHERE, found, "write it as a list, with brackets")
        if entry.get("default_dimension") not in result:
            survey.findings.error("dimensions.default", _WHERE, f"default_dimension of {what} is not among {result}")
        files = entries.as_dict(entry.get("files"), f"files of {what}", _WHERE)
        if set(files) != {f"{dim}d" for dim in result}:
            found = f"files of {what} are {listed(files)}, dimensions are {result}"
            survey.findings.strict("dimensions.files", _WHERE, found)
    return result


def _embeddings(survey: Survey) -> None:
    embeddings: dict[str, Any] = {}
    with survey.findings.catching():
        embeddings = entries.as_dict(survey.identity.get("embeddings"), "embeddings", _WHERE)
        survey.exact_keys(embeddings, _SAMPLE["embeddings"], "embeddings", _WHERE)
    survey.dimensions = _dimensions(survey, embeddings, "the embeddings")
    unseen = [dim for dim in survey.dimensions if dim not in names.SHOWN_DIMENSIONS]
    if unseen:
        survey.findings.strict("dimensions.shown", _WHERE, "the viewer does not show four dimensions", "leave them out")
    for dim in survey.dimensions:
        with survey.findings.catching():
            payload = entries.points_payload(embeddings, dim, survey.n_cells or 0)
            # Filled later, when the obs manifest is read, and looked at after that.
            centroids = survey.centroids.setdefault(dim, [])
            survey.add(partial(examine_points, file=payload.path, centroids=centroids), payload)


def _vectors(survey: Survey) -> None:
    if "vector_fields" not in survey.identity:
        return
    fields: dict[str, dict[str, Any]] = {}
    with survey.findings.catching():
        fields = entries.vector_entries(survey.identity)
        default = entries.as_dict(survey.identity["vector_fields"], "vector_fields", _WHERE).get("default_field")
        if not isinstance(default, str) or default not in fields:
            survey.findings.error("vectors.default", _WHERE, "default_field is not among the vector fields")
    for field, entry in fields.items():
        _vector_field(survey, field, entry)


def _vector_field(survey: Survey, field: str, entry: dict[str, Any]) -> None:
    what = f"vector field {field!a}"
    if safe_name(field) != field:
        survey.findings.strict("vectors.id", _WHERE, f"{what} has characters that file names must not have")
    survey.exact_keys(entry, names.vector_field("x", [1], False), what, _WHERE)
    dimensions = _dimensions(survey, entry, what)
    without = [dim for dim in dimensions if dim not in survey.dimensions]
    if without:
        survey.findings.strict("vectors.dimensions", _WHERE, f"{what} has no points in {listed(without)} dimensions")
    for dim in dimensions:
        with survey.findings.catching():
            payload = entries.vectors_payload(field, entry, dim, survey.n_cells or 0)
            survey.add(partial(examine_vectors, file=payload.path), payload)


def compare_fields(survey: Survey, continuous: Sequence[str], categorical: Sequence[tuple[str, int]]) -> None:
    """The identity lists the fields of the obs manifest, for the strict viewer in its order."""
    wanted = [(key, "continuous", None) for key in continuous] + [(key, "category", n) for key, n in categorical]
    with survey.findings.catching():
        stats = entries.as_dict(survey.identity.get("stats"), "stats", _WHERE)
        counts = {
            "n_obs_fields": len(wanted),
            "n_continuous_fields": len(continuous),
            "n_categorical_fields": len(categorical),
        }
        for key, n_fields in counts.items():
            if key in stats and count(stats[key], key, _WHERE) != n_fields:
                found = f"{key} is {stats[key]}, the obs manifest has {n_fields}"
                survey.findings.error("counts.fields", _WHERE, found, _MIXED)
    with survey.findings.catching():
        listing = [_listed_field(entry) for entry in entries.as_list(survey.identity.get("obs_fields"))]
        if sorted(map(repr, listing)) != sorted(map(repr, wanted)):
            different = {item[0] for item in set(listing) ^ set(wanted)}
            found = f"obs_fields and the obs manifest differ in {listed(sorted(different))}"
            survey.findings.error("fields.match", _WHERE, found, _MIXED)
        elif listing != wanted:
            found = "obs_fields are not in the manifest's order, the continuous ones first"
            survey.findings.strict("fields.order", _WHERE, found)


def _listed_field(raw: Any) -> tuple[str, str, int | None]:
    entry = entries.as_dict(raw, "an obs field", _WHERE)
    kind = text(entry.get("kind"), "kind of an obs field", _WHERE)
    n_categories = entry.get("n_categories") if kind == "category" else None
    key = entries.key_text(entry.get("key"), _WHERE)
    return key, kind, None if n_categories is None else count(n_categories, "n_categories", _WHERE)


def compare_genes(survey: Survey, n_genes: int | None) -> None:
    """The identity counts the genes of the var manifest; None stands for no manifest."""
    with survey.findings.catching():
        stats = entries.as_dict(survey.identity.get("stats"), "stats", _WHERE)
        stated = count(stats.get("n_genes", 0), "n_genes", _WHERE)
        if n_genes is None and stated:
            found = f"{stated:,} genes are announced, but there is no {survey.layout.var_manifest}"
            survey.findings.error("counts.genes", _WHERE, found)
        elif n_genes is not None and stated < n_genes:
            found = f"{stated:,} genes are announced, {n_genes:,} are in the manifest; files of two exports are mixed"
            survey.findings.error("counts.genes", _WHERE, found, _MIXED)
        elif n_genes is not None and stated > n_genes:
            # 0.0.9 writes the width of the matrix, also when a subset is exported.
            found = f"{stated:,} genes are announced, {n_genes:,} are exported"
            survey.findings.strict("counts.genes", _WHERE, found)


def compare_edges(survey: Survey, n_edges: int | None) -> None:
    """The identity announces the graph that is there; None stands for no manifest."""
    with survey.findings.catching():
        stats = entries.as_dict(survey.identity.get("stats"), "stats", _WHERE)
        if stats.get("has_connectivity", False) is not (n_edges is not None):
            there = "no graph" if n_edges is None else "a graph"
            found = f"has_connectivity does not fit: there is {there} in the folder"
            survey.findings.error("counts.edges", _WHERE, found, _MIXED)
        stated = None if stats.get("n_edges") is None else count(stats["n_edges"], "n_edges", _WHERE)
        if stated != n_edges:
            found = f"n_edges is {stated}, the connectivity manifest has {n_edges}"
            survey.findings.error("counts.edges", _WHERE, found, _MIXED)


def compare_settings(survey: Survey, where: str, **stored: object) -> None:
    """``export_settings`` say what was done, for the strict viewer."""
    with survey.findings.catching():
        settings = entries.as_dict(survey.identity.get("export_settings"), "export_settings", _WHERE)
        for key, value in stored.items():
            if settings.get(key) != value:
                found = f"{key} is {settings.get(key)!a} in the identity, {value!a} in {where}"
                survey.findings.strict("settings", _WHERE, found)
