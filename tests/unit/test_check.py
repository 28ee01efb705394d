"""Each rule of `check` is broken alone in a copy of a golden export, and found."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlaswriter.codecs.gzip import inflate
from atlaswriter.errors import FormatError
from atlaswriter.formats.cellucid import check as check_module
from atlaswriter.formats.cellucid.check import check
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.rules_entries import edges_entry
from atlaswriter.formats.cellucid.rules_payloads import examine_edges
from atlaswriter.sources import untrusted

GOLDEN = Path(__file__).parent.parent / "golden" / "exports"
SOURCES = Path(check_module.__file__).parent
IDENTITY, OBS, VAR, EDGES = (
    "dataset_identity.json",
    "obs_manifest.json",
    "var_manifest.json",
    "connectivity_manifest.json",
)

Break = Callable[[Path], object]


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[str], Path]:
    def make(name: str) -> Path:
        return Path(shutil.copytree(GOLDEN / name, tmp_path / name))

    return make


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Break:
    """Change a JSON file."""

    def apply(root: Path) -> None:
        content = json.loads((root / name).read_text())
        change(content)
        (root / name).write_text(json.dumps(content))

    return apply


def put(name: str, *path: Any, to: Any) -> Break:
    """Set one value deep in a JSON file."""

    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        content[path[-1]] = to

    return edit(name, change)


def drop(name: str, *path: Any) -> Break:
    def change(content: Any) -> None:
        for key in path[:-1]:
            content = content[key]
        del content[path[-1]]

    return edit(name, change)


def array(name: str, dtype: str, change: Callable[[np.ndarray], object]) -> Break:
    """Change a payload in place."""

    def apply(root: Path) -> None:
        path = root / name
        raw = path.read_bytes()
        values = np.frombuffer(gzip.decompress(raw) if name.endswith(".gz") else raw, dtype).copy()
        change(values)
        path.write_bytes(gzip.compress(values.tobytes()) if name.endswith(".gz") else values.tobytes())

    return apply


def at(index: Any, value: Any) -> Callable[[np.ndarray], None]:
    return lambda values: values.__setitem__(index, value)


def each(*breaks: Break) -> Break:
    return lambda root: [one(root) for one in breaks]


def new(name: str, content: bytes = b"x") -> Break:
    def apply(root: Path) -> None:
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)

    return apply


def remove(name: str) -> Break:
    return lambda root: (root / name).unlink()


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Break:
    return lambda root: (root / name).write_bytes(change((root / name).read_bytes()))


def rename_gene(index: int, to: Any) -> Break:
    return put(VAR, "fields", index, 0, to=to)


def link_out(root: Path) -> None:
    outside = root.parent / "outside"
    shutil.move(root / "points_2d.bin", outside)
    (root / "points_2d.bin").symlink_to(outside)


def swap_edges(i: int, j: int) -> Break:
    def change(values: np.ndarray) -> None:
        values[[i, j]] = values[[j, i]]

    return each(array(SRC, "<u2", change), array(DST, "<u2", change))


def reverse_first(root: Path) -> None:
    src = np.frombuffer(gzip.decompress((root / SRC).read_bytes()), "<u2").copy()
    dst = np.frombuffer(gzip.decompress((root / DST).read_bytes()), "<u2").copy()
    array(SRC, "<u2", at(0, dst[0]))(root)
    array(DST, "<u2", at(0, src[0]))(root)


def wide(root: Path) -> None:
    """Edges of four bytes an end."""
    for name in (SRC, DST):
        ends = np.frombuffer(gzip.decompress((root / name).read_bytes()), "<u2").astype("<u4")
        (root / name).write_bytes(gzip.compress(ends.tobytes()))
    edit(EDGES, lambda x: x.update(index_dtype="uint32", index_bytes=4))(root)


SRC, DST = "connectivity/edges.src.bin.gz", "connectivity/edges.dst.bin.gz"
CELL_TYPE = ("_categoricalFields", 0)
CENTROID = (*CELL_TYPE, 4, "2", 0)
CATEGORICAL = ("_obsSchemas", "categorical")
CONTINUOUS = ("_obsSchemas", "continuous")


def missing_code(n: int) -> Break:
    return put(OBS, *CELL_TYPE, 3, to=n)


def merge(codes: np.ndarray) -> None:
    codes[codes == 0] = 1


def many_categories(content: dict[str, Any]) -> None:
    content["_categoricalFields"][0][1] += [f"more {i}" for i in range(252)]


# rule, severity, golden export, how it is broken
CASES: list[tuple[str, str, str, Break]] = [
    # files
    ("file.missing", "error", "plain", remove("points_2d.bin")),
    ("file.missing", "error", "plain", remove("var/CD3E.values.f32")),
    ("file.missing", "error", "plain", remove("obs/score.values.f32")),
    ("file.missing", "error", "plain", remove(IDENTITY)),
    ("file.missing", "error", "plain", remove(OBS)),
    ("file.missing", "error", "plain", lambda root: [remove("points_2d.bin")(root), (root / "points_2d.bin").mkdir()]),
    ("file.size", "error", "plain", rewrite("points_2d.bin", lambda raw: raw[:-4])),
    ("file.size", "error", "plain", rewrite("points_2d.bin", lambda raw: raw + bytes(200_000))),
    ("file.size", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: gzip.compress(bytes(100_000)))),
    ("file.size", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: gzip.compress(bytes(8)))),
    ("file.size", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: raw + bytes(200_000))),
    ("file.path", "error", "plain", put(IDENTITY, "embeddings", "files", "2d", to="/etc/passwd")),
    ("file.path", "error", "plain", put(IDENTITY, "embeddings", "files", "2d", to="../plain/points_2d.bin")),
    ("file.path", "error", "plain", put(IDENTITY, "embeddings", "files", "2d", to="..\\plain\\points_2d.bin")),
    ("file.path", "error", "plain", put(IDENTITY, "embeddings", "files", "2d", to="C:points_2d.bin")),
    ("file.path", "error", "plain", put(IDENTITY, "embeddings", "files", "2d", to="points\0_2d.bin")),
    ("file.path", "error", "plain", put(IDENTITY, "embeddings", "files", "2d", to="points\ud800_2d.bin")),
    ("file.path", "error", "plain", put(IDENTITY, "embeddings", "files", "2d", to="")),
    ("file.path", "error", "plain", link_out),
    ("file.unreadable", "error", "plain", rename_gene(0, "G" * 300)),
    ("gzip", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: raw[:-9])),
    ("gzip", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: raw + raw)),
    ("gzip", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: raw + b"\0")),
    ("gzip", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: b"")),
    ("gzip", "error", "gz8", rewrite("points_2d.bin.gz", gzip.decompress)),
    ("gzip", "error", "gz8", rewrite("points_2d.bin.gz", lambda raw: raw[:3] + b"\x20" + raw[4:])),
    ("json", "error", "plain", rewrite(OBS, lambda raw: raw[:-1])),
    ("json", "error", "plain", rewrite(OBS, lambda raw: raw.replace(b"0.95", b"NaN"))),
    ("json", "error", "plain", rewrite(OBS, lambda raw: raw.replace(b"0.95", b"-Infinity"))),
    ("json", "error", "plain", rewrite(OBS, lambda raw: raw.replace(b"latent_space", b"\xff"))),
    ("json", "error", "plain", rewrite(OBS, lambda raw: b"[" * 100_000)),
    ("json", "error", "plain", rewrite(OBS, lambda raw: b"[]")),
    ("json", "error", "plain", rewrite(OBS, lambda raw: raw.replace(b'"n_points": 40', b'"n_points": ' + b"4" * 5000))),
    ("json", "error", "plain", rewrite(OBS, lambda raw: b'{"n_points": 40, ' + raw[1:])),
    ("json.shape", "error", "plain", put(OBS, "n_points", to="40")),
    ("json.shape", "error", "plain", put(OBS, "n_points", to=True)),
    ("json.shape", "error", "plain", put(OBS, "n_points", to=-1)),
    ("json.shape", "error", "plain", put(OBS, "n_points", to=40.5)),
    ("json.shape", "error", "plain", rewrite(OBS, lambda raw: raw.replace(b'"n_points": 40', b'"n_points": 1e999'))),
    ("json.shape", "error", "plain", put(OBS, "centroid_outlier_quantile", to="much")),
    ("json.shape", "error", "plain", put(IDENTITY, "stats", to=[1])),
    ("json.shape", "error", "plain", drop(IDENTITY, "stats", "n_cells")),
    ("json.shape", "error", "plain", put(IDENTITY, "name", to=3)),
    # identity
    ("identity.version", "error", "plain", put(IDENTITY, "version", to=3)),
    ("identity.version", "error", "plain", put(IDENTITY, "version", to=True)),
    ("identity.version", "error", "plain", drop(IDENTITY, "version")),
    ("dimensions", "error", "plain", put(IDENTITY, "embeddings", "available_dimensions", to=[2, 1])),
    ("dimensions", "error", "plain", put(IDENTITY, "embeddings", "available_dimensions", to=[])),
    ("dimensions", "error", "plain", put(IDENTITY, "embeddings", "available_dimensions", to=[5])),
    ("dimensions.default", "error", "plain", put(IDENTITY, "embeddings", "default_dimension", to=4)),
    ("dimensions.files", "strict", "plain", put(IDENTITY, "embeddings", "files", to={})),
    ("dimensions.shown", "strict", "plain", put(IDENTITY, "embeddings", "available_dimensions", to=[1, 2, 3, 4])),
    ("shape.unboxed", "error", "gz8", put(IDENTITY, "embeddings", "available_dimensions", to=2)),
    ("source.name", "strict", "gz16", put(IDENTITY, "source", to={"url": "https://example.org"})),
    ("vectors.default", "error", "gz16", put(IDENTITY, "vector_fields", "default_field", to="none")),
    ("vectors.default", "error", "gz16", put(IDENTITY, "vector_fields", "default_field", to=[])),
    ("vectors.dimensions", "strict", "gz16", put(IDENTITY, "embeddings", "available_dimensions", to=[1, 2])),
    (
        "vectors.id",
        "strict",
        "gz16",
        edit(IDENTITY, lambda x: x["vector_fields"]["fields"].update({"a b": x["vector_fields"]["fields"]["drift"]})),
    ),
    ("path.twice", "strict", "gz16", put(IDENTITY, "embeddings", "files", "2d", to="points_1d.bin.gz")),
    ("keys.exact", "strict", "gz8", put(IDENTITY, "extra", to=1)),
    ("keys.exact", "strict", "gz8", put(OBS, "extra", to=1)),
    ("keys.exact", "strict", "gz8", drop(VAR, "var_gene_id_column")),
    ("keys.exact", "strict", "gz8", put(EDGES, "extra", to=1)),
    # agreement
    ("counts.cells", "error", "plain", put(OBS, "n_points", to=41)),
    ("counts.cells", "error", "plain", put(VAR, "n_points", to=41)),
    ("counts.cells", "error", "gz8", put(EDGES, "n_cells", to=41)),
    ("counts.cells", "error", "plain", put(IDENTITY, "stats", "n_cells", to=41)),
    ("counts.genes", "error", "plain", put(IDENTITY, "stats", "n_genes", to=3)),
    ("counts.genes", "strict", "plain", put(IDENTITY, "stats", "n_genes", to=5)),
    ("counts.genes", "error", "plain", remove(VAR)),
    ("counts.fields", "error", "plain", put(IDENTITY, "stats", "n_obs_fields", to=3)),
    ("counts.edges", "error", "gz8", put(IDENTITY, "stats", "n_edges", to=3)),
    ("counts.edges", "error", "gz8", put(IDENTITY, "stats", "has_connectivity", to=False)),
    ("counts.edges", "error", "gz8", remove(EDGES)),
    ("fields.match", "error", "plain", put(IDENTITY, "obs_fields", 0, "key", to="other")),
    ("fields.match", "error", "plain", put(IDENTITY, "obs_fields", 0, "n_categories", to=9)),
    ("fields.match", "error", "plain", put(IDENTITY, "obs_fields", 0, "kind", to="continuous")),
    ("fields.order", "strict", "clean", edit(IDENTITY, lambda x: x["obs_fields"].reverse())),
    ("settings", "strict", "clean", put(IDENTITY, "export_settings", "obs_categorical_dtype", to="auto")),
    ("settings", "strict", "clean", put(IDENTITY, "export_settings", "var_quantization", to=16)),
    ("settings", "strict", "clean", put(VAR, "quantization", to=16)),
    ("compression", "strict", "clean", put(VAR, "compression", to=None)),
    ("compression", "strict", "clean", put(VAR, "compression", to=11)),
    # manifests
    ("manifest.format", "error", "plain", put(OBS, "_format", to="compact_v2")),
    ("manifest.format", "error", "plain", drop(VAR, "_format")),
    ("manifest.format", "error", "gz8", put(EDGES, "format", to="csr")),
    ("schema.dtype", "error", "plain", put(OBS, *CONTINUOUS, "dtype", to="float64")),
    ("schema.quantised", "error", "gz8", put(OBS, *CONTINUOUS, "quantized", to=False)),
    ("schema.quantised", "error", "gz8", put(VAR, "_varSchema", "quantizationBits", to=16)),
    ("schema.quantised", "error", "gz8", put(OBS, *CATEGORICAL, "outlierQuantized", to=None)),
    ("schema.pattern", "error", "plain", put(VAR, "_varSchema", "pathPattern", to="var/{index}.values.f32")),
    ("schema.name", "strict", "plain", put(VAR, "_varSchema", "ext", to="bin")),
    ("entry.length", "error", "gz8", put(VAR, "fields", 0, to=["CD3E"])),
    ("entry.length", "error", "plain", put(VAR, "fields", 0, to=["CD3E", 0, 1])),
    ("entry.length", "error", "plain", put(VAR, "fields", 0, to=[])),
    ("entry.length", "error", "gz8", put(OBS, *CELL_TYPE, to=["cell type"])),
    ("bounds", "error", "gz8", put(VAR, "fields", 0, to=["CD3E", 1, 1])),
    ("bounds", "error", "gz8", put(VAR, "fields", 0, to=["CD3E", 1, 0])),
    ("bounds", "error", "gz8", put(VAR, "fields", 0, to=["CD3E", 0, 1e39])),
    ("bounds", "error", "gz8", put(VAR, "fields", 0, to=["CD3E", None, 1])),
    ("bounds", "error", "gz8", put(OBS, *CELL_TYPE, 6, to="1")),
    ("keys.text", "strict", "plain", rename_gene(0, 7)),
    ("keys.repeated", "error", "plain", rename_gene(0, "HLA-A")),
    ("keys.collision", "error", "plain", rename_gene(0, "IL2_alt")),
    ("keys.case", "warning", "plain", rename_gene(0, "hla-a")),
    ("keys.nameless", "strict", "plain", rename_gene(0, "β")),
    # categories
    ("categories.text", "error", "plain", put(OBS, *CELL_TYPE, 1, 0, to=1)),
    ("categories.unique", "strict", "plain", put(OBS, *CELL_TYPE, 1, 3, to="B  cell ")),
    ("categories.count", "error", "plain", edit(OBS, many_categories)),
    ("shape.unboxed", "error", "plain", put(OBS, *CELL_TYPE, 1, to="one")),
    ("codes.dtype", "error", "plain", put(OBS, *CELL_TYPE, 2, to="float32")),
    ("codes.missing", "error", "plain", missing_code(2)),
    ("codes.missing", "strict", "plain", missing_code(254)),
    ("codes.range", "error", "plain", array("obs/cell_type.codes.u8", "u1", at(0, 4))),
    ("codes.range", "error", "gz16", array("obs/cell_type.codes.u16.gz", "<u2", at(0, 65534))),
    ("centroids.shape", "error", "plain", put(OBS, *CELL_TYPE, 4, to=[1])),
    ("centroids.shape", "error", "plain", put(OBS, *CENTROID, "position", to=[0.1])),
    ("shape.unboxed", "error", "rboxed", put(OBS, "_categoricalFields", 0, 4, "1", 0, "position", to=0.1)),
    ("centroids.category", "error", "plain", put(OBS, *CENTROID, "category", to="plasma")),
    ("centroids.repeated", "strict", "plain", put(OBS, *CENTROID, "category", to="T/NK")),
    ("centroids.dimensions", "strict", "plain", drop(OBS, *CELL_TYPE, 4, "2")),
    ("centroids.count", "error", "plain", put(OBS, *CENTROID, "n_points", to=11)),
    ("centroids.count", "error", "plain", array("obs/cell_type.codes.u8", "u1", merge)),
    ("centroids.outside", "warning", "plain", put(OBS, *CENTROID, "position", to=[0.5, 1.5])),
    ("json.shape", "error", "plain", put(OBS, *CENTROID, "position", to=[0.5, None])),
    # content
    ("points.finite", "error", "plain", array("points_2d.bin", "<f4", at(3, np.nan))),
    ("points.finite", "error", "plain", array("points_2d.bin", "<f4", at(3, np.inf))),
    ("points.range", "warning", "plain", array("points_2d.bin", "<f4", at(3, 1.5))),
    ("vectors.finite", "strict", "gz16", array("vectors/drift_3d.bin.gz", "<f4", at(3, np.nan))),
    ("values.infinite", "warning", "plain", array("obs/score.values.f32", "<f4", at(3, np.inf))),
    ("outliers.range", "error", "plain", array("obs/batch.outliers.f32", "<f4", at(3, 1.5))),
    ("outliers.range", "error", "plain", array("obs/batch.outliers.f32", "<f4", at(3, -0.1))),
    ("outliers.range", "error", "gz8", put(OBS, *CELL_TYPE, 6, to=3.0)),
    # edges
    ("edges.dtype", "error", "gz8", put(EDGES, "index_bytes", to=4)),
    ("edges.dtype", "error", "gz8", put(EDGES, "index_dtype", to="int16")),
    ("edges.dtype", "strict", "gz8", wide),
    ("edges.range", "error", "gz8", array(DST, "<u2", at(-1, 40))),
    ("edges.loop", "error", "gz8", array(DST, "<u2", at(0, 0))),
    ("edges.direction", "error", "gz8", reverse_first),
    ("edges.duplicate", "error", "gz8", each(array(SRC, "<u2", at(1, 0)), array(DST, "<u2", lambda x: at(1, x[0])(x)))),
    ("edges.order", "error", "gz8", swap_edges(3, 20)),
    ("edges.degree", "error", "gz8", edit(EDGES, lambda x: x.update(max_neighbors=x["max_neighbors"] - 1))),
    ("edges.degree", "strict", "gz8", edit(EDGES, lambda x: x.update(max_neighbors=x["max_neighbors"] + 1))),
    ("edges.weights", "strict", "weighted", array("connectivity/edges.weights.f64.bin", "<f8", at(5, -1))),
    # stale
    ("stale.shadow", "error", "plain", new("points_2d.bin.gz")),
    ("stale.shadow", "error", "plainvectors", new("vectors/drift_3d.bin.gz")),
    ("stale.file", "strict", "clean", new("var/OLD.values.u8.gz")),
    ("stale.file", "strict", "clean", new("vectors/old_2d.bin")),
    ("stale.file", "strict", "plain", new("obs/score.values.f32.gz")),
    ("stale.file", "strict", "clean", new("points_3d.bin.gz")),
    ("stale.unknown", "warning", "clean", new("README.txt")),
    ("stale.unknown", "warning", "clean", lambda root: (root / "link").symlink_to("/")),
]  # fmt: skip


def clean(root: Path) -> None:
    """Mend what the strict viewer minds in the `gz8` export, except the weights."""
    edit(IDENTITY, lambda x: x["obs_fields"].sort(key=lambda field: field["kind"] == "category"))(root)
    put(IDENTITY, "export_settings", "obs_categorical_dtype", to="uint8")(root)
    n_edges = json.loads((root / EDGES).read_text())["n_edges"]
    weights = np.ones(n_edges)
    (root / "connectivity/edges.weights.f64.bin.gz").write_bytes(gzip.compress(weights.tobytes()))
    more = {"weightsPath": "connectivity/edges.weights.f64.bin.gz", "weight_dtype": "float64", "weight_bytes": 8}
    edit(EDGES, lambda x: x.update(more))(root)


def weighted(root: Path) -> None:
    clean(root)
    raw = gzip.decompress((root / "connectivity/edges.weights.f64.bin.gz").read_bytes())
    (root / "connectivity/edges.weights.f64.bin").write_bytes(raw)
    (root / "connectivity/edges.weights.f64.bin.gz").unlink()
    put(EDGES, "weightsPath", to="connectivity/edges.weights.f64.bin")(root)


def plain_vectors(root: Path) -> None:
    raw = gzip.decompress((root / "vectors/drift_3d.bin.gz").read_bytes())
    (root / "vectors/drift_3d.bin").write_bytes(raw)
    (root / "vectors/drift_3d.bin.gz").unlink()
    put(IDENTITY, "vector_fields", "fields", "drift", "files", "3d", to="vectors/drift_3d.bin")(root)


def rebox(root: Path) -> None:
    """Give R's one-element lists their brackets back."""
    put(IDENTITY, "embeddings", "available_dimensions", to=[1])(root)

    def obs(content: dict[str, Any]) -> None:
        for field in content["_categoricalFields"]:
            field[1] = field[1] if isinstance(field[1], list) else [field[1]]
            for centroid in field[4]["1"]:
                centroid["position"] = [centroid["position"]]

    edit(OBS, obs)(root)


