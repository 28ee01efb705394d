"""Reading exports: the viewer's values, R's shapes, other file names, and damage."""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from atlaswriter.codecs.gzip import inflate
from atlaswriter.errors import AtlasWriterError, FormatError, InputError, UnknownNameError
from atlaswriter.formats.cellucid.info import as_text, summarise
from atlaswriter.formats.cellucid.layout import MISSING, TOP, Layout
from atlaswriter.formats.cellucid.read import Export, dequantise, open_export

GOLDEN = Path(__file__).parent.parent / "golden" / "exports"
ALL = ["plain", "gz8", "gz16", "rstyle"]


def golden(name: str) -> Export:
    return open_export(GOLDEN / name)


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "plain", tmp_path / "plain"))


def test_contents() -> None:
    export = golden("gz16")
    assert export.n_cells == 40
    assert export.genes == ["CD3E", "HLA-A", "MT-ND1", "IL2 (alt)"]
    assert export.dimensions == [1, 2, 3]
    assert export.obs_keys == ["score", "n", "cell type", "batch"]
    assert (export.continuous_keys, export.categorical_keys) == (["score", "n"], ["cell type", "batch"])
    assert export.vector_fields == {"velocity_umap": [2], "drift": [3]}
    assert export.n_edges == 87
    assert export.identity["name"] == "Golden"
    assert golden("plain").n_edges is None
    assert golden("plain").vector_fields == {}


@pytest.mark.parametrize("name", ALL)
def test_every_array_has_its_shape(name: str) -> None:
    export = golden(name)
    for dim in export.dimensions:
        points = export.points(dim)
        assert (points.dtype, points.shape) == (np.float32, (40, dim))
        assert np.abs(points).max() <= 1.0001
    assert export.points().shape[1] == max(export.dimensions)
    for gene in export.genes:
        assert (export.gene(gene).dtype, export.gene(gene).shape) == (np.float32, (40,))
    for key in export.obs_keys:
        assert len(export.obs(key)) == 40
        assert export.obs(key).name == key
    for key in export.categorical_keys:
        assert export.outliers(key).dtype == np.float32
        for dim in export.dimensions:
            assert list(export.centroids(key, dim).columns) == [*"xyz"[:dim], "n_points"]
    for field, dims in export.vector_fields.items():
        for dim in dims:
            assert export.vectors(field, dim).shape == (40, dim)


def test_values_are_those_that_were_exported() -> None:
    export = golden("plain")
    pd.testing.assert_series_equal(export.obs("n"), pd.Series(np.arange(40, dtype=np.float32), name="n"))
    labels = pd.Series(np.repeat(["B cell", "T/NK", "mono"], [15, 15, 10])).mask(np.arange(40) == 7)
    wanted = pd.Series(pd.Categorical(labels, ["mono", "T/NK", "B cell", "unseen"]), name="cell type")
    pd.testing.assert_series_equal(export.obs("cell type"), wanted)
    assert np.isnan(export.obs("score")[3])
    assert export.obs("score").dtype == np.float32
    assert list(export.codes("cell type")[6:9]) == [2, 255, 2]
    assert export.centroids("cell type", 2).loc["mono", "n_points"] == 10


@pytest.mark.parametrize(("name", "bits"), [("gz8", 8), ("gz16", 16)])
def test_quantised_values_are_within_one_step(name: str, bits: int) -> None:
    quantised, exact = golden(name), golden("plain")
    for gene in exact.genes:
        entry = quantised.gene_entry(gene)
        assert entry.step == pytest.approx(np.ptp(entry.bounds) / TOP[bits])
        assert np.abs(quantised.gene(gene) - exact.gene(gene)).max() <= entry.step * 1.001
    difference = quantised.obs("score") - exact.obs("score")
    assert np.isnan(difference[3])
    assert difference.abs().max() <= quantised.obs_entry("score").step * 1.001


def test_edges_are_sorted_pairs() -> None:
    sources, destinations = golden("gz8").edges()
    assert sources.dtype == destinations.dtype == np.uint16
    assert (sources < destinations).all()
    assert np.all(np.diff(sources.astype(int) * 40 + destinations) > 0)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("n_cells", [10, 100_000])
