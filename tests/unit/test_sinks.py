"""The folder sink: what it refuses, what it writes, and what it leaves behind when it fails."""

import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from atlaswriter.errors import OutputError, Problems
from atlaswriter.sinks import fs, lock
from atlaswriter.sinks.folder import FolderSink, check_target

posix = pytest.mark.skipif(os.name == "nt", reason="POSIX only")


def tree(folder):
    """Every file with its content and every folder, so that two trees can be compared."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def problems_of(target, *, force=False, foreign=lambda folder: []):
    problems = Problems()
    check_target(target, force=force, foreign=foreign, problems=problems)
    return [str(problem) for problem in problems.found]


def make_old(target):
    (target / "sub").mkdir(parents=True)
    (target / "manifest.json").write_bytes(b"old")
    (target / "sub" / "data.bin").write_bytes(b"old data")
    return tree(target)


def fill(sink, text=b"new"):
    sink.make_dir("sub")
    sink.write("sub/data.bin", text, b" data")
    sink.write("manifest.json", text)


NEW = {"manifest.json": b"new", "sub": None, "sub/data.bin": b"new data"}


def export(target):
    with FolderSink(target, force=True) as sink:
        fill(sink)
        sink.publish()


@pytest.fixture
def no_exchange(monkeypatch):
    monkeypatch.setattr(fs, "exchange", lambda first, second: False)


def fail(number):
    def failing(*args):
        raise OSError(number, os.strerror(number))

    return failing


# --- check_target ---------------------------------------------------------------------------


def test_absent_and_empty_targets_are_fine(tmp_path):
    (tmp_path / "empty").mkdir()
    assert problems_of(tmp_path / "empty") == []
    assert problems_of(tmp_path / "a" / "b" / "c") == []
    assert tree(tmp_path) == {"empty": None}  # nothing was created


@pytest.mark.parametrize("force", [False, True])
def test_root_home_and_working_directory_are_refused(tmp_path, monkeypatch, force):
    home, work = tmp_path / "homes" / "me", tmp_path / "work" / "here"
    for folder in (home, work / "below"):
        folder.mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: home)
    monkeypatch.chdir(work)
    for target in (Path("/"), home, home.parent, work, work.parent, Path(), Path(".."), Path("../here")):
        (problem,) = problems_of(target, force=force)
        assert "is or contains the" in problem
        assert "choose a folder inside it" in problem
    assert problems_of(Path("below"), force=force) == []
    assert problems_of(home / "export", force=force) == []


def test_a_lost_working_directory_or_home_is_no_obstacle(tmp_path, monkeypatch):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    def no_cwd():
        raise FileNotFoundError

    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setattr(Path, "cwd", no_cwd)
    assert problems_of(tmp_path / "empty") == []


def test_files_and_links_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    for name, found in {
        "file": "is a file",
        "link": "is a symbolic link",
        "dangling": "is a symbolic link",
        "loop": "is a symbolic link",
        "file/below": f"{tmp_path / 'file'} is not a folder",
        "file/a/b": f"{tmp_path / 'file'} is not a folder",
        "loop/below": "is not a folder",
    }.items():
        (problem,) = problems_of(tmp_path / name, force=True)
        assert found in problem
    assert problems_of(tmp_path / "link" / "below") == []


def test_a_full_folder_needs_force(tmp_path):
    make_old(tmp_path / "out")
    (problem,) = problems_of(tmp_path / "out")
    assert "pass force=True (--force) to replace it, or choose another folder" in problem
    assert problems_of(tmp_path / "out", force=True) == []


def test_force_does_not_delete_what_is_foreign(tmp_path):
    make_old(tmp_path / "out")
    (problem,) = problems_of(tmp_path / "out", force=True, foreign=lambda folder: ["thesis.docx", folder.name])
    assert "'thesis.docx', 'out'" in problem
    assert "delete" in problem


def test_foreign_is_not_asked_about_what_is_not_replaced(tmp_path):
    (tmp_path / "empty").mkdir()
    assert problems_of(tmp_path / "empty", force=True, foreign=lambda folder: ["never"]) == []
    assert problems_of(tmp_path / "absent", force=True, foreign=lambda folder: ["never"]) == []


def test_mount_points_are_refused_before_any_work(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path / "out")
    (problem,) = problems_of(tmp_path / "out")
    assert "mount point" in problem


@contextmanager
def ordinary_user():
    """Permissions do not bind root, so be somebody else for a while."""
    root = os.geteuid() == 0
    if root:
        os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        if root:
            os.setresuid(0, 0, 0)


@pytest.fixture
def shared():
    """A folder that an ordinary user can reach, unlike `tmp_path`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        folder.chmod(0o777)
        yield folder