VARIANTS: dict[str, tuple[str, Break]] = {
    "clean": ("gz8", clean),
    "weighted": ("gz8", weighted),
    "wide": ("gz8", wide),
    "plainvectors": ("gz16", plain_vectors),
    "rboxed": ("rstyle", rebox),
}


def prepare(copy: Callable[[str], Path], name: str) -> Path:
    golden, change = VARIANTS.get(name, (name, lambda root: None))
    root = copy(golden)
    change(root)
    return root


def rules_of(root: Path) -> Counter[tuple[str, str]]:
    return Counter((finding.rule, finding.severity) for finding in check(root).findings)


@pytest.mark.parametrize("name", ["plain", "gz8", "gz16"])
def test_exports_of_cellucid_have_no_errors(name: str) -> None:
    result = check(GOLDEN / name)
    assert result.ok
    assert {finding.severity for finding in result.findings} <= {"strict"}
    assert {finding.rule for finding in result.findings} <= {"settings", "fields.order", "edges.weights", "keys.exact"}
    assert not check(GOLDEN / name, strict=True).ok
    files = [path for path in (GOLDEN / name).rglob("*") if path.is_file()]
    assert result.files == len(files)
    assert result.bytes == sum(path.stat().st_size for path in files)


def test_unboxed_lists_are_the_only_errors_of_an_export_by_r(copy) -> None:
    errors = [finding for finding in check(GOLDEN / "rstyle").findings if finding.severity == "error"]
    assert {finding.rule for finding in errors} == {"shape.unboxed"}
    assert check(prepare(copy, "rboxed")).ok