@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-3.7, 1e-3), (1e-40, 2e-40), (-3e38, 3e38), (5.0, 6.0)])
def test_dequantise_is_the_viewers_arithmetic(bits: int, n_cells: int, bounds: tuple[float, float]) -> None:
    codes = np.random.default_rng(0).integers(0, 2**bits, n_cells).astype(f"u{bits // 8}")
    codes[:3] = 0, TOP[bits], MISSING[bits]
    low, high = bounds
    step = (high - low) / TOP[bits]
    found = dequantise(codes, low, high)
    for i in range(min(n_cells, 300)):
        if codes[i] == MISSING[bits]:
            assert np.isnan(found[i])
        else:
            assert found[i] == np.float32(low + int(codes[i]) * step)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[:10], dequantise(codes[:10], low, high))


def test_an_export_by_r() -> None:
    export = golden("rstyle")
    assert export.dimensions == [1]
    assert list(export.obs("only").cat.categories) == ["one level"]
    assert export.centroids("only", 1).shape == (1, 2)
    assert export.n_cells == 40


def test_counts_that_r_writes_as_floating_point(plain: Path) -> None:
    edit(plain / "dataset_identity.json", lambda x: x["stats"].update(n_cells=4e1))
    assert open_export(plain).gene("CD3E").shape == (40,)


def test_codes_past_the_categories_are_missing(plain: Path) -> None:
    codes = np.arange(40, dtype=np.uint8)
    codes.tofile(plain / "obs/batch.codes.u8")
    values = open_export(plain).obs("batch")
    assert list(values[:2]) == ["a", "b"]
    assert values[2:].isna().all()


def test_equal_labels_are_one_category(plain: Path) -> None:
    edit(plain / "obs_manifest.json", lambda x: x["_categoricalFields"][1].__setitem__(1, ["a", "a"]))
    assert list(open_export(plain).obs("batch").unique()) == ["a"]


def test_other_file_names(plain: Path) -> None:
    (plain / "obs_manifest.json").rename(plain / "cells.json")
    (plain / "var_manifest.json").rename(plain / "genes.json")
    export = open_export(plain, layout=Layout(obs_manifest="cells.json", var_manifest="genes.json"))
    assert len(export.genes) == 4
    assert len(export.obs_keys) == 4


def test_an_export_without_genes(plain: Path) -> None:
    (plain / "var_manifest.json").unlink()
    assert open_export(plain).genes == []


@pytest.mark.parametrize(
    ("ask", "shown"),
    [
        (lambda x: x.gene("cd3e"), "'CD3E', 'HLA-A'"),
        (lambda x: x.obs("none"), "'score', 'n', 'cell type'"),
        (lambda x: x.outliers("score"), "'cell type', 'batch'"),
        (lambda x: x.centroids("cell type", 4), "'1', '2', '3'"),
        (lambda x: x.points(4), "'1', '2', '3'"),
        (lambda x: x.vectors("velocity", 2), "'velocity_umap', 'drift'"),
        (lambda x: x.vectors("drift", 2), "'3'"),
        (lambda x: x.gene(["CD3E"]), "there are"),
    ],
)
def test_unknown_names_say_what_there_is(ask: Callable[[Export], object], shown: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        ask(golden("gz16"))
    assert shown in str(caught.value)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, InputError)


def test_no_graph() -> None:
    with pytest.raises(UnknownNameError, match="no neighbour graph"):
        golden("plain").edges()


@pytest.mark.parametrize("path", ["/etc/hostname", "../plain/points_2d.bin", "a/../../x", "", "a\0b", "..\\x", "C:\\x"])
def test_paths_that_lead_elsewhere(plain: Path, path: str) -> None:
    edit(plain / "dataset_identity.json", lambda x: x["embeddings"]["files"].update({"2d": path}))
    with pytest.raises(FormatError, match="path"):
        open_export(plain).points(2)


