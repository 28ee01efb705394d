"""Comparing LandscapeFiles: what counts, what does not, and the tolerances."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests import landscape_folder as made

from atlaswriter import diff
from atlaswriter.findings import DiffResult

TRX, CELL = "transcript_tiles/transcripts_tile_{}_{}.parquet", "cell_segmentation/cell_tile_0_0.parquet"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made.write(tmp_path_factory.mktemp("whole") / "set")


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "copy"))


def different(result: DiffResult) -> list[str]:
    return [part.name for part in result.parts if not part.equal]


def change(path: Path, column: str, values: Callable[[list[Any]], list[Any]]) -> None:
    found = pq.read_table(path)
    new = pa.array(values(found[column].to_pylist()), found[column].type)
    pq.write_table(found.set_column(found.column_names.index(column), column, new), path)


def test_a_set_equals_itself(whole: Path) -> None:
    result = diff(whole, whole)
    assert result.equal
    assert not any(part.max_difference for part in result.parts)
    assert str(result).startswith("same content")
    assert "<table>" in result._repr_html_()
    assert json.loads(json.dumps(result.to_dict()))["equal"] is True


@pytest.mark.parametrize("options", [{"row_groups": True}, {"old": True}])
def test_storage_does_not_count(whole: Path, tmp_path: Path, options: dict[str, bool]) -> None:
    other = made.write(tmp_path / "other", **options)
    for result in (diff(whole, other), diff(other, whole)):
        assert result.equal, str(result)
    exact = diff(whole, other, px=0)
    assert different(exact) == (["outlines"] if options.get("old") else [])


def test_order_and_number_types_do_not_count(whole: Path, copy: Path) -> None:
    path = copy / TRX.format(0, 0)
    table = pq.read_table(path)
    table = table.take(list(range(table.num_rows))[::-1])
    names = pa.array(table["name"].to_pylist(), pa.uint16())
    geometry = pa.array(table["geometry"].to_pylist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"name": names, "geometry": geometry}), path)
    assert diff(whole, copy, px=0).equal


def test_cells_in_another_order_are_the_same_cells(whole: Path, copy: Path) -> None:
    order = [1, 0, *range(2, 8)]
    for name in ("cell_metadata", "cell_clusters/cluster"):
        path = copy / f"{name}.parquet"
        pq.write_table(pq.read_table(path).take(order), path)
    for path in copy.glob("cell_segmentation/*"):
        change(path, "name", lambda values: [order[k] for k in values])
    for path in copy.glob("cbg/*"):
        change(path, made.INDEX, lambda values: [order[k] for k in values])
    result = diff(whole, copy)
    assert result.equal, str(result)
    assert next(part for part in result.parts if part.name == "cells").note == "in another order"


def test_transcripts_within_the_tolerance(whole: Path, copy: Path) -> None:
    change(copy / TRX.format(0, 0), "geometry", lambda values: [[x + 0.01, y] for x, y in values])
    assert diff(whole, copy).equal
    result = diff(whole, copy, px=0)
    assert different(result) == ["transcripts"]
    change(copy / TRX.format(0, 0), "geometry", lambda values: [[x + 0.04, y] for x, y in values])
    (part,) = (part for part in diff(whole, copy).parts if part.name == "transcripts")
    assert part.n_different == pq.read_table(copy / TRX.format(0, 0)).num_rows
    again = next(part for part in diff(whole, copy, px=0.05).parts if part.name == "transcripts")
    assert again.equal
    assert again.max_difference == pytest.approx(0.05)


def test_a_transcript_across_the_border_of_a_tile_is_found(whole: Path, copy: Path) -> None:
    for root, x in ((whole, 249.996), (copy, 250.004)):
        path = root / TRX.format(0 if root == whole else 1, 0)
        table = pq.read_table(path)
        one = pa.table({"name": pa.array([1]), "geometry": pa.array([[x, 5.0]])}).cast(table.schema)
        pq.write_table(pa.concat_tables([table, one]), path)
    try:
        assert diff(whole, copy).equal
    finally:
        change_back = pq.read_table(whole / TRX.format(0, 0))
        pq.write_table(change_back.slice(0, change_back.num_rows - 1), whole / TRX.format(0, 0))


CHANGES: dict[str, tuple[set[str], Callable[[Path], object]]] = {
    "a lost transcript": ({"transcripts"}, lambda root: (root / TRX.format(2, 0)).unlink()),
    "another gene": ({"transcripts"}, lambda root: change(root / TRX.format(1, 1), "name", lambda v: [5, *v[1:]])),
    "a count": ({"counts of 6 genes"}, lambda root: change(root / "cbg/ACTB.parquet", "ACTB", lambda v: [99, *v[1:]])),
    "a counted cell": (
        {"counts of 6 genes"},
        lambda root: pq.write_table(pq.read_table(root / "cbg/ACTB.parquet").slice(1), root / "cbg/ACTB.parquet"),
    ),
    "a statistic": ({"std of genes"}, lambda root: change(root / "meta_gene.parquet", "std", lambda v: [9.0, *v[1:]])),
    "a colour": (
        {"color of genes"},
        lambda root: change(root / "meta_gene.parquet", "color", lambda v: ["#000000", *v[1:]]),
    ),
    "a cluster": (
        {"clusters"},
        lambda root: change(root / "cell_clusters/cluster.parquet", "cluster", lambda v: [None, *v[1:]]),
    ),
    "a cluster's colour": (
        {"colours of clusters"},
        lambda root: change(root / "cell_clusters/meta_cluster.parquet", "color", lambda v: ["#000000", *v[1:]]),
    ),
    "a signature": ({"signatures"}, lambda root: change(root / "df_sig.parquet", "1", lambda v: [99.0, *v[1:]])),
    "a signature less": (
        {"signatures"},
        lambda root: pq.write_table(pq.read_table(root / "df_sig.parquet").slice(1), root / "df_sig.parquet"),
    ),
    "a cell's place": (
        {"cells"},
        lambda root: change(root / "cell_metadata.parquet", "geometry", lambda v: [[1.0, 2.0], *v[1:]]),
    ),
    "a cell's name": (
        {"cells", "outlines", "counts of 6 genes"},
        lambda root: change(root / "cell_metadata.parquet", "name", lambda v: ["other", *v[1:]]),
    ),
    "a vertex": (
        {"outlines"},
        lambda root: change(
            root / CELL, "GEOMETRY", lambda v: [[[v[0][0][0], [0.0, 0.0], *v[0][0][2:]]], *v[1:]]
        ),
    ),
    "a vertex more": (
        {"outlines"},
        lambda root: change(root / CELL, "GEOMETRY", lambda v: [[[v[0][0][0], *v[0][0]]], *v[1:]]),
    ),
    "an outline less": ({"outlines"}, lambda root: (root / CELL).unlink()),
    "the transform": (
        {"transform"},
        lambda root: (root / "micron_to_image_transform.csv").write_text("1 0 0\n0 1 0\n0 0 1"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_in_its_part(whole: Path, copy: Path, name: str) -> None:
    parts, apply = CHANGES[name]
    apply(copy)
    for result in (diff(whole, copy), diff(copy, whole)):
        assert not result.equal
        assert set(different(result)) == parts, str(result)
        assert "DIFFERENT" in str(result)


def test_what_only_one_has(whole: Path, copy: Path, tmp_path: Path) -> None:
    change(copy / "meta_gene.parquet", made.INDEX, lambda values: ["other", *values[1:]])
    (copy / "df_sig.parquet").unlink()
    (copy / "micron_to_image_transform.csv").unlink()
    result = diff(whole, copy)
    assert result.only_a == ["gene 'ACTB'", "table 'signatures'", "matrix 'transform'"]
    assert result.only_b == ["gene 'other'"]
    two = made.write(tmp_path / "two", segmentation="proseg")
    assert diff(whole, two).only_b == ["segmentation 'proseg'"]
    assert diff(two, two).equal
    path = two / "cbg_proseg" / "CD3E.parquet"
    change(path, "CD3E", lambda values: [99, *values[1:]])
    other = made.write(tmp_path / "three", segmentation="proseg")
    assert different(diff(two, other)) == ["counts of 6 genes of 'proseg'"]


def test_images_within_the_tolerance(whole: Path, copy: Path) -> None:
    path = copy / "pyramid_images/bound_files/10/0_0.webp"
    pixels = imagecodecs.webp_decode(path.read_bytes()).copy()
    pixels[:, ::2] ^= 1
    path.write_bytes(imagecodecs.webp_encode(pixels, lossless=True))
    assert different(diff(whole, copy)) == ["image 'bound'"]
    assert diff(whole, copy, grey=0.5).equal
    assert not diff(whole, copy, grey=0.4).equal
    (part,) = (part for part in diff(whole, copy).parts if part.name == "image 'bound'")
    assert (part.n_different, part.max_difference) == (1, pytest.approx(0.5))


def test_sizes_and_parameters(whole: Path, copy: Path) -> None:
    path = copy / "landscape_parameters.json"
    content = json.loads(path.read_text())
    content["technology"], content["tile_size"] = "MERSCOPE", 500
    path.write_text(json.dumps(content))
    dzi = copy / "pyramid_images/dapi.dzi"
    dzi.write_text(dzi.read_text().replace("600", "599"))
    result = diff(whole, copy)
    assert different(result) == ["parameters", "image 'dapi'"]
    assert "technology: 'Xenium' and 'MERSCOPE'" in result.parts[0].note


def test_outlines_of_several_cells_at_once(whole: Path, copy: Path) -> None:
    for root in (copy, Path(shutil.copytree(copy, copy.parent / "again"))):
        pq.write_table(pa.concat_tables([pq.read_table(root / CELL)] * 2), root / CELL)
    assert diff(copy, copy.parent / "again").equal
    (part,) = (part for part in diff(whole, copy).parts if part.name == "outlines")
    assert part.n_different == pq.read_table(whole / CELL).num_rows


def test_many_near_transcripts_find_partners() -> None:
    from atlaswriter.formats.landscape.diff_tiles import _pair, _unlike

    rng = np.random.default_rng(5)
    a = np.column_stack([rng.integers(0, 3, 500), rng.integers(0, 10_000, (500, 2))])
    b = rng.permutation(a) + np.array([0, 1, -1])
    left, right = _unlike(a, b)
    assert _pair(left, right, 0.01)[0] == 0
    same = _unlike(a, rng.permutation(a))
    assert [len(rows) for rows in same] == [0, 0]
    assert _pair(a, a[:-3], 0.0)[0] == 3