@pytest.mark.parametrize("name", ["clean", "weighted", "wide", "plainvectors"])
def test_variants_are_sound(copy, name: str) -> None:
    assert check(prepare(copy, name)).ok


def test_a_mended_export_satisfies_the_strict_viewer(copy) -> None:
    result = check(prepare(copy, "clean"), strict=True)
    assert result.ok, str(result)
    assert not result.findings


@pytest.mark.parametrize(
    ("rule", "severity", "name", "damage"), CASES, ids=[f"{i}-{case[0]}" for i, case in enumerate(CASES)]
)
def test_each_rule(copy, rule: str, severity: str, name: str, damage: Break) -> None:
    root = prepare(copy, name)
    before = rules_of(root)
    damage(root)
    after = rules_of(root)
    assert after[rule, severity] > before[rule, severity], str(check(root))
    if severity == "error":
        assert not check(root).ok


def test_every_rule_is_tested() -> None:
    shared = Path(untrusted.__file__)
    files = [*SOURCES.glob("rules*.py"), SOURCES / "check.py", SOURCES / "read.py", shared]
    text = "".join(path.read_text() for path in files)
    stated = set(re.findall(r'\b(?:error|strict|warning|note|ReadError)\(\s*"([a-z.]+)"', text))
    stated |= {rule for _, rule in re.findall(r'"(error|strict|warning)",\s*"([a-z]+\.[a-z]+)"', text)}
    tested = {case[0] for case in CASES} | {"folder.missing", "folder.unreadable"}
    assert stated == tested
    assert len(stated) > 50


