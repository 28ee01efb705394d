"""What of a run is done, and the proof: a line for each piece of work, with size and CRC-32 of its files.

A line is written when its files are. Every process has a file of its own, so that nobody waits for anybody, and a
process that is killed leaves at most one line that ends too early, which counts for nothing. Work that was done twice
has two lines, which are of the same content.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from atlaswriter.codecs.crc import crc32
from atlaswriter.sinks import fs
from atlaswriter.sinks.staging import leads_elsewhere

_READ_BYTES = 1 << 20
# What a line raises that was damaged, which proves nothing.
_DAMAGED = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


@dataclass(frozen=True)
class Entry:
    """One piece of work that is done.

    Attributes
    ----------
    work
        Its name.
    files
        Bytes and CRC-32 of each file, by its name in the export.
    result
        What is to be known of it later: plain values.
    cost
        What it took: plain values.
    """

    work: str
    files: Mapping[str, tuple[int, int]]
    result: Any = None
    cost: Mapping[str, Any] = field(default_factory=dict)


class Journal:
    """The journal of one run.

    Parameters
    ----------
    folder
        Where it is; made when the first line is written.
    durable
        Whether a line is on disk when `add` returns.
    """

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        self._folder, self._durable = folder, durable
        self._descriptor = -1
        self._guard = threading.Lock()

    def add(self, entry: Entry) -> None:
        """Write down what is done; several threads may. Raises `OSError`."""
        line = (json.dumps(asdict(entry), allow_nan=False) + "\n").encode()
        with self._guard:
            if self._descriptor < 0:
                self._folder.mkdir(exist_ok=True)
                name = f"{socket.gethostname()}-{os.getpid()}-{os.urandom(4).hex()}.jsonl"
                self._descriptor = fs.create(self._folder / name)
            fs.append(self._descriptor, line)
            if self._durable:
                os.fsync(self._descriptor)

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def entries(self) -> list[Entry]:
        """Everything that was written down, by any process."""
        found = []
        with suppress(FileNotFoundError):
            for path in sorted(self._folder.iterdir()):
                if path.suffix == ".jsonl":
                    found += list(_lines(path))
        return found

    def proven(self, folder: Path, *, read: bool, also: Callable[[Entry], bool] = bool) -> dict[str, Entry]:
        """Work whose files are as they were written.

        Parameters
        ----------
        folder
            Where they are.
        read
            Whether to compare every byte, by CRC-32, or sizes only.
        also
            What else must hold of an entry.
        """
        found: dict[str, Entry] = {}
        for entry in self.entries():
            if entry.work not in found and also(entry) and not unproven(entry, folder, read=read):
                found[entry.work] = entry
        return found


def _lines(path: Path) -> Iterator[Entry]:
    for line in path.read_bytes().split(b"\n")[:-1]:
        with suppress(*_DAMAGED):
            content = json.loads(line)
            files = {str(name): (int(size), int(crc)) for name, (size, crc) in content["files"].items()}
            if not any(leads_elsewhere(name) for name in files):
                yield Entry(str(content["work"]), files, content["result"], dict(content["cost"]))


def unproven(entry: Entry, folder: Path, *, read: bool) -> list[str]:
    """Files of an entry that are not there as they were written.

    Parameters
    ----------
    entry
        What says how they were written.
    folder
        Where they are.
    read
        Whether to compare every byte, by CRC-32, or sizes only.
    """
    return [name for name, (size, crc) in entry.files.items() if not _as_written(folder / name, size, crc, read=read)]


def as_written(folder: Path, names: Iterable[str]) -> dict[str, tuple[int, int]]:
    """Bytes and CRC-32 of files that are there, as of `Entry`; raises `OSError`."""
    return {name: ((folder / name).stat().st_size, _crc_of(folder / name)) for name in names}


def _as_written(path: Path, size: int, crc: int, *, read: bool) -> bool:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size != size:
            return False
        return not read or _crc_of(path) == crc
    except OSError:
        return False


def _crc_of(path: Path) -> int:
    crc = 0
    with path.open("rb", buffering=0) as file:
        while content := file.read(_READ_BYTES):
            crc = crc32(content, crc)
    return crc
