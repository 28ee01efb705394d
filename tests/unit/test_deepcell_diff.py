"""Comparing projects: what counts, what does not, and the tolerances."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.deepcell_sample import Sample, damaged

from atlaswriter import diff
from atlaswriter.cli.main import run
from atlaswriter.errors import FormatError, InputError
from atlaswriter.findings import DiffResult
from atlaswriter.formats.deepcell import diff as module


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Sample().write(tmp_path_factory.mktemp("whole") / "project.zip")


def different(result: DiffResult) -> list[str]:
    return [part.name for part in result.parts if not part.equal]


def changed(path: Path, change: Callable[[Sample], Any], **options: Any) -> Path:
    """A project of other content."""
    other = Sample()
    change(other)
    return other.write(path / "other.zip", **options)


def renumbered(project: Sample) -> None:
    """The same cells under other values, which differ between frames and features."""
    cells = {(row["t"], row["c"], row["value"]): 0 for row in project.cells}
    for t in range(project.y.shape[1]):
        for c in range(project.y.shape[0]):
            values = sorted(value for frame, feature, value in cells if (frame, feature) == (t, c))
            new = {value: 10 * (t + c) + number for number, value in enumerate(reversed(values), 5)}
            plane = project.y[c, t].copy()
            for value in values:
                project.y[c, t][plane == value] = new[value]
            for row in project.cells:
                if (row["t"], row["c"]) == (t, c):
                    row["value"] = new[row["value"]]
    project.cells.reverse()


def split(project: Sample) -> None:
    """One more value of the same cell, and one without any."""
    project.y[0, 0, 2:5, 2:4] = 77
    project.cells.append({"cell": 1, "value": 77, "t": 0, "c": 0})
    project.y[0, 0, 0, 0] = 99


def other_order(project: Sample) -> None:
    project.divisions[0]["daughters"].reverse()
    project.types = [{**one, "id": one["id"] + 5, "cells": one["cells"][::-1]} for one in reversed(project.types)]
    project.types[0]["color"] = project.types[0]["color"].lower()
    header, *rows = project.spots.splitlines()
    project.spots = "\n".join([header, *reversed(rows)])


def test_a_project_equals_itself(whole: Path) -> None:
    result = diff(whole, whole)
    assert result.equal
    assert not any(part.max_difference for part in result.parts)
    names = [part.name for part in result.parts]
    assert names[:2] == ["size", "channels"]
    assert {"labels of feature 0", "labels of feature 1", "cells", "divisions", "cell types", "embeddings"} < set(names)
    assert str(result).startswith("same content")
    assert "<table>" in result._repr_html_()
    assert json.loads(json.dumps(result.to_dict()))["equal"] is True


@pytest.mark.parametrize("change", [renumbered, split, other_order, lambda _: None])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"order": "ZCYX", "stored": (), "rows": 13},
        {"frames_on": "T", "predictor": True, "rows": 1},
        {"big": True, "zip64": True, "rows": 5},
    ],
)
def test_storage_does_not_count(
    whole: Path, tmp_path: Path, change: Callable[[Sample], Any], options: dict[str, Any]
) -> None:
    other = changed(tmp_path, change, **options)
    for result in (diff(whole, other), diff(other, whole)):
        assert result.equal, str(result)


def test_number_types_do_not_count(whole: Path, tmp_path: Path) -> None:
    def change(project: Sample) -> None:
        project.X, project.y = project.X.astype(np.float32), project.y.astype(np.uint16)

    result = diff(whole, changed(tmp_path, change))
    assert result.equal
    assert "uint16 and float32" in str(result)


CHANGES: list[tuple[str, Callable[[Sample], Any], set[str]]] = []


def planted(*parts: str) -> Callable[[Callable[[Sample], Any]], Callable[[Sample], Any]]:
    """Register a change, and the parts in which it is found."""

    def register(change: Callable[[Sample], Any]) -> Callable[[Sample], Any]:
        CHANGES.append((change.__name__, change, set(parts)))
        return change

    return register


@planted("channel 1 'CD45 <membrane>'")
def one_pixel(project: Sample) -> None:
    project.X[1, 2, 12, 16] += 3


@planted("channels")
def a_name(project: Sample) -> None:
    project.names[0] = "DAPI"


@planted("channels")
def a_channel_more(project: Sample) -> None:
    project.X = np.concatenate([project.X, project.X[:1]])
    project.names.append("CD3")


@planted("size")
def a_frame_less(project: Sample) -> None:
    project.X, project.y = project.X[:, :2], project.y[:, :2]


@planted("labels of feature 1")
def a_label_pixel(project: Sample) -> None:
    project.y[1, 2, 12, 16] = 4


@planted("features")
def a_feature_less(project: Sample) -> None:
    project.y = project.y[:1]


@planted("labels of feature 0", "cells")
def another_meaning(project: Sample) -> None:
    """No pixel changes: the overlap is of cell 4 and a new one."""
    for row in project.cells:
        if (row["t"], row["c"], row["value"], row["cell"]) == (1, 0, 5, 1):
            row["cell"] = 8


@planted("cells")
def a_row_without_pixels(project: Sample) -> None:
    project.cells.append({"cell": 9, "value": 9, "t": 1, "c": 0})


@planted("divisions")
def another_time(project: Sample) -> None:
    project.divisions[0]["t"] = 1


@planted("divisions")
def another_daughter(project: Sample) -> None:
    project.divisions[0]["daughters"] = [2, 4]


@planted("cell types")
def another_type(project: Sample) -> None:
    project.types[1]["cells"].append(3)


@planted("embeddings")
def another_vector(project: Sample) -> None:
    project.embeddings[2][1] += 0.25


@planted("embeddings")
def a_vector_more(project: Sample) -> None:
    project.embeddings.append([1, 1])


@planted("spots 'x'")
def a_spot_moved(project: Sample) -> None:
    project.spots = project.spots.replace("3.5,", "3.25,")


@planted("spots 'gene'")
def another_gene(project: Sample) -> None:
    project.spots = project.spots.replace("MS4A1", "CD19")


@planted("spots")
def a_spot_less(project: Sample) -> None:
    project.spots = project.spots[: project.spots.rindex("9,")]


@pytest.mark.parametrize(("change", "parts"), [pytest.param(*case[1:], id=case[0]) for case in CHANGES])
def test_differences_are_found(whole: Path, tmp_path: Path, change: Callable[[Sample], Any], parts: set[str]) -> None:
    other = changed(tmp_path, change, order="ZCYX")
    for result in (diff(whole, other), diff(other, whole)):
        assert set(different(result)) == parts
        assert not result.only_a
        assert not result.only_b


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda one: setattr(one, "spots", None), "table 'spots'"),
        (lambda one: setattr(one, "embeddings", None), "table 'embeddings'"),
        (lambda one: setattr(one, "spots", one.spots.replace("gene", "name")), "column of spots 'gene'"),
    ],
)
def test_what_only_one_has(whole: Path, tmp_path: Path, change: Callable[[Sample], Any], name: str) -> None:
    result = diff(whole, changed(tmp_path, change))
    assert result.only_a == [name]
    assert not result.equal
    assert diff(changed(tmp_path, change), whole).only_b == [name]


def test_counts_and_tolerances(whole: Path, tmp_path: Path) -> None:
    def change(project: Sample) -> None:
        project.X[0] += np.where(project.X[0] < 60_000, 2, 0).astype(np.uint16)
        project.X[1, 0, 0, 0] += 5
        project.y[0, 2, 2:4, 2:5] = 3
        project.embeddings[1][0] += 0.5
        project.spots = project.spots.replace("4.25", "4.5")

    other = changed(tmp_path, change)
    found = {part.name: part for part in diff(whole, other).parts}
    first, second = (part for name, part in found.items() if name.startswith("channel "))
    assert (first.n_different, first.max_difference) == (Sample().X[0].size, 2)
    assert (second.n_different, second.max_difference) == (1, 5)
    assert found["labels of feature 0"].n_different == 6
    assert found["labels of feature 0"].max_difference is None
    assert different(diff(whole, other, atol=2)) == ["channel 1 'CD45 <membrane>'", "labels of feature 0"]
    assert different(diff(whole, other, atol=5)) == ["labels of feature 0"]
    assert "channel 0" not in str(different(diff(whole, other, rtol=1.0)))


def test_values_that_are_no_numbers(tmp_path: Path) -> None:
    first, second = Sample(), Sample()
    for one in (first, second):
        one.X = one.X.astype(np.float32)
        one.X[0, 0, 0, :3] = np.nan, np.inf, -np.inf
    a = first.write(tmp_path / "a.zip")
    assert diff(a, second.write(tmp_path / "b.zip")).equal
    second.X[0, 0, 0, :3] = np.nan, -np.inf, 1
    (part,) = (part for part in diff(a, second.write(tmp_path / "b.zip"), atol=1e9, rtol=1).parts if not part.equal)
    assert part.n_different == 2


def test_large_frames_are_compared_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atlaswriter.formats.deepcell.blocks._BLOCK_BYTES", 64)
    blocks = []
    compare = module._Tolerance.compare
    monkeypatch.setattr(
        module._Tolerance, "compare", lambda self, part, a, b: (blocks.append(a.shape), compare(self, part, a, b))[1]
    )

    def change(project: Sample) -> None:
        renumbered(project)
        project.X[0, 1, ::3, 5] += 1
        project.y[1, 1, 12, :4] = 15 + 10

    a, b = Sample().write(tmp_path / "a.zip", rows=2), changed(tmp_path, change, rows=3)
    found = {part.name: part.n_different for part in diff(a, b).parts if not part.equal}
    assert found == {"channel 0 'DAPI & \"blue\"'": 5, "labels of feature 1": 4}
    assert max(shape[0] for shape in blocks if shape[-1] == 17) == 3


def test_damage(whole: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"cells\.json"):
        diff(whole, damaged(tmp_path / "p.zip", Sample().members(), **{"cells.json": "{}"}))
    content = Sample().images()["y.ome.tiff"]
    at = content.index(b"\x78\x9c", 40)
    broken = content[: at + 4] + bytes(8) + content[at + 12 :]
    with pytest.raises(FormatError, match=r"y\.ome\.tiff"):
        diff(damaged(tmp_path / "p.zip", Sample().members(), **{"y.ome.tiff": broken}), whole)


def test_formats_do_not_mix(whole: Path, tmp_path: Path) -> None:
    (tmp_path / "landscape_parameters.json").write_text("{}")
    with pytest.raises(InputError, match="deepcell and landscape files cannot be compared"):
        diff(whole, tmp_path)


def test_command(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = changed(tmp_path, one_pixel)
    assert run(["diff", str(whole), str(whole)]) == 0
    assert run(["diff", str(whole), str(other), "--json"]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["equal"] is False
    assert run(["diff", str(whole), str(other), "--atol", "3"]) == 0
    assert run(["diff", str(whole), str(other), "--px", "3"]) == 3