def test_a_missing_folder_is_a_finding(tmp_path: Path) -> None:
    result = check(tmp_path / "none")
    assert [finding.rule for finding in result.findings] == ["folder.missing"]
    assert not result.ok


def test_a_folder_that_cannot_be_listed_is_a_finding(copy, monkeypatch) -> None:
    def refuse(folder: Path) -> None:
        raise PermissionError("no")

    monkeypatch.setattr(check_module.fs, "file_sizes", refuse)
    assert "folder.unreadable" in {finding.rule for finding in check(copy("plain")).findings}


def test_other_file_names(copy) -> None:
    root = copy("plain")
    (root / OBS).rename(root / "cells.json")
    assert not check(root).ok
    assert check(root, layout=Layout(obs_manifest="cells.json")).ok


def test_result_can_be_shown(copy) -> None:
    root = copy("plain")
    for path in (root / "var").iterdir():
        path.unlink()
    for number in range(10):
        (root / f"<b>{number}").write_text("")
    (root / os.fsdecode(b"\xff")).write_text("")
    result = check(root, strict=True)
    text = str(result)
    assert "NOT OK" in text
    assert "4 error, 2 strict, 11 warning" in text
    assert "warning stale.unknown: and 6 more" in text
    text.encode()
    assert "<b>" not in result._repr_html_()
    content = json.loads(json.dumps(result.to_dict()))
    assert content["ok"] is False
    assert len(content["findings"]) == len(result.findings)


