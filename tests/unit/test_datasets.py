"""The list of datasets: the original's file, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from atlaswriter.errors import InputError, OutputError
from atlaswriter.formats.cellucid.datasets import generate_datasets_manifest

GOLDEN = Path(__file__).parent.parent / "golden" / "exports"

# What cellucid 0.0.9's generate_datasets_manifest writes for the folder made below.
EXPECTED = """{
  "version": 1,
  "default": "golden",
  "datasets": [
    {
      "id": "golden",
      "path": "a/",
      "name": "Golden",
      "n_cells": 40,
      "n_genes": 4
    },
    {
      "id": "b",
      "path": "b/",
      "name": "b"
    }
  ]
}"""


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    shutil.copytree(GOLDEN / "plain", tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b/dataset_identity.json").write_text('{"stats": {"n_cells": 0}}')
    (tmp_path / "not an export").mkdir()
    (tmp_path / "notes.txt").write_text("")
    return tmp_path


def test_same_file_as_the_original(exports: Path) -> None:
    path = generate_datasets_manifest(exports)
    assert path == exports / "datasets.json"
    assert path.read_text() == EXPECTED
    assert sorted(item.name for item in exports.iterdir()) == ["a", "b", "datasets.json", "not an export", "notes.txt"]


def test_default_and_name(exports: Path) -> None:
    path = generate_datasets_manifest(exports, "list.json", default_dataset="b")
    assert path.name == "list.json"
    assert json.loads(path.read_text())["default"] == "b"


def test_everything_wrong_is_told_at_once(exports: Path) -> None:
    shutil.copytree(exports / "a", exports / "c")
    for name in ("d", "e"):
        (exports / name).mkdir()
    (exports / "d/dataset_identity.json").write_text("{")
    (exports / "e/dataset_identity.json").write_text('{"id": 7}')
    with pytest.raises(InputError) as caught:
        generate_datasets_manifest(exports, "../x.json", default_dataset="none")
    text = str(caught.value)
    assert "5 problems" in text
    assert "'a/', 'c/'" in text
    assert "d/dataset_identity.json: is not standard JSON" in text
    assert "id is 7, not text" in text
    assert "choose one of 'golden', 'b', 'golden'" in text
    assert not (exports / "datasets.json").exists()
    assert not (exports.parent / "x.json").exists()


def test_nothing_to_list(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has a dataset_identity"):
        generate_datasets_manifest(tmp_path)
    with pytest.raises(InputError, match="is not a folder"):
        generate_datasets_manifest(tmp_path / "none")


def test_a_failure_leaves_the_old_file(exports: Path, monkeypatch) -> None:
    path = generate_datasets_manifest(exports)

    def fail(self: Path, target: Path) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError, match="disk full"):
        generate_datasets_manifest(exports, default_dataset="b")
    assert path.read_text() == EXPECTED
    assert not [item for item in exports.iterdir() if item.name.startswith(".")]