@posix
def test_unwritable_parents_are_refused(shared):
    parent = shared / "parent"
    parent.mkdir(0o555)
    with ordinary_user():
        (problem,) = problems_of(parent / "a" / "out")
    assert f"{parent} is not writable" in problem
    parent.chmod(0o755)
    assert problems_of(parent / "a" / "out") == []


@posix
def test_a_home_out_of_reach_is_no_obstacle(shared, monkeypatch):
    (shared / "secret" / "me").mkdir(parents=True)
    (shared / "out").mkdir()
    monkeypatch.setattr(Path, "home", lambda: shared / "secret" / "me")
    (shared / "secret").chmod(0)
    try:
        with ordinary_user():
            assert problems_of(shared / "out") == []
            assert problems_of(shared / "secret" / "out") != []
    finally:
        (shared / "secret").chmod(0o755)


def test_impossible_names_are_refused(tmp_path):
    assert "longer than" in problems_of(tmp_path / ("x" * 230))[0]
    assert "cannot be used" in problems_of(tmp_path / "nul\0" / "x")[0]
    longest = tmp_path / ("x" * 229)
    assert problems_of(longest) == []
    make_old(longest)
    with FolderSink(longest, force=True) as sink:  # the longest name that is let through really works
        fill(sink)
        sink.publish()
    assert tree(longest) == NEW


# --- writing --------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["absent", "empty", "missing parents", "old"])
def test_publish(tmp_path, before, caplog):
    target = tmp_path / "a" / "b" / "out"
    if before == "old":
        make_old(target)
    elif before == "empty":
        target.mkdir(parents=True)
    elif before == "absent":
        target.parent.mkdir(parents=True)
    with FolderSink(target, force=before == "old") as sink:
        fill(sink)
        assert sink.files == {"sub/data.bin": 8, "manifest.json": 3}
        assert sink.bytes_written == 11
        sink.publish()
        assert sorted(os.listdir(target.parent)) == [".out.atlaswriter.lock", "out"]  # the old tree is gone
        assert tree(target) == NEW
    assert tree(target) == NEW
    assert os.listdir(target.parent) == ["out"]
    assert caplog.text == ""


@pytest.mark.usefixtures("no_exchange")
def test_publish_without_exchange(tmp_path):
    make_old(tmp_path / "out")
    export(tmp_path / "out")
    assert tree(tmp_path / "out") == NEW
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, None])
@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize("name", ["out", "o+t (1) [a]{2}"])
def test_without_publish_nothing_changes(tmp_path, error, old, name):
    target = tmp_path / "a" / "b" / name
    if old:
        make_old(target)
    before = tree(tmp_path)
    try:
        with FolderSink(target, force=True) as sink:
            fill(sink)
            assert tree(tmp_path) != before
            if error:
                raise error
    except (RuntimeError, KeyboardInterrupt) as caught:
        assert type(caught) is error  # noqa: PT017
    assert tree(tmp_path) == before


def test_created_parents_stay_if_somebody_else_uses_them(tmp_path):
    with FolderSink(tmp_path / "a" / "b" / "out", force=False):
        (tmp_path / "a" / "other").write_text("x")
    assert tree(tmp_path) == {"a": None, "a/other": b"x"}