def test_a_bomb_is_not_inflated(copy) -> None:
    import tracemalloc

    root = copy("gz8")
    (root / "points_2d.bin.gz").write_bytes(gzip.compress(bytes(50_000_000), 1)[:65_000])
    tracemalloc.start()
    assert not check(root, workers=1).ok
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()


def test_zlib_takes_the_place_of_isal(copy, monkeypatch) -> None:
    monkeypatch.setattr("atlaswriter.codecs.gzip._isal", None)
    assert check(GOLDEN / "gz16").ok
    root = copy("gz8")
    rewrite("points_2d.bin.gz", lambda raw: raw[:50] + bytes([raw[50] ^ 1]) + raw[51:])(root)
    assert rules_of(root)["gzip", "error"] == 1


def flips(raw: bytes) -> Iterator[tuple[int, bytes]]:
    for position in range(len(raw)):
        for bit in range(8):
            yield position, raw[:position] + bytes([raw[position] ^ 1 << bit]) + raw[position + 1 :]


@pytest.mark.parametrize("name", ["gz8", "gz16"])
def test_every_changed_bit_of_a_gzip_file_is_found_or_harmless(name: str) -> None:
    for path in (GOLDEN / name).rglob("*.gz"):
        raw = path.read_bytes()
        content = gzip.decompress(raw)
        unseen = set()
        for position, damaged in flips(raw):
            try:
                inflated = inflate(damaged, len(content))
            except FormatError:
                continue
            if len(inflated) > len(content):
                continue
            assert inflated == content
            # Time and system in the header, padding bits: zlib too inflates the same content.
            assert gzip.decompress(damaged) == content
            unseen.add(position)
        assert {4, 5, 6, 7, 8, 9} <= unseen
        assert len(unseen) <= 12


