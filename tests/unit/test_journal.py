"""The journal proves what is done, and nothing else."""

import json
import os
import threading

import pytest

from atlaswriter.codecs.crc import crc32
from atlaswriter.sinks.files import Recorder
from atlaswriter.sinks.folder import FolderSink
from atlaswriter.sinks.journal import Entry, Journal, as_written, unproven


@pytest.fixture
def files(tmp_path):
    """A folder with two files, and what the journal says of them."""
    folder = tmp_path / "files"
    (folder / "inner").mkdir(parents=True)
    (folder / "a").write_bytes(b"content")
    (folder / "inner" / "b").write_bytes(b"")
    return folder, {"a": (7, crc32(b"content")), "inner/b": (0, 0)}


@pytest.fixture
def journal(tmp_path):
    with_journal = Journal(tmp_path / "journal")
    yield with_journal
    with_journal.close()


def test_what_is_added_is_found(files, journal, tmp_path):
    folder, sizes = files
    assert journal.entries() == []
    assert journal.proven(folder, read=True) == {}
    entry = Entry("one", sizes, {"bounds": [0.1, 1e300], "text": "ä\n"}, {"seconds": 1.5})
    journal.add(entry)
    journal.add(Entry("two", {}))
    assert journal.proven(folder, read=True) == {"one": entry, "two": Entry("two", {})}
    assert Journal(tmp_path / "journal").proven(folder, read=False).keys() == {"one", "two"}
    assert as_written(folder, ["a", "inner/b"]) == sizes


def test_what_cannot_be_plain_is_refused(journal):
    for result in (float("nan"), float("inf"), {1, 2}, b"x"):
        with pytest.raises((TypeError, ValueError)):
            journal.add(Entry("one", {}, result))
    assert journal.entries() == []


@pytest.mark.parametrize("how", ["cut", "longer", "gone", "folder", "link", "altered", "dangling"])
def test_files_that_are_not_as_they_were_prove_nothing(how, files, journal, tmp_path):
    folder, sizes = files
    path, journal_sees = folder / "a", how != "altered"
    journal.add(Entry("one", sizes))
    journal.add(Entry("other", {"inner/b": (0, 0)}))
    path.unlink()
    if how == "folder":
        path.mkdir()
    elif how in ("link", "dangling"):
        (tmp_path / "elsewhere").write_bytes(b"content")
        path.symlink_to(tmp_path / ("elsewhere" if how == "link" else "nowhere"))
    elif how != "gone":
        path.write_bytes({"cut": b"conten", "longer": b"content ", "altered": b"Content"}[how])
    assert journal.proven(folder, read=True).keys() == {"other"}
    assert journal.proven(folder, read=False).keys() == ({"other"} if journal_sees else {"one", "other"})
    assert unproven(Entry("one", sizes), folder, read=True) == ["a"]


def test_work_that_was_done_twice_counts_if_one_line_holds(files, journal):
    folder, sizes = files
    journal.add(Entry("one", {"a": (8, 1)}))
    journal.add(Entry("one", sizes, "second"))
    journal.add(Entry("one", sizes, "third"))
    assert journal.proven(folder, read=True)["one"].result == "second"
    wanted = journal.proven(folder, read=True, also=lambda entry: entry.result == "third")
    assert wanted["one"].result == "third"


def line(**values):
    return json.dumps({"work": "bad", "files": {}, "result": None, "cost": {}, **values}).encode()


LINES = {
    "torn": line()[:-1],
    "empty": b"",
    "no JSON": b"work",
    "no UTF-8": b'{"work": "\xff"}',
    "zeros": bytes(100),  # what a file system leaves where nothing was written before the power went
    "list": b"[]",
    "number": b"1",
    "deep": b"[" * 200_000,
    "no work": b'{"files": {}, "result": 0, "cost": {}}',
    "no files": line(files=None),
    "one number": line(files={"a": [1]}),
    "text": line(files={"a": ["x", "y"]}),
    "infinite": b'{"work": "bad", "files": {"a": [1e999, 0]}, "result": 0, "cost": {}}',
    "no number": b'{"work": "bad", "files": {"a": [NaN, 0]}, "result": 0, "cost": {}}',
    "no cost": line(cost=3),
    "above": line(files={"../a": [7, 0]}),
    "absolute": line(files={"/etc/passwd": [7, 0]}),
    "within": line(files={"inner/../../a": [7, 0]}),
    "here": line(files={"./a": [7, 0]}),
    "drive": line(files={"C:a": [7, 0]}),
    "backslash": line(files={"..\\a": [7, 0]}),
    "NUL": line(files={"a\0": [7, 0]}),
    "no name": line(files={"": [7, 0]}),
}


@pytest.mark.parametrize("bad", LINES.values(), ids=LINES)
def test_damaged_lines_prove_nothing_and_hide_nothing(bad, files, journal, tmp_path):
    folder, sizes = files
    journal.add(Entry("one", sizes))
    with next((tmp_path / "journal").iterdir()).open("ab") as file:
        file.write(bad + b"\n")
    journal.add(Entry("two", sizes))
    assert [entry.work for entry in journal.entries()] == ["one", "two"]
    assert journal.proven(folder, read=True).keys() == {"one", "two"}


def test_a_line_that_is_not_finished_proves_nothing(files, journal, tmp_path):
    _, sizes = files
    journal.add(Entry("one", sizes))
    path = next((tmp_path / "journal").iterdir())
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        assert journal.entries() == []


def test_other_files_in_the_journal_do_no_harm(files, journal, tmp_path):
    folder, sizes = files
    journal.add(Entry("one", sizes))
    (tmp_path / "journal" / "notes.txt").write_bytes(line() + b"\n")
    (tmp_path / "journal" / "folder").mkdir()
    assert journal.proven(folder, read=True).keys() == {"one"}


def test_many_threads_and_journals(files, tmp_path):
    journals = [Journal(tmp_path / "journal", durable=bool(number)) for number in range(2)]

    def add(own, first):
        for number in range(first, first + 50):
            own.add(Entry(str(number), {}, "x" * 5000))

    threads = [threading.Thread(target=add, args=(journals[k % 2], 50 * k)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {entry.work for entry in journals[0].entries()} == {str(number) for number in range(200)}
    assert len(os.listdir(tmp_path / "journal")) == 2
    for own in journals:
        own.close()
        own.close()


def test_a_recorder_notes_what_is_on_disk(tmp_path):
    with FolderSink(tmp_path / "out", force=False) as sink:
        recorder = Recorder(sink)
        recorder.make_dir("inner")
        assert recorder.write("a", b"one", b"", memoryview(b"two")) == 6
        with recorder.create("inner/b") as write:
            for part in (b"three", b"", b"four"):
                write(part)
        with pytest.raises(TypeError), recorder.create("c") as write:
            write("five")
        assert recorder.target == sink.target
        assert recorder.scratch() == sink.scratch()
        assert recorder.written == as_written(sink.staged, ["a", "inner/b"])
        assert unproven(Entry("all", recorder.written), sink.staged, read=True) == []
