"""Progress: a bar, lines or silence; from many threads."""

import logging
import sys
import threading

import pytest

from atlaswriter import progress
from atlaswriter.progress import Progress


class Terminal:
    """Standard error of a terminal."""

    def __init__(self):
        self.written = ""

    def isatty(self):
        return True

    def write(self, text):
        self.written += text

    def flush(self):
        pass


def work(shown, threads=4, steps=50):
    def add():
        for _ in range(steps):
            shown.add(10)

    with shown.phase("genes", threads * steps * 10):
        running = [threading.Thread(target=add) for _ in range(threads)]
        for thread in running:
            thread.start()
        for thread in running:
            thread.join()
    return shown._done


@pytest.fixture
def at_once(monkeypatch):
    monkeypatch.setattr(progress, "_BAR_DELAY_SECONDS", 0)
    monkeypatch.setattr(progress, "_SECONDS_BETWEEN_LINES", 0)


def test_bar_on_a_terminal(monkeypatch, at_once):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    assert work(Progress()) == 2000
    assert "genes" in terminal.written
    assert "\r" in terminal.written


def test_lines_elsewhere_when_asked_for(at_once, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="atlaswriter"):
        assert work(Progress(True)) == 2000
    assert len(caplog.messages) == 200
    assert caplog.messages[-1] == "genes: 1.95 KiB of 1.95 KiB (100 %)"
    assert capsys.readouterr().err == ""


def test_lines_are_rare(caplog):
    with caplog.at_level(logging.INFO, logger="atlaswriter"):
        work(Progress(True))
    assert caplog.messages == []


@pytest.mark.parametrize("show", [False, None])
def test_silent(show, at_once, caplog, capsys):
    with caplog.at_level(logging.INFO, logger="atlaswriter"):
        assert work(Progress(show)) == 2000
    captured = capsys.readouterr()
    assert (captured.out, captured.err, caplog.messages) == ("", "", [])


def test_silent_on_a_terminal_when_asked_for(monkeypatch, at_once):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    work(Progress(False))
    assert terminal.written == ""


def test_no_standard_error_at_all(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)
    assert work(Progress()) == 2000


def test_bar_is_closed_by_a_failure(monkeypatch, at_once):
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = Progress()
    with pytest.raises(KeyError), shown.phase("genes", 10):  # noqa: PT012
        bar = shown._bar
        raise KeyError
    assert shown._bar is None
    assert bar.disable


def test_empty_phase(at_once, caplog):
    shown = Progress(True)
    with caplog.at_level(logging.INFO, logger="atlaswriter"), shown.phase("nothing", 0):
        shown.add(0)
    assert caplog.messages == ["nothing: 0 B of 0 B (100 %)"]