def test_links_that_lead_elsewhere(plain: Path) -> None:
    shutil.move(plain / "points_2d.bin", plain.parent / "outside")
    (plain / "points_2d.bin").symlink_to(plain.parent / "outside")
    with pytest.raises(FormatError, match="outside the export"):
        open_export(plain).points(2)
    (plain / "points_2d.bin").unlink()
    (plain / "points_2d.bin").symlink_to("points_1d.bin")
    with pytest.raises(FormatError, match="160 bytes, 320 bytes are declared"):
        open_export(plain).points(2)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("dataset_identity.json", lambda raw: raw.replace(b'"version": 2', b'"version": 3'), "version is 3"),
        ("dataset_identity.json", lambda raw: raw.replace(b"40", b"Infinity", 1), "not standard JSON"),
        ("dataset_identity.json", lambda raw: raw[:100], "not standard JSON"),
        ("obs_manifest.json", lambda raw: raw.replace(b"0.95", b"NaN"), "NaN is not allowed"),
        ("var_manifest.json", lambda raw: raw.replace(b"{key}", b"{index}"), "has no {key}"),
        ("var/CD3E.values.f32", lambda raw: raw[:-1], "159 bytes, 160 bytes are declared"),
    ],
)
def test_damage_names_file_finding_and_remedy(
    plain: Path, file: str, damage: Callable[[bytes], bytes], said: str
) -> None:
    (plain / file).write_bytes(damage((plain / file).read_bytes()))
    with pytest.raises(FormatError) as caught:
        read_some(plain)
    assert said in str(caught.value)
    assert file in str(caught.value)
    assert "→" in str(caught.value)


def read_some(root: Path) -> None:
    export = open_export(root)
    export.obs("score")
    export.gene("CD3E")


def test_a_folder_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="is not a folder"):
        open_export(tmp_path / "none")
    with pytest.raises(FormatError, match="is missing"):
        open_export(tmp_path)


def test_inflate_takes_headers_with_a_name_and_stops_in_time() -> None:
    buffer = io.BytesIO()
    with gzip.GzipFile("name.bin", "wb", fileobj=buffer) as file:
        file.write(bytes(1000))
    assert inflate(buffer.getvalue(), 1000) == bytes(1000)
    assert len(inflate(buffer.getvalue(), 10)) == 11
    with pytest.raises(FormatError, match="follows the end"):
        inflate(buffer.getvalue() + b"x", 1000)
    assert inflate(gzip.compress(b""), 0) == b""


@pytest.mark.parametrize("name", ALL)
def test_strange_json_raises_nothing_else(tmp_path: Path, name: str) -> None:
    root = Path(shutil.copytree(GOLDEN / name, tmp_path / name))
    rng = random.Random(name)
    originals = {path: path.read_text() for path in root.glob("*.json")}
    strange: list[Any] = [None, True, -1, 10**400, 0.5, "x", "\ud800", "../x", [], {}, [[None]], {"x": [1]}, {"2d": 3}]

    def mutate(value: Any) -> None:
        keys = list(value) if isinstance(value, dict) else list(range(len(value)))
        key = rng.choice(keys)
        if isinstance(value[key], dict | list) and value[key] and rng.random() < 0.8:
            mutate(value[key])
        else:
            value[key] = rng.choice(strange)

    for _ in range(150):
        for path, text in originals.items():
            content = json.loads(text)
            mutate(content)
            path.write_text(json.dumps(content) if rng.random() < 0.3 else text)
        try:
            export = open_export(root)
            as_text(summarise(root))
            repr(export)
            for gene in export.genes:
                export.gene(gene)
            for key in export.obs_keys:
                export.obs(key)
            for key in export.categorical_keys:
                export.outliers(key)
                export.centroids(key, export.dimensions[0])
            if export.n_edges:
                export.edges()
        except AtlasWriterError:
            pass


def test_shown() -> None:
    export = golden("gz16")
    assert "genes: 4" in repr(export)
    assert "<td" in export._repr_html_()


def test_summary() -> None:
    summary = summarise(GOLDEN / "gz16")
    assert summary["n_cells"] == 40
    assert summary["fields"][2] == {"key": "cell type", "kind": "category", "n_categories": 4}
    assert (summary["gene_bits"], summary["obs_bits"], summary["compression"]) == (16, 16, 6)
    files = [path for path in (GOLDEN / "gz16").rglob("*") if path.is_file()]
    assert sum(summary["bytes"].values()) == sum(path.stat().st_size for path in files)
    assert summary["files"] == len(files)
    assert summary["bytes"]["other"] == 0
    json.dumps(summary)
    text = as_text(summary)
    assert "cell type (4 categories)" in text
    assert "16 bit" in text
    assert "float32" in as_text(summarise(GOLDEN / "plain"))
