"""Pieces of work whose results are kept: done once, written down, and not done again.

A unit writes some files and has a result in plain values. What an export is made of is the union of its units' files,
and manifests that are made of their results, whoever has done them and when.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from atlaswriter.engine.run import Team
from atlaswriter.sinks.files import Files, Recorder
from atlaswriter.sinks.journal import Entry, Journal
from atlaswriter.sinks.staging import failing_as
from atlaswriter.units import peak_memory

# Writes some files, and returns plain values.
Write = Callable[[Files], Any]


@dataclass(frozen=True)
class Unit:
    """A piece of work.

    Attributes
    ----------
    name
        Its name, which no other unit of the export has.
    what
        What it is about, for messages.
    write
        Does it.
    memory
        Bytes it takes.
    bytes_in, bytes_out
        Bytes it reads and writes, about.
    alone
        Whether it uses all threads and draws its memory itself, so that others wait until it is done.
    """

    name: str
    what: str
    write: Write
    memory: int
    bytes_in: int = 0
    bytes_out: int = 0
    alone: bool = False


def _nothing(names: list[str]) -> None:
    del names


class Work:
    """Does units.

    Parameters
    ----------
    team
        Threads.
    files
        Where files go.
    journal
        Where it is written down; None: nowhere.
    done
        What was done before.
    settle
        Called with the names of a unit's files before it is written down, to bring them to disk.

    Attributes
    ----------
    results
        Result of every unit that is done, by its name.
    """

    def __init__(
        self,
        team: Team,
        files: Files,
        journal: Journal | None = None,
        done: Mapping[str, Entry] | None = None,
        settle: Callable[[list[str]], None] = _nothing,
    ) -> None:
        self.team, self.files = team, files
        self._journal, self._settle = journal, settle
        self.results: dict[str, Any] = {name: entry.result for name, entry in (done or {}).items()}

    def do(self, units: Iterable[Unit]) -> None:
        """Do all units; those that are done already are left out."""
        for unit in units:
            if unit.name in self.results:
                continue
            if unit.alone:
                self.team.wait()
                self.perform(unit.name, unit.write)
            else:
                self.submit(unit)
        self.team.wait()

    def submit(self, unit: Unit) -> None:
        """Start a unit once its memory is free, unless it is done already."""
        if unit.name not in self.results:
            self.team.submit(self.perform, unit.name, unit.write, memory=unit.memory, what=unit.what)

    def perform(self, name: str, write: Write) -> None:
        """Do a unit in this thread."""
        if self._journal is None:
            self.results[name] = write(self.files)
            return
        began, used = time.perf_counter(), time.process_time()
        recorder = Recorder(self.files)
        result = write(recorder)
        self._settle(list(recorder.written))
        cost = {
            "host": socket.gethostname(),
            "seconds": time.perf_counter() - began,
            "process_cpu_seconds": time.process_time() - used,
            "peak_memory": peak_memory(),
        }
        with failing_as("cannot be written down in the journal", self.files.target, 0, "folder"):
            self._journal.add(Entry(name, recorder.written, result, cost))
        self.results[name] = result