def test_relative_targets_survive_a_change_of_directory(tmp_path, monkeypatch):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "one")
    with FolderSink(Path("out"), force=False) as sink:
        monkeypatch.chdir(tmp_path / "two")
        fill(sink)
        sink.publish()
    assert tree(tmp_path / "one" / "out") == NEW
    assert os.listdir(tmp_path / "two") == []


def test_arrays_and_empty_buffers(tmp_path):
    values = np.arange(12, dtype="<u2").reshape(3, 4)
    with FolderSink(tmp_path / "out", force=False) as sink:
        assert sink.write("values", b"head", values, np.empty((0, 3), "<f4")) == 4 + 24
        assert sink.write("empty") == 0
        sink.publish()
    assert (tmp_path / "out" / "values").read_bytes() == b"head" + values.tobytes()


def test_short_writes_are_completed(tmp_path, monkeypatch):
    write, sizes = os.write, []

    def short(descriptor, content):
        sizes.append(len(content))
        return write(descriptor, content[:1000])

    monkeypatch.setattr(os, "write", short)
    values = np.random.default_rng(0).integers(0, 255, 3500).astype("u1")
    assert fs.write_file(tmp_path / "file", (values, b"end")) == 3503
    assert (tmp_path / "file").read_bytes() == values.tobytes() + b"end"
    assert sizes == [3500, 2500, 1500, 500, 3]


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "/etc/x",
        "../x",
        "sub/../../x",
        "sub/..",
        "./x",
        "sub//x",
        "sub/",
        "\\x",
        "sub\\x",
        "C:x",
        "nul\0",
    ],
)
def test_names_that_leave_the_target_are_refused(tmp_path, name):
    with FolderSink(tmp_path / "out", force=False) as sink:
        sink.make_dir("sub")
        before = tree(tmp_path)
        with pytest.raises(OutputError, match="does not name a file inside the export"):
            sink.write(name, b"x")
        with pytest.raises(OutputError, match="does not name a file inside the export"):
            sink.make_dir(name)
        assert tree(tmp_path) == before
        assert sink.files == {}


def test_odd_but_harmless_names_are_kept(tmp_path):
    names = ["...", "..x", "a b", "[*?]", "é", "-rf", "$HOME", ".hidden"]
    with FolderSink(tmp_path / "out [1] *", force=False) as sink:
        for name in names:
            sink.write(name, name.encode())
        sink.publish()
    assert tree(tmp_path / "out [1] *") == {name: name.encode() for name in names}
    assert os.listdir(tmp_path) == ["out [1] *"]


def test_a_name_is_written_once(tmp_path):
    with FolderSink(tmp_path / "out", force=False) as sink:
        sink.make_dir("sub")
        sink.make_dir("sub")
        sink.write("file", b"first")
        for name in ("file", "sub"):
            with pytest.raises(OutputError, match=r"written before"):
                sink.write(name, b"second")
        with pytest.raises(OutputError, match="written before"):
            sink.make_dir("file")
        sink.publish()
    assert tree(tmp_path / "out") == {"file": b"first", "sub": None}


def test_many_threads_write(tmp_path):
    count, barrier = 300, threading.Barrier(2)

    def work(sink, thread, refused):
        barrier.wait()
        for i in range(count):
            sink.write(f"{thread}-{i}", bytes(i))
            try:
                sink.write(f"both-{i}", b"xyz")
            except OutputError:
                refused.append(i)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with FolderSink(tmp_path / "out", force=False) as sink:
            refused = []
            threads = [threading.Thread(target=work, args=(sink, name, refused)) for name in "ab"]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            sink.publish()
    finally:
        sys.setswitchinterval(interval)
    assert sorted(refused) == list(range(count))
    assert len(sink.files) == 3 * count
    assert sink.bytes_written == count * (count - 1) + 3 * count == sum(sink.files.values())


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o002])
def test_permissions_follow_the_umask(tmp_path, mask):
    previous = os.umask(mask)
    try:
        with FolderSink(tmp_path / "parent" / "out", force=False) as sink:
            fill(sink)
            sink.publish()
    finally:
        os.umask(previous)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "parent").rglob("*")}
    folder, file = 0o777 & ~mask, 0o666 & ~mask
    assert modes == {"out": folder, "sub": folder, "data.bin": file, "manifest.json": file}
    assert stat.S_IMODE((tmp_path / "parent").stat().st_mode) == folder