@pytest.mark.parametrize("file", ["var/MT-ND1.values.u8.gz", "obs/cell_type.codes.u8.gz"])
def test_every_changed_bit_reaches_the_result(copy, file: str) -> None:
    root = copy("gz8")
    raw = (root / file).read_bytes()
    for position, damaged in flips(raw):
        (root / file).write_bytes(damaged)
        if check(root, workers=1).ok:
            assert gzip.decompress(damaged) == gzip.decompress(raw), position


def test_every_file_cut_anywhere_is_found(copy) -> None:
    root = copy("gz8")
    for path in [path for path in root.rglob("*") if path.is_file()]:
        raw = path.read_bytes()
        for length in {0, 1, 10, len(raw) // 2, len(raw) - 1}:
            path.write_bytes(raw[:length])
            assert not check(root, workers=1).ok, (path.name, length)
        path.write_bytes(raw)
    assert check(root).ok


def test_every_file_left_out_is_found(copy) -> None:
    root = copy("gz16")
    for path in [path for path in root.rglob("*") if path.is_file()]:
        raw = path.read_bytes()
        path.unlink()
        assert not check(root).ok, path.name
        path.write_bytes(raw)
    assert check(root).ok


STRANGE: list[Any] = [
    None, True, False, 0, -1, 1, 2, 3, 40, 1e308, -1e308, 2**31, 2**63, 10**400, 0.5, "", "x", "a" * 1000,
    "\0", "\ud800", "../x", "/etc/passwd", "{key}", "float32", "uint8", "compact_v1", [], {}, [[]], [None], [1, 2],
    {"x": 1}, {"1": [], "2": [{}]}, [["a", 0, 1]], [[[[]]]], {"key": "x", "kind": "category"},
]  # fmt: skip


def mutate(value: Any, rng: random.Random) -> Any:
    """Replace one random part of a JSON value, in place."""
    if isinstance(value, dict | list) and value and rng.random() < 0.9:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = rng.choice(list(keys))
        if rng.random() < 0.1:
            del value[key]
        elif isinstance(value, list) and rng.random() < 0.1:
            value.append(deepcopy(value[key]))
        else:
            value[key] = mutate(value[key], rng)
        return value
    return deepcopy(rng.choice(STRANGE))


@pytest.mark.parametrize("name", ["plain", "gz8", "gz16", "rstyle"])
def test_strange_json_never_raises(copy, name: str) -> None:
    root, rng = copy(name), random.Random(name)
    originals = {path: path.read_text() for path in root.glob("*.json")}
    for _ in range(150):
        for path, text in originals.items():
            content = json.loads(text)
            for _ in range(rng.randrange(3)):
                content = mutate(content, rng)
            path.write_text(json.dumps(content))
        result = check(root, workers=1)
        str(result).encode()
        json.dumps(result.to_dict())


@pytest.mark.parametrize("name", ["plain", "gz16"])
def test_strange_bytes_never_raise(copy, name: str) -> None:
    root, rng = copy(name), random.Random(name)
    files = [path for path in root.rglob("*") if path.is_file()]
    originals = {path: path.read_bytes() for path in files}
    for _ in range(100):
        for path in rng.sample(files, 3):
            raw = bytearray(originals[path])
            for _ in range(rng.randrange(1, 4)):
                raw[rng.randrange(len(raw))] = rng.randrange(256)
            path.write_bytes(raw[: rng.choice([len(raw), rng.randrange(len(raw) + 1)])])
        str(check(root, workers=1))
        for path, raw in originals.items():
            path.write_bytes(raw)


def manifest(n_edges: int, max_neighbors: int) -> Any:
    return edges_entry(
        {
            "format": "edge_pairs",
            "n_edges": n_edges,
            "max_neighbors": max_neighbors,
            "index_dtype": "uint32",
            "index_bytes": 4,
            "sourcesPath": "s",
            "destinationsPath": "d",
        },
        "where",
    )


def test_edges_are_compared_across_blocks(monkeypatch) -> None:
    monkeypatch.setattr("atlaswriter.formats.cellucid.rules_payloads._BLOCK", 4)
    sources, destinations = (ends.astype(np.uint32) for ends in np.triu_indices(7, 1))
    entry = manifest(len(sources), 6)
    assert not list(examine_edges(sources, destinations, entry=entry, n_cells=7))
    assert not list(examine_edges(sources, destinations, entry=entry, n_cells=10**12))
    for wrong in range(1, len(sources)):
        src, dst = sources.copy(), destinations.copy()
        src[wrong], dst[wrong] = src[wrong - 1], dst[wrong - 1]
        found = {finding.rule: finding.found for finding in examine_edges(src, dst, entry=entry, n_cells=7)}
        assert f"the first is edge {wrong}" in found["edges.duplicate"]
        assert found["edges.duplicate"].startswith("1 ")


def test_an_empty_graph_is_sound() -> None:
    empty = np.empty(0, np.uint32)
    assert not list(examine_edges(empty, empty, entry=manifest(0, 0), n_cells=7))
