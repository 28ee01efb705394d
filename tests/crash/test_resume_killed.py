"""A local export that was interrupted goes on where it stopped, if nothing was changed; otherwise it says what was."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import pytest
from tests.tasks_inputs import FIXED, atlas, beside, content, exported, moments, mortal, stored

import atlaswriter as aw
from atlaswriter.cli.main import run as cli
from atlaswriter.engine import record
from atlaswriter.errors import InputError, OutputError
from atlaswriter.sinks import lock
from atlaswriter.sinks.files import Recorder
from atlaswriter.sinks.journal import Journal
from atlaswriter.sinks.runfolder import RunFolder

GIVEN = {"created_at": None, "progress": False, "workers": 1}
RUNS = "[.]out[.]atlaswriter-[0-9a-f]{8}"


@pytest.fixture(scope="module")
def killed():
    if os.name == "nt":
        pytest.skip("needs SIGKILL")
    with mortal() as does:
        yield does


@pytest.fixture
def path(tmp_path):
    (tmp_path / "in").mkdir()
    return stored(tmp_path / "in", cells=60, genes=300)  # genes are written 64 at a time


@pytest.fixture
def out(tmp_path):
    (tmp_path / "exports").mkdir()
    return tmp_path / "exports" / "out"


def runs(out):
    """Run folders beside an export."""
    return [RunFolder(out.parent / name) for name in sorted(beside(out)) if re.fullmatch(RUNS, name)]


def proven(run):
    """Names of the files of an interrupted run that its journal proves, and which they are."""
    done = Journal(run.journal).proven(run.files, read=True).values()
    return {name: (run.files / name).stat().st_ino for entry in done for name in entry.files}


def inodes(out, names):
    return {name: (out / name).stat().st_ino for name in names}


@pytest.fixture
def interrupt(path, out, monkeypatch):
    """Interrupts an export when it has written 150 files, as the user does; its run folders."""

    def interrupted(resume=True, **options):
        left, write = iter(range(150)), Recorder.write

        def one_of_few(*given):
            if next(left, None) is None:
                raise KeyboardInterrupt
            return write(*given)

        given = {**GIVEN, "resume": resume, "compression": None, **options}
        with monkeypatch.context() as patch:
            patch.setattr(Recorder, "write", one_of_few)
            with pytest.raises(KeyboardInterrupt):
                aw.cellucid(path, out, **given)
        return runs(out)

    return interrupted


def listing(folder):
    return {path.relative_to(folder).as_posix(): path.lstat().st_mtime_ns for path in folder.rglob("*")}


# ---------------------------------------------------------------- killed


@pytest.mark.parametrize("first", [False, True])
def test_killed_before_calls_that_change_the_disk(first, path, out, killed, tmp_path):
    """Whether or not the first run was to be resumed; files that are proven are those that are published."""
    code, calls = killed(0, "cellucid", path, out, **GIVEN)
    assert code == 0
    kept = []
    for kill_at in moments(len(calls), 3 if first else 0, calls.index("rename") + 1):
        shutil.rmtree(out)
        times = []
        assert killed(kill_at, "cellucid", path, out, resume=first, **GIVEN)[0] == -signal.SIGKILL
        if out.exists():  # killed while it cleaned up
            assert kill_at > len(calls) * 0.9
            aw.cellucid(path, out, force=True, resume=True, **GIVEN)
        else:
            begun = [run for run in runs(out) if run.plan.exists()]
            files = proven(begun[0]) if begun else {}
            times = [json.loads(run.plan.read_text() or '{"facts": {}}')["facts"].get("created_at") for run in begun]
            report = aw.cellucid(path, out, resume=True, **GIVEN)
            assert report.files == len(content(out))
            assert inodes(out, files) == files
            kept.append(len(files))
        assert beside(out) == {"out"}
        created = json.loads((out / "dataset_identity.json").read_text())["created_at"]
        assert times in ([], [None], [created])
        expected = exported(path, tmp_path / f"expected{kill_at}", created_at=created)
        assert content(out) == expected
    assert kept == sorted(kept)
    assert kept[0] == 0
    assert max(kept) > 250


def test_killed_again_and_again(path, out, killed, tmp_path):
    seen = []
    for kill_at in (30, 100, 150, 180):
        assert killed(kill_at, "cellucid", path, out, resume=True, **GIVEN)[0] == -signal.SIGKILL
        seen.append(len(proven(runs(out)[0])))
        assert len([run for run in runs(out) if run.plan.exists()]) == 1
    assert seen == sorted(set(seen))
    aw.cellucid(path, out, resume=True, **{**GIVEN, "workers": 3})
    created = json.loads((out / "dataset_identity.json").read_text())["created_at"]
    assert content(out) == exported(path, tmp_path / "expected", created_at=created)
    assert beside(out) == {"out"}


# ---------------------------------------------------------------- interrupted


def test_interrupted_by_the_user_it_stays_only_if_it_is_to_be_resumed(interrupt, path, out):
    assert interrupt(resume=False) == []
    assert list(out.parent.iterdir()) == []
    (run,) = interrupt(resume=True)
    assert 130 < len(proven(run)) <= 150
    assert beside(out) == {run.path.name}
    assert interrupt(resume=False) == []  # starts anew, and cleans


def test_nothing_is_written_twice_and_the_first_time_stamp_stays(interrupt, path, out, monkeypatch, tmp_path):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1000000000")
    (run,) = interrupt()
    files, plan = proven(run), run.plan.read_text()
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1100000000")
    aw.cellucid(path, out, **GIVEN, compression=None, resume=True)
    assert inodes(out, files) == files
    created = json.loads(plan)["facts"]["created_at"]
    assert created.startswith("2001")
    assert content(out) == exported(path, tmp_path, compression=None, created_at=created)
    assert beside(out) == {"out"}


@pytest.mark.parametrize("how", ["cut", "altered", "gone", "link", "unknown", "manifest"])
def test_files_that_are_not_proven_are_written_again(how, interrupt, path, out, tmp_path):
    (run,) = interrupt(**FIXED)
    files = proven(run)
    name = next(name for name in sorted(files) if name.startswith("var/"))
    staged = run.files / name
    content_of = staged.read_bytes()
    if how == "unknown":
        (run.files / "var" / "unknown").write_text("left over")
    elif how == "manifest":
        (run.files / "dataset_identity.json").write_text("{}")
    else:
        staged.unlink()
        if how == "link":
            (tmp_path / "elsewhere").write_bytes(content_of)
            staged.symlink_to(tmp_path / "elsewhere")
        elif how != "gone":
            staged.write_bytes(content_of[:-1] if how == "cut" else bytes([content_of[0] ^ 1]) + content_of[1:])
    left = proven(run)
    assert (left == files) == (how in ("unknown", "manifest"))
    aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert inodes(out, left) == left
    assert content(out) == exported(path, tmp_path, compression=None)
    assert not any(found.is_symlink() for found in out.rglob("*"))
    if how == "link":
        assert (tmp_path / "elsewhere").read_bytes() == content_of


def test_a_torn_line_of_the_journal(interrupt, path, out, tmp_path):
    (run,) = interrupt(**FIXED)
    (journal,) = run.journal.iterdir()
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[:-1]) + lines[-1][:-20])
    left = proven(run)
    assert 0 < len(left) < 130
    aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert inodes(out, left) == left
    assert content(out) == exported(path, tmp_path, compression=None)


def test_nothing_was_interrupted(path, out, tmp_path, caplog):
    caplog.set_level("INFO", "atlaswriter")
    aw.cellucid(path, out, **FIXED, resume=True)
    assert "nothing was interrupted here" in caplog.text
    assert content(out) == exported(path, tmp_path)
    with pytest.raises(InputError, match="is not empty"):
        aw.cellucid(path, out, **FIXED, resume=True)
    aw.cellucid(path, out, **FIXED, resume=True, force=True)
    assert beside(out) == {"out"}


@pytest.mark.parametrize("plan", ["", "{", "[]", "{}", '{"record": {}, "facts": {}}', "[" * 100_000])
def test_a_run_that_does_not_say_what_it_was_is_not_continued(plan, interrupt, path, out, tmp_path):
    (run,) = interrupt(**FIXED)
    run.plan.write_text(plan)
    aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert content(out) == exported(path, tmp_path, compression=None)
    assert beside(out) == {"out"}


def test_two_interrupted_runs_the_one_that_is_the_same_goes_on(interrupt, path, out, tmp_path):
    (one,) = interrupt(**FIXED)
    shutil.move(one.path, tmp_path / "aside")
    (other,) = interrupt(**FIXED, var_quantization=16)
    shutil.move(tmp_path / "aside", one.path)
    os.utime(one.path, ns=(0, 0))  # the other one is the latest
    before = listing(out.parent)
    with pytest.raises(InputError, match="option var_quantization was 16, now it is null"):
        aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True, var_quantization=None)
    assert listing(out.parent) == before
    files = proven(one)
    aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert inodes(out, files) == files
    assert content(out) == exported(path, tmp_path, compression=None)
    assert beside(out) == {"out"}
    assert not other.path.exists()


# ---------------------------------------------------------------- refused


def test_what_was_changed_is_named_and_nothing_is_deleted(interrupt, path, out, monkeypatch):
    interrupt()
    before, given = listing(out.parent), {**GIVEN, "compression": None, "resume": True}
    for changed in ({"compression": 6}, {"genes": ["g1"]}, {"layer": None, "obs": []}, {"dataset_name": "x"}):
        name = list(changed)[-1]
        with pytest.raises(InputError, match=f"option {name} was .*, now it is .*leave resume"):
            aw.cellucid(path, out, **{**given, **changed})
        assert listing(out.parent) == before
    with monkeypatch.context() as patch:
        patch.setattr(record, "version", lambda name: "99")
        with pytest.raises(InputError, match=r"atlaswriter was .*, now it is 99"):
            aw.cellucid(path, out, **given)
    stat = path.stat()
    os.utime(path, ns=(0, 0))
    with pytest.raises(InputError, match=re.escape(f"input {path}: was changed")):
        aw.cellucid(path, out, **given)
    assert listing(out.parent) == before
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    aw.cellucid(path, out, **{**given, "workers": 2, "memory_budget": "3GiB", "strategy": "spill"})
    assert beside(out) == {"out"}


def test_what_is_in_memory_is_refused(interrupt, out):
    interrupt()
    before = listing(out.parent)
    with pytest.raises(InputError, match="in memory cannot be proven unchanged → export a file"):
        aw.cellucid(atlas(), out, **GIVEN, resume=True)
    assert listing(out.parent) == before
    with pytest.raises(InputError, match="resume: 'yes' is not True or False"):
        aw.cellucid(atlas(), out, **GIVEN, resume="yes")


def test_without_locks_another_run_may_be_alive(interrupt, path, out, monkeypatch):
    interrupt()
    before = listing(out.parent)

    def refuse(descriptor):
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(lock, "_lock", refuse)
    with pytest.raises(InputError, match="has no file locks"):
        aw.cellucid(path, out, **GIVEN, resume=True)
    assert listing(out.parent) == before


def test_on_the_command_line(interrupt, path, out, capsys, tmp_path):
    (run,) = interrupt(**{**FIXED, "compression": 6})
    files = proven(run)
    words = ["cellucid", str(path), str(out), "--resume", "--created-at", FIXED["created_at"]]
    assert cli([*words, "--quantize", "16"]) == 3
    assert "option var_quantization was 8, now it is 16" in capsys.readouterr().err
    assert cli(words) == 0
    assert f"going on with an interrupted run: {len(files)} files" in capsys.readouterr().err
    assert inodes(out, files) == files
    assert content(out) == exported(path, tmp_path)


# ---------------------------------------------------------------- names from outside


@pytest.mark.parametrize("name", ["files", "journal", "plan.json", "."])
def test_links_in_place_of_what_was_interrupted_are_not_followed(name, interrupt, path, out, tmp_path):
    (run,) = interrupt(**FIXED)
    linked = run.path / name if name != "." else run.path
    victim = tmp_path / "victim"
    shutil.move(linked, victim)
    if victim.is_dir():
        (victim / "mine").write_text("mine")
    linked.symlink_to(victim)
    before = listing(victim) if victim.is_dir() else victim.read_text()
    aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert (listing(victim) if victim.is_dir() else victim.read_text()) == before
    assert content(out) == exported(path, tmp_path, compression=None)


def test_a_linked_folder_among_the_files_is_not_followed(interrupt, path, out, tmp_path):
    (run,) = interrupt(**FIXED)
    victim = tmp_path / "victim"
    shutil.move(run.files / "var", victim)
    (victim / "mine").write_text("mine")
    (run.files / "var").symlink_to(victim)
    before = listing(victim)
    with pytest.raises(OutputError, match="staged files differ"):
        aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert listing(victim) == before
    aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert listing(victim) == before
    assert content(out) == exported(path, tmp_path, compression=None)


@pytest.mark.parametrize("name", ["../../../victim", "{victim}", "var/../../../../victim"])
def test_names_in_the_journal_lead_nowhere_else(name, interrupt, path, out, tmp_path):
    (run,) = interrupt(**FIXED)
    victim = tmp_path / "victim"
    victim.write_text("mine")
    line = {"work": "genes/0", "files": {name.format(victim=victim): [4, 0]}, "result": [], "cost": {}}
    (run.journal / "0.jsonl").write_text(json.dumps(line) + "\n")
    aw.cellucid(path, out, **{**GIVEN, **FIXED}, compression=None, resume=True)
    assert victim.read_text() == "mine"
    assert content(out) == exported(path, tmp_path, compression=None)
    assert Path(path).exists()