# --- verification ---------------------------------------------------------------------------


def staging_of(target):
    (staging,) = [path for path in target.parent.iterdir() if path.is_dir() and path.name.startswith(".out.atlas")]
    return staging / "files"


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json .written: 3 bytes, on disk: no such file"),
        (lambda folder: (folder / "manifest.json").write_bytes(b"ne"), "manifest.json .written: 3 bytes, on disk: 2"),
        (lambda folder: (folder / "sub" / "new").write_bytes(b""), "sub/new .written: no such file, on disk: 0 bytes"),
        (lambda folder: (folder / "sub" / "link").symlink_to(".."), "sub/link .written: no such file"),
        (shutil.rmtree, "2 staged files differ"),
    ],
)
def test_verify_finds_every_difference(tmp_path, damage, named):
    before = make_old(tmp_path / "out")
    with FolderSink(tmp_path / "out", force=True) as sink:
        fill(sink)
        sink.verify()
        damage(staging_of(tmp_path / "out"))
        with pytest.raises(OutputError, match=named):
            sink.publish()
    assert tree(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_verify_names_only_the_first_few(tmp_path):
    with FolderSink(tmp_path / "out", force=False) as sink:
        for i in range(20):
            (staging_of(tmp_path / "out") / f"stray{i:02}").touch()
        with pytest.raises(OutputError, match=r"20 staged files differ.*stray04.* and 15 more"):
            sink.verify()


# --- a target that changes meanwhile --------------------------------------------------------


def test_a_target_that_appeared_is_not_replaced_without_force(tmp_path):
    with FolderSink(tmp_path / "out", force=False) as sink:
        fill(sink)
        before = make_old(tmp_path / "out")
        with pytest.raises(OutputError, match=r"is not empty.*force=True"):
            sink.publish()
    assert tree(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_a_target_that_appears_at_the_last_moment_is_not_replaced(tmp_path, monkeypatch):
    rename = fs.rename
    before = {}

    def late(old, new):
        before.update(make_old(new))
        rename(old, new)

    monkeypatch.setattr(fs, "rename", late)
    with pytest.raises(OutputError, match="cannot be published"):
        export(tmp_path / "out")
    assert tree(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_a_full_target_is_refused_on_entering(tmp_path):
    before = make_old(tmp_path / "out")
    with pytest.raises(OutputError) as caught, FolderSink(tmp_path / "out", force=False):
        pytest.fail("entered")
    message = f"{tmp_path / 'out'}: is not empty → pass force=True (--force) to replace it, or choose another folder"
    assert str(caught.value) == message
    assert tree(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_file_or_link_that_appeared_is_not_replaced(tmp_path, force, kind):
    before = make_old(tmp_path / "other")
    with FolderSink(tmp_path / "out", force=force) as sink:
        fill(sink)
        if kind == "link":
            (tmp_path / "out").symlink_to("other")
        else:
            (tmp_path / "out").write_text("x")
        with pytest.raises(OutputError, match=f"{tmp_path / 'out'}:"):
            sink.publish()
    assert sorted(os.listdir(tmp_path)) == ["other", "out"]
    assert (tmp_path / "out").is_symlink() == (kind == "link")
    assert tree(tmp_path / "other") == before


# --- faults ---------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("nth", [1, 2, 3])
def test_a_failing_write_leaves_the_target_alone(tmp_path, monkeypatch, number, nth):
    before = make_old(tmp_path / "out")
    write, calls = os.write, []

    def failing(descriptor, content):
        calls.append(1)
        if len(calls) < nth:
            return write(descriptor, content)
        write(descriptor, content[:1])
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "write", failing)
    with FolderSink(tmp_path / "out", force=True) as sink:
        for i in range(nth - 1):
            sink.write(f"file{i}", bytes(1024))
        with pytest.raises(OutputError) as caught:
            sink.write(f"file{nth - 1}", bytes(1024))
        with pytest.raises(OutputError, match="differ"):  # a failed write cannot be overlooked
            sink.publish()
    message = str(caught.value)
    assert str(tmp_path / "out" / f"file{nth - 1}") in message
    assert os.strerror(number) in message
    full = number != errno.EIO
    assert (f"{nth} KiB needed" in message) == full
    assert ("free space" in message) == full
    assert caught.value.__cause__.errno == number
    assert tree(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.parametrize("failing", ["write_file", "rename", "sync_tree", "sync_dir", "file_sizes"])
@pytest.mark.usefixtures("no_exchange")
def test_any_failing_primitive_leaves_a_whole_export_and_nothing_else(tmp_path, monkeypatch, failing):
    before = make_old(tmp_path / "new parent" / "out")
    monkeypatch.setattr(fs, failing, fail(errno.EIO))
    with pytest.raises(OutputError) as caught:
        export(tmp_path / "new parent" / "out")
    assert str(tmp_path / "new parent" / "out") in str(caught.value)
    assert os.strerror(errno.EIO) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    published = failing == "sync_dir"
    assert ("is in place and complete" in str(caught.value)) == published
    assert tree(tmp_path / "new parent" / "out") == (NEW if published else before)
    assert os.listdir(tmp_path / "new parent") == ["out"]


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no"), KeyboardInterrupt()])
@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("done", [False, True])
@pytest.mark.usefixtures("no_exchange")
def test_two_step_publishing_rolls_back(tmp_path, monkeypatch, error, nth, done):
    """The nth rename fails, or is interrupted after it was done; every later one works."""
    before = make_old(tmp_path / "out")
    rename, calls = fs.rename, []

    def failing(old, new):
        calls.append(1)
        if len(calls) != nth or done:
            rename(old, new)
        if len(calls) == nth:
            raise error

    monkeypatch.setattr(fs, "rename", failing)
    with FolderSink(tmp_path / "out", force=True) as sink:
        fill(sink)
        with pytest.raises((OutputError, KeyboardInterrupt)):
            sink.publish()
        expected = NEW if done and nth == 2 else before
        assert tree(tmp_path / "out") == expected  # at once, not only on leaving
    assert tree(tmp_path / "out") == expected
    assert os.listdir(tmp_path) == ["out"]


@pytest.mark.usefixtures("no_exchange")
def test_an_old_export_that_cannot_be_rolled_back_is_kept_for_the_next_run(tmp_path, monkeypatch):
    before = make_old(tmp_path / "out")
    rename = fs.rename

    def failing(old, new):
        if new.name == "out":
            raise OSError(errno.EIO, "no")
        rename(old, new)

    monkeypatch.setattr(fs, "rename", failing)
    with pytest.raises(OutputError):
        export(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(fs, "rename", rename)
    with FolderSink(tmp_path / "out", force=True):
        assert tree(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_a_swap_that_fails_otherwise_is_an_error(tmp_path, monkeypatch):
    before = make_old(tmp_path / "out")
    monkeypatch.setattr(fs, "exchange", fail(errno.EBUSY))
    with pytest.raises(OutputError, match="cannot be published"):
        export(tmp_path / "out")
    assert tree(tmp_path / "out") == before


def test_an_old_tree_that_cannot_be_deleted_is_no_failure(tmp_path, monkeypatch, caplog):
    make_old(tmp_path / "out")
    remove = fs.remove_tree
    monkeypatch.setattr(fs, "remove_tree", fail(errno.EBUSY))
    export(tmp_path / "out")
    assert tree(tmp_path / "out") == NEW
    assert "left over" in caplog.text
    assert len(os.listdir(tmp_path)) == 2
    monkeypatch.setattr(fs, "remove_tree", remove)
    with FolderSink(tmp_path / "out", force=True):
        assert len(os.listdir(tmp_path)) == 3  # target, lock, own staging: the leftover is gone
    assert os.listdir(tmp_path) == ["out"]


def test_failing_to_prepare_is_an_output_error(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "mkdir", fail(errno.EROFS))
    with pytest.raises(OutputError, match="cannot be prepared"), FolderSink(tmp_path / "a" / "out", force=False):
        pytest.fail("entered")
    assert os.listdir(tmp_path) == []


def test_publishing_syncs_before_and_after(tmp_path, monkeypatch):
    calls = []
    for name in ("sync_tree", "exchange", "rename", "sync_dir", "remove_tree"):
        original = getattr(fs, name)
        monkeypatch.setattr(
            fs, name, lambda *args, name=name, original=original: (calls.append((name, args[-1])), original(*args))[1]
        )
    target = tmp_path / "a" / "b" / "out"
    with FolderSink(target, force=False) as sink:
        fill(sink)
        sink.publish()
    assert [name for name, _ in calls] == ["sync_tree", "rename", *["sync_dir"] * 3, "remove_tree"]
    assert {path for name, path in calls if name == "sync_dir"} == {target.parent, target.parent.parent, tmp_path}
    calls.clear()
    export(target)
    names = [name for name, _ in calls if name != "rename"]  # where exchange is impossible there are renames too
    assert names == ["sync_tree", "exchange", "sync_dir", "remove_tree"]


# --- leftovers ------------------------------------------------------------------------------


def test_leftovers_of_dead_runs_are_removed_and_nothing_else(tmp_path):
    mine = [".out.atlaswriter-0123abcd", ".out.atlaswriter-old-0123abcd"]
    others = [
        ".out.atlaswriter-0123abcd.bak",
        ".out2.atlaswriter-0123abcd",
        "out.atlaswriter-0123abcd",
        ".out.atlaswriter-0123abcg",
        ".out.atlaswriter-x",
    ]
    before = make_old(tmp_path / "out")
    for name in mine + others:
        make_old(tmp_path / name)
    (tmp_path / ".out.atlaswriter.lock").touch()
    with FolderSink(tmp_path / "out", force=True):
        assert not any((tmp_path / name).exists() for name in mine)
    assert sorted(os.listdir(tmp_path)) == sorted(["out", *others])
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("empty", [False, True])
def test_an_export_set_aside_comes_back(tmp_path, empty):
    before = make_old(tmp_path / ".out.atlaswriter-old-00000001")
    if empty:
        (tmp_path / "out").mkdir()
    with FolderSink(tmp_path / "out", force=True):
        assert tree(tmp_path / "out") == before
    assert tree(tmp_path / "out") == before
    assert os.listdir(tmp_path) == ["out"]


def test_an_export_that_came_back_is_not_replaced_without_force(tmp_path):
    before = make_old(tmp_path / ".out.atlaswriter-old-00000001")
    assert problems_of(tmp_path / "out") == []
    with pytest.raises(OutputError, match="is not empty"), FolderSink(tmp_path / "out", force=False):
        pytest.fail("entered")
    assert tree(tmp_path / "out") == before


def test_the_newest_export_set_aside_comes_back(tmp_path):
    for name, text in ((".out.atlaswriter-old-ffffffff", "older"), (".out.atlaswriter-old-00000000", "newer")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(text)
        for _ in range(50):  # the clock of the file system ticks every few ms
            os.utime(tmp_path / name)
            threading.Event().wait(0.001)
    with FolderSink(tmp_path / "out", force=True):
        pass
    assert (tmp_path / "out" / "file").read_text() == "newer"


def test_a_link_under_a_staging_name_is_not_followed(tmp_path, caplog):
    before = make_old(tmp_path / "precious")
    (tmp_path / ".out.atlaswriter-0123abcd").symlink_to("precious")
    with FolderSink(tmp_path / "out", force=False) as sink:
        fill(sink)
        sink.publish()
    assert tree(tmp_path / "precious") == before
    assert "cannot be deleted" in caplog.text


# --- one writer -----------------------------------------------------------------------------

HOLDER = """
import sys
from pathlib import Path
from atlaswriter.sinks.folder import FolderSink
with FolderSink(Path(sys.argv[1]), force=True) as sink:
    sink.write("file", b"first")
    print("holding", flush=True)
    sys.stdin.readline()
    sink.publish()
"""


def test_a_second_writer_is_refused_while_the_first_one_lives(tmp_path):
    target = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, target], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "holding\n"
        before = tree(tmp_path)
        for _ in range(2):  # being refused must not break the lock
            with pytest.raises(OutputError, match="another process is writing"), FolderSink(target, force=True):
                pytest.fail("entered")
        assert tree(tmp_path) == before
        first.communicate("go on\n")
    assert first.returncode == 0
    assert tree(target) == {"file": b"first"}
    export(target)
    assert tree(target) == NEW
    assert os.listdir(tmp_path) == ["out"]


def test_a_second_writer_in_the_same_process_is_refused(tmp_path):
    with FolderSink(tmp_path / "out", force=True) as sink:
        with pytest.raises(OutputError, match="another process is writing"), FolderSink(tmp_path / "out", force=True):
            pytest.fail("entered")
        with FolderSink(tmp_path / "out2", force=True):
            pass
        fill(sink)
        sink.publish()
    assert tree(tmp_path / "out") == NEW


@posix
def test_a_lock_file_deleted_by_its_last_holder_is_not_trusted(tmp_path, monkeypatch):
    path, real, calls = tmp_path / "lock", lock._lock, []

    def slow(descriptor):
        calls.append(descriptor)
        if len(calls) == 1:  # between open and lock, the last holder ends and another process begins
            path.unlink()
            path.touch()
        if len(calls) == 2:
            path.unlink()
        real(descriptor)

    monkeypatch.setattr(lock, "_lock", slow)
    first = lock.WriterLock(path, tmp_path / "out")
    first.acquire()
    assert len(calls) == 3
    with pytest.raises(OutputError, match="another process"):
        lock.WriterLock(path, tmp_path / "out").acquire()
    first.release()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP])
def test_without_locks_the_work_goes_on_and_spares_what_may_be_alive(tmp_path, monkeypatch, caplog, number):
    before = make_old(tmp_path / ".out.atlaswriter-old-00000001")
    make_old(tmp_path / ".out.atlaswriter-0123abcd")
    monkeypatch.setattr(lock, "_lock", fail(number))
    monkeypatch.setattr(fs, "exchange", lambda first, second: False)
    with FolderSink(tmp_path / "out", force=True) as sink:
        assert tree(tmp_path / "out") == before
        fill(sink)
        sink.publish()
    assert "no file locks here" in caplog.text
    assert "left over" not in caplog.text
    assert tree(tmp_path / "out") == NEW
    assert sorted(os.listdir(tmp_path)) == [".out.atlaswriter-0123abcd", "out"]


def test_other_lock_errors_are_not_hidden(tmp_path, monkeypatch):
    monkeypatch.setattr(lock, "_lock", fail(errno.EIO))
    with pytest.raises(OutputError, match="cannot be prepared"), FolderSink(tmp_path / "out", force=True):
        pytest.fail("entered")


# --- primitives -----------------------------------------------------------------------------


def test_located_resolves_all_but_a_link_in_the_last_place(tmp_path, monkeypatch):
    (tmp_path / "real" / "deep").mkdir(parents=True)
    (tmp_path / "link").symlink_to("real/deep")
    monkeypatch.chdir(tmp_path)
    assert fs.located(Path("link")) == tmp_path / "link"
    assert fs.located(Path("link/out")) == tmp_path / "real" / "deep" / "out"
    assert fs.located(Path("link/../out")) == tmp_path / "real" / "out"
    assert fs.located(Path("link/..")) == tmp_path / "real"
    assert fs.located(Path()) == tmp_path


def test_exchange_swaps_or_changes_nothing(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    swapped = fs.exchange(tmp_path / "a", tmp_path / "b")
    assert os.listdir(tmp_path / "a") == (["b"] if swapped else ["a"])
    assert os.listdir(tmp_path / "b") == (["a"] if swapped else ["b"])


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_exchange_works_on_linux_and_names_what_is_missing(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    if not fs.exchange(tmp_path / "a", tmp_path / "b"):
        pytest.skip("this file system cannot exchange")
    with pytest.raises(FileNotFoundError, match="absent"):
        fs.exchange(tmp_path / "a", tmp_path / "absent")


def test_exchange_says_no_where_the_system_cannot(tmp_path, monkeypatch):
    monkeypatch.setattr(fs, "_from_libc", lambda name: None)
    assert fs.exchange(tmp_path / "a", tmp_path / "b") is False


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_sync_tree_is_one_call_on_linux(tmp_path, monkeypatch):
    make_old(tmp_path / "out")
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    monkeypatch.setattr(fs, "_kernel", lambda: (5, 8))
    fs.sync_tree(tmp_path / "out")
    with pytest.raises(FileNotFoundError):
        fs.sync_tree(tmp_path / "absent")


@posix
@pytest.mark.parametrize("why", ["old kernel", "no function"])
def test_sync_tree_falls_back_to_every_file_and_folder(tmp_path, monkeypatch, why):
    make_old(tmp_path / "out")
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    if why == "old kernel":
        monkeypatch.setattr(fs, "_kernel", lambda: (5, 7))
    else:
        monkeypatch.setattr(fs, "_from_libc", lambda name: None)
    fs.sync_tree(tmp_path / "out")
    every = [tmp_path / "out", *(tmp_path / "out").rglob("*")]
    assert sorted(synced) == sorted(path.stat().st_ino for path in every)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux only")
def test_sync_tree_reports_write_back_errors(tmp_path, monkeypatch):
    def broken(descriptor):
        fs.ctypes.set_errno(errno.EIO)
        return -1

    monkeypatch.setattr(fs, "_from_libc", lambda name: broken)
    monkeypatch.setattr(fs, "_kernel", lambda: (6, 1))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        fs.sync_tree(tmp_path)


@posix
def test_sync_dir_forgives_only_what_cannot_be_done(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fail(errno.EINVAL))
    fs.sync_dir(tmp_path)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        fs.sync_dir(tmp_path)


@pytest.mark.parametrize("sensitive", [True, False])
def test_case_sensitivity_is_read_from_the_file_system(tmp_path, monkeypatch, sensitive):
    real = os.path.lexists
    if not sensitive:
        monkeypatch.setattr(os.path, "lexists", lambda path: any(real(p) for p in (path, str(path).lower())))
        monkeypatch.setattr(fs, "nearest_existing", lambda path: tmp_path)
    elif real(str(tmp_path).swapcase()):
        pytest.skip("this file system is not case-sensitive")
    probed = []
    mkstemp = tempfile.mkstemp
    monkeypatch.setattr(tempfile, "mkstemp", lambda **options: probed.append(options["dir"]) or mkstemp(**options))
    (tmp_path / "out").mkdir()
    assert fs.case_sensitive(tmp_path / "absent" / "deep" / "out") is sensitive
    assert fs.case_sensitive(tmp_path / "out") is sensitive
    assert probed == [tmp_path, tmp_path]  # a new folder is created in the parent, also if it replaces one
    assert tree(tmp_path) == {"out": None}


def test_case_sensitivity_of_an_unwritable_place_is_not_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "mkstemp", lambda **options: fail(errno.EACCES)())
    assert fs.case_sensitive(tmp_path / "out") is True
