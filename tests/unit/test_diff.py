"""Comparing exports: what counts, what does not, and the tolerances."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atlaswriter.errors import FormatError
from atlaswriter.findings import DiffResult
from atlaswriter.formats.cellucid.diff import diff

GOLDEN = Path(__file__).parent.parent / "golden" / "exports"
PLAIN, GZ8, GZ16 = (GOLDEN / name for name in ("plain", "gz8", "gz16"))


@pytest.fixture
def copy(tmp_path: Path) -> Callable[[Path], Path]:
    return lambda golden: Path(shutil.copytree(golden, tmp_path / golden.name))


def edit(path: Path, change: Callable[[Any], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_values(path: Path, dtype: str, index: int, value: float) -> None:
    values = np.fromfile(path, dtype)
    values[index] = value
    values.tofile(path)


def different(result: DiffResult) -> list[str]:
    return [part.name for part in result.parts if not part.equal]


@pytest.mark.parametrize("golden", [PLAIN, GZ8, GZ16, GOLDEN / "rstyle"])
def test_an_export_equals_itself(golden: Path) -> None:
    result = diff(golden, golden)
    assert result.equal
    assert not any(part.max_difference for part in result.parts)
    assert str(result).startswith("same content")


def test_storage_and_time_do_not_count(copy) -> None:
    root = copy(PLAIN)
    for path in [path for path in root.rglob("*") if path.suffix in (".bin", ".f32", ".u8")]:
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    for name in ("obs_manifest.json", "var_manifest.json"):
        text = (root / name).read_text()
        for ending in ("f32", "{ext}"):
            text = text.replace(f'.{ending}"', f'.{ending}.gz"')
        (root / name).write_text(text)
    identity = root / "dataset_identity.json"
    identity.write_text(
        identity.read_text().replace('.bin"', '.bin.gz"').replace("0.0.9", "9.9.9").replace("2026", "2031")
    )
    assert diff(PLAIN, root).equal


def test_quantised_against_exact_within_steps() -> None:
    only = {"points 1", "points 3", "edges of 'the neighbour graph'"}
    assert not set(different(diff(PLAIN, GZ8))) <= {"identity"}
    # 0.0.9 truncates, so half a step is too little and one is enough.
    half = diff(PLAIN, GZ8, steps=0.5)
    assert "obs 'n'" in different(half)
    whole = diff(PLAIN, GZ8, steps=1)
    assert different(whole) == ["identity"]
    assert {*whole.only_a, *whole.only_b} == only
    assert next(part for part in whole.parts if part.name == "4 genes").max_difference > 0


def test_half_a_step_is_enough_for_rounded_values(copy) -> None:
    root = copy(GZ8)
    for name in ("CD3E", "HLA-A"):
        exact = np.fromfile(PLAIN / f"var/{name}.values.f32", "<f4").astype(float)
        codes = np.rint((exact - exact.min()) / np.ptp(exact) * 254).astype(np.uint8)
        (root / f"var/{name}.values.u8.gz").write_bytes(gzip.compress(codes.tobytes()))
    genes = next(part for part in diff(PLAIN, root, steps=0.5).parts if part.name == "4 genes")
    assert genes.note == "different genes: 'IL2 (alt)'"


@pytest.mark.parametrize(
    ("file", "dtype", "part"),
    [
        ("points_2d.bin", "<f4", "points 2d"),
        ("obs/n.values.f32", "<f4", "obs 'n'"),
        ("obs/cell_type.codes.u8", "u1", "obs 'cell type'"),
        ("obs/batch.outliers.f32", "<f4", "outliers 'batch'"),
        ("var/CD3E.values.f32", "<f4", "4 genes"),
    ],
)
def test_one_changed_value_is_told(copy, file: str, dtype: str, part: str) -> None:
    root = copy(PLAIN)
    change_values(root / file, dtype, 5, 1)
    result = diff(PLAIN, root)
    assert different(result) == [part]
    assert next(item for item in result.parts if item.name == part).n_different == 1
    assert not result.equal
    assert "DIFFERENT" in str(result)


def test_tolerances(copy) -> None:
    root = copy(PLAIN)
    change_values(root / "obs/n.values.f32", "<f4", 20, 20.5)
    assert not diff(PLAIN, root, atol=0.49).equal
    result = diff(PLAIN, root, atol=0.5)
    assert result.equal
    assert max(part.max_difference or 0 for part in result.parts) == 0.5
    assert diff(PLAIN, root, rtol=0.025).equal
    assert not diff(PLAIN, root, rtol=0.024).equal


def test_missing_values(copy) -> None:
    root = copy(PLAIN)
    change_values(root / "obs/score.values.f32", "<f4", 4, np.nan)
    assert different(diff(PLAIN, root, atol=1e9)) == ["obs 'score'"]
    change_values(root / "obs/score.values.f32", "<f4", 4, np.fromfile(PLAIN / "obs/score.values.f32", "<f4")[4])
    change_values(root / "obs/score.values.f32", "<f4", 3, np.inf)
    assert different(diff(PLAIN, root, atol=1e9)) == ["obs 'score'"]
    assert "obs 'score'" not in different(diff(root, GZ8, steps=1))


def test_categories_are_compared_by_meaning(copy) -> None:
    root = copy(PLAIN)
    edit(root / "obs_manifest.json", lambda x: x["_categoricalFields"][1][1].reverse())
    codes = np.fromfile(root / "obs/batch.codes.u8", "u1")
    (1 - codes).tofile(root / "obs/batch.codes.u8")
    result = diff(PLAIN, root)
    assert result.equal
    assert "categories in another order" in str(result)
    edit(root / "obs_manifest.json", lambda x: x["_categoricalFields"][1][1].append("unused"))
    assert "'unused'" in str(diff(PLAIN, root))
    assert different(diff(PLAIN, root)) == ["obs 'batch'"]


def test_label_positions(copy) -> None:
    root = copy(PLAIN)
    edit(root / "obs_manifest.json", lambda x: x["_categoricalFields"][0][4]["2"][0].update(position=[0, 0]))
    assert different(diff(PLAIN, root)) == ["label positions 'cell type' 2d"]
    edit(root / "obs_manifest.json", lambda x: x["_categoricalFields"][0][4]["2"].pop())
    assert different(diff(PLAIN, root, atol=9)) == ["label positions 'cell type' 2d"]
    edit(root / "obs_manifest.json", lambda x: x["_categoricalFields"][0][4]["1"][0].update(n_points=3))
    assert "other numbers of cells" in str(diff(PLAIN, root))


def test_edges(copy) -> None:
    root = copy(GZ8)
    files = [root / f"connectivity/edges.{end}.bin.gz" for end in ("src", "dst")]
    ends = [np.frombuffer(gzip.decompress(path.read_bytes()), "<u2") for path in files]
    for path, values in zip(files, ends, strict=True):
        path.write_bytes(gzip.compress(values[::-1].tobytes()))
    result = diff(GZ8, root)
    assert result.equal
    assert "another order" in str(result)
    files[1].write_bytes(gzip.compress(ends[1].tobytes()))
    assert different(diff(GZ8, root)) == ["edges"]


def test_what_only_one_has() -> None:
    result = diff(PLAIN, GZ16)
    assert result.only_a == []
    assert result.only_b == ["vector field 'velocity_umap'", "vector field 'drift'", "edges of 'the neighbour graph'"]


def test_fields_of_another_kind(copy) -> None:
    root = copy(PLAIN)
    np.arange(40, dtype=np.float32).tofile(root / "obs/batch.values.f32")

    def change(manifest: dict[str, Any]) -> None:
        manifest["_categoricalFields"].pop()
        manifest["_continuousFields"].append(["batch"])

    edit(root / "obs_manifest.json", change)
    assert different(diff(PLAIN, root)) == ["obs 'batch'"]


def test_other_cells_are_not_compared(copy) -> None:
    root = copy(PLAIN)
    edit(root / "dataset_identity.json", lambda x: x["stats"].update(n_cells=41))
    assert different(diff(PLAIN, root)) == ["cells"]


def test_the_identity(copy) -> None:
    root = copy(PLAIN)
    edit(root / "dataset_identity.json", lambda x: x.update(description="other"))
    assert different(diff(PLAIN, root)) == ["identity"]


def test_damage_is_an_error(copy) -> None:
    root = copy(PLAIN)
    (root / "var/CD3E.values.f32").unlink()
    with pytest.raises(FormatError, match="is missing"):
        diff(PLAIN, root)


def test_result_can_be_shown() -> None:
    result = diff(PLAIN, GZ16)
    content = json.loads(json.dumps(result.to_dict()))
    assert content["equal"] is False
    assert content["only_b"] == result.only_b
    assert "<table>" in result._repr_html_()
