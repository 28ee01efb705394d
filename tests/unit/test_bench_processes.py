"""Processes that `atlaswriter bench` measures: what they cost, how they fail, and that none outlives it."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from atlaswriter.bench import launch, process, signals
from atlaswriter.errors import BudgetError, InputError, OutputError

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


def test_a_process_is_measured(tmp_path):
    code = "import json; held = bytearray(b'x') * (60 << 20); print(json.dumps({'size': len(held)}))"
    cost = process.measured([sys.executable, "-c", code], what="it", folder=tmp_path)
    assert cost["result"] == {"size": 60 << 20}
    assert 60 << 20 < cost["peak_bytes"] < 160 << 20
    assert cost["cpu_seconds"] > 0
    assert 0 < cost["seconds"] < 60
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        ("import sys; sys.stderr.write('too bad'); sys.exit(3)", InputError, "it: too bad"),
        ("import sys; sys.stderr.write('too bad'); sys.exit(4)", BudgetError, "it: too bad"),
        ("import sys; sys.stderr.write('too bad'); sys.exit(5)", OutputError, "it: too bad"),
        ("import sys; sys.exit(9)", process.MeasurementError, "it ended with exit code 9: nothing was said"),
        ("print('no JSON')", process.MeasurementError, "it did not say what it did"),
    ],
    ids=["input", "budget", "output", "other", "no answer"],
)
def test_processes_that_fail(tmp_path, code, error, text):
    with pytest.raises(error, match=text):
        process.measured([sys.executable, "-c", code], what="it", folder=tmp_path)


def test_programs_that_are_not_there(tmp_path):
    with pytest.raises(process.MeasurementError, match="could not be started"):
        process.measured([str(tmp_path / "gone")], what="it", folder=tmp_path)


def alive(pid):
    """Whether a process runs; where nobody takes care of orphans, dead ones stay as zombies."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(found, seconds=60):
    """What a function finds at last."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := found():
            return result
        time.sleep(0.01)
    raise TimeoutError


# A process that takes no notice of SIGTERM, and has one of its own.
DEAF = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = os.fork()
if child:
    with open(sys.argv[1] + ".new", "w") as file: file.write(f"{os.getpid()} {child}")
    os.rename(sys.argv[1] + ".new", sys.argv[1])
time.sleep(60)
"""


@on_linux
@pytest.mark.parametrize("code", ["import time; time.sleep(60)", DEAF], ids=["ends", "must be killed"])
def test_interrupting_ends_all_that_was_started(tmp_path, monkeypatch, code):
    pids = tmp_path / "pids"
    tell = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()));"
    command = [sys.executable, "-c", code if code is DEAF else tell + code, str(pids)]
    monkeypatch.setattr(process, "_SECONDS_TO_STOP", 0.2)
    wait = process.subprocess.Popen.wait

    def interrupted(self, timeout=None):
        if timeout is None:
            wait_for(lambda: pids.exists() and pids.read_text())
            raise KeyboardInterrupt
        return wait(self, timeout)

    monkeypatch.setattr(process.subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        process.measured(command, what="it", folder=tmp_path)
    started = [int(pid) for pid in pids.read_text().split()]
    assert len(started) == (2 if code is DEAF else 1)
    assert not any(map(alive, started))
    assert [path.name for path in tmp_path.iterdir()] == ["pids"]


@on_linux
def test_a_signal_while_a_process_is_started_ends_it(tmp_path, monkeypatch):
    started = []

    class Popen(process.subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self.pid)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(process.subprocess, "Popen", Popen)
    with pytest.raises(KeyboardInterrupt):
        process.measured([sys.executable, "-c", "import time; time.sleep(60)"], what="it", folder=tmp_path)
    assert len(started) == 1
    assert not alive(started[0])
    assert list(tmp_path.iterdir()) == []


@on_linux
def test_the_launcher_passes_on_what_came_before_its_child(tmp_path):
    command = [sys.executable, "-I", "-S", launch.__file__, str(tmp_path / "cost"), "sleep", "60"]
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # which it inherits
    try:
        started = subprocess.Popen(command)
        started.terminate()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    assert started.wait(30) == 0
    cost = json.loads((tmp_path / "cost").read_text())
    assert cost["exit_code"] == -signal.SIGTERM
    assert cost["seconds"] < 30


@on_linux
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_process_are_raised(name):
    number = getattr(signal, name)
    before = signal.signal(number, signal.SIG_DFL)  # a test run may ignore it
    with pytest.raises(SystemExit) as raised, signals.ending_cleanly():
        signal.raise_signal(number)
    assert raised.value.code == 128 + number
    seen = []

    def work():
        with signals.ending_cleanly():
            with signals.held():
                signal.raise_signal(number)
                seen.append("not yet")
            seen.append("too late")

    with pytest.raises(SystemExit):
        work()
    assert seen == ["not yet"]
    signal.signal(number, signal.SIG_IGN)  # as nohup does
    try:
        with signals.ending_cleanly(), signals.held():
            signal.raise_signal(number)
        assert signal.getsignal(number) is signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_other_threads_are_not_interrupted():
    def work():
        with signals.ending_cleanly(), signals.held():
            return 5

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(work).result() == 5


def sessions_of(folder):
    """Process numbers of the launchers that report below a folder, and of all that run in their sessions."""
    pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    launchers, found = set(), {}
    for pid in filter(alive, pids):
        with contextlib.suppress(OSError):
            found[pid] = os.getsid(pid)
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if os.fsencode(launch.__file__) in words and any(os.fsencode(folder) in word for word in words):
                launchers.add(pid)
    return {pid for pid, session in found.items() if session in launchers}


@on_linux
def test_a_command_that_is_told_to_end_leaves_nothing(tmp_path):
    words = ["--cells", "200", "--genes", "5", "--sizes", "1", "--transcripts", "0", "--folder", str(tmp_path)]
    code = "from atlaswriter.cli.main import main; main()"
    bench = subprocess.Popen([sys.executable, "-c", code, "bench", *words], stdout=subprocess.PIPE)
    try:
        running = wait_for(lambda: len(found := sessions_of(tmp_path)) > 1 and found)
        assert list(tmp_path.iterdir()) != []
        bench.terminate()
        assert bench.communicate(timeout=60) == (b"", None)
    finally:
        bench.kill()
        bench.wait()
    assert bench.returncode == 143
    assert not any(map(alive, running | sessions_of(tmp_path)))
    assert list(tmp_path.iterdir()) == []
