"""What a run was made of: inputs, options and versions, and how a change of them is named."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from atlaswriter.engine import record as records
from atlaswriter.engine.record import Record, jsonable, refuse_changes
from atlaswriter.errors import InputError
from atlaswriter.sources.fingerprint import differences, fingerprint, size_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "a.h5ad"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def store(tmp_path):
    """A folder as of Zarr."""
    root = tmp_path / "a.zarr"
    for name in ("zarr.json", "X/zarr.json", "X/data/c/0", "X/data/c/1", "obs/a/c/0"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def made(path, **options):
    return Record.of("cellucid", {"genes": None, "workers": 3, **options}, [path])


def test_equal_where_only_resources_differ(file):
    first = made(file, workers=1, memory_budget="1GiB", out="a", force=False, spill_dir=Path("x"), resume=True)
    second = made(file, workers=2, memory_budget=None, out="b", force=True, progress=True, strategy="spill")
    assert first == second
    assert first.key == second.key
    assert first.changes(second) == []
    refuse_changes([], "out", "no")


def test_survives_being_written_down(file):
    options = {"genes": np.array(["a"]), "embeddings": {2: "X"}, "bits": np.int64(8), "layer": Path("x/y"), "obs": (1,)}
    before = made(file, **options)
    after = Record.from_dict(json.loads(json.dumps(before.to_dict())))
    assert after == before
    assert after.key == before.key
    assert before.arguments == {"genes": ["a"], "embeddings": {"2": "X"}, "bits": 8, "layer": "x/y", "obs": [1]}


@pytest.mark.parametrize(
    "content", [{}, {"format": "x"}, {"format": "x", "arguments": 3, "inputs": {}, "versions": {}}, [], None, 3]
)
def test_what_is_no_record(content):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Record.from_dict(content)


def test_every_change_is_named(file, monkeypatch):
    before = made(file, quantization=8, genes=["g"] * 100)
    monkeypatch.setattr(records, "version", lambda name: "99" if name == "isal" else "1")
    now = Record("landscape", {"quantization": None, "layer": "raw"}, {"/other": {"": "1"}}, records.versions())
    changes = "; ".join(before.changes(now))
    for text in (
        "the format was cellucid, now it is landscape",
        "now it is 99",
        "option quantization was 8, now it is null",
        'option layer was null, now it is "raw"',
        'option genes was ["g", "g"',
        f"input {file}: is gone",
        "input /other: is new",
    ):
        assert text in changes
    assert len(changes) < 1000
    with pytest.raises(InputError, match=r"out: what was begun cannot be continued: .*8, now.* → start anew"):
        refuse_changes(before.changes(now), "out", "start anew")


def test_a_package_that_is_absent(monkeypatch, file):
    def absent(name):
        raise records.PackageNotFoundError(name)

    before = made(file)
    monkeypatch.setattr(records, "version", absent)
    assert "now it is absent" in before.changes(made(file))[0]


@pytest.mark.parametrize("value", [{1, 2}, b"x", object(), [object()], {"a": iter([1])}, np.array([b"x"]), len])
def test_what_is_in_memory_has_no_record(value, file):
    with pytest.raises(TypeError, match="is not a plain value"):
        jsonable(value)
    assert made(file, option=value) is None


def test_a_file_that_is_touched_or_replaced(file):
    before, stat = made(file), file.stat()
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert before.changes(made(file)) == [f"input {file}: was changed"]
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert before.changes(made(file)) == []
    file.write_bytes(b"content and more")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert before.changes(made(file)) == [f"input {file}: was changed"]


def test_links_and_spellings_lead_to_the_same_input(file, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(file)
    monkeypatch.chdir(tmp_path)
    assert made(tmp_path / "link") == made("a.h5ad") == made(tmp_path / "x" / ".." / "a.h5ad") == made(file)
    other = tmp_path / "other"
    other.write_bytes(b"content")
    before = made(tmp_path / "link")
    (tmp_path / "link").unlink()
    (tmp_path / "link").symlink_to(other)
    assert sorted(before.changes(made(tmp_path / "link"))) == [f"input {file}: is gone", f"input {other}: is new"]


def test_entries_of_a_folder_are_told_apart(store):
    before = fingerprint(store)
    assert list(before) == ["X/data", "X/zarr.json", "obs/a", "zarr.json"]
    assert fingerprint(store) == before
    os.utime(store / "X" / "data" / "c" / "1", ns=(0, 0))
    assert differences(before, fingerprint(store)) == ["X/data was changed"]
    (store / "X" / "data" / "c" / "1").rename(store / "X" / "data" / "c" / "2")
    (store / "zarr.json").unlink()
    (store / "uns").write_text("")
    (store / "empty").mkdir()
    expected = ["X/data was changed", "uns is new", "zarr.json is gone"]
    assert differences(before, fingerprint(store)) == expected
    assert size_of(store) == sum(path.stat().st_size for path in store.rglob("*") if path.is_file())


def test_many_changes_are_counted(store, tmp_path):
    before = made(store)
    for number in range(20):
        (store / f"new-{number:02d}").write_text("")
    assert before.changes(made(store)) == [
        f"input {store}: {', '.join(f'new-{number:02d} is new' for number in range(5))} and 15 more"
    ]


def test_links_in_a_folder(store, tmp_path):
    """They are followed, as readers follow them, but never around in circles; one to nothing is like nothing else."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("x")
    (store / "linked").symlink_to(outside)
    (store / "nothing").symlink_to(tmp_path / "nothing")
    for name in ("around", "X/up"):
        (store / name).symlink_to(store)
    before = fingerprint(store)
    assert {"linked/file", "nothing", "X/data"} <= before.keys()
    assert not any("around" in key for key in before)
    os.utime(outside / "file", ns=(0, 0))
    (tmp_path / "nothing").write_text("")
    assert differences(before, fingerprint(store)) == ["linked/file was changed", "nothing was changed"]


def test_what_cannot_be_looked_at(store, tmp_path, monkeypatch):
    assert fingerprint(tmp_path / "nowhere") == {"": "0 bytes, out of reach"}
    assert size_of(tmp_path / "nowhere") == 0
    before, scandir = fingerprint(store), os.scandir

    def locked(folder):
        if Path(folder).name == "data":
            raise PermissionError(folder)
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", locked)
    assert differences(before, fingerprint(store)) == ["X/data was changed"]


@pytest.mark.parametrize("name", ["new\nline", "\udcff", "ä", "a b"])
def test_odd_names(name, store):
    (store / name).write_text("")
    before = made(store)
    assert name in fingerprint(store)
    assert Record.from_dict(json.loads(json.dumps(before.to_dict()))).changes(made(store)) == []
    assert len(before.key) == 64
