"""What the rules know of one project, and how they hand over what they find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from atlaswriter.codecs.crc import crc32
from atlaswriter.engine.run import Team
from atlaswriter.errors import InputError, Problem, Problems
from atlaswriter.findings import EXPORT_AGAIN, Findings
from atlaswriter.formats.deepcell import layout
from atlaswriter.sources.files import File
from atlaswriter.sources.members import Member, content_offset
from atlaswriter.sources.unpacked import Unpacker, inflated, stored_pieces
from atlaswriter.units import format_bytes

_COPY_AGAIN = "copy it again from where it was complete, or export again"


@dataclass
class Survey:
    """One project, as far as it is known.

    Attributes
    ----------
    file
        The zip.
    members
        What is in it, by name.
    unpacker
        Unpacks images that are deflated.
    team
        Threads.
    findings
        What was found so far.
    """

    file: File
    members: Mapping[str, Member]
    unpacker: Unpacker
    team: Team
    findings: Findings

    def content(self, name: str) -> bytes | None:
        """All bytes of a member; None when it is not there, or with a finding."""
        member = self.members.get(name)
        if member is None:
            return None
        if member.size > layout.MOST_TABLE_BYTES:
            found = (
                f"has {format_bytes(member.size)}, more than the {format_bytes(layout.MOST_TABLE_BYTES)} that are read"
            )
            self.findings.error("zip.size", name, found, "leave out what is not needed")
            return None
        with noting(self.findings, "zip.crc", name):
            return b"".join(_intact(self.file, member))
        return None

    def image(self, name: str) -> File | None:
        """A member that can be read at any place; None when it is not there, or with a finding."""
        member = self.members.get(name)
        if member is None:
            return None
        if member.deflated:
            return self._unpacked(member)
        with noting(self.findings, "zip.crc", name):
            verify(self.file, member)
            return self.file.part(content_offset(self.file, member), member.size, name)
        return None

    def _unpacked(self, member: Member) -> File | None:
        pieces = partial(_intact, self.file, member)
        with noting(self.findings, "zip.room", member.name):
            unpacking = self.unpacker.unpack(pieces, member.name, member.size, size=member.size)
            with noting(self.findings, "zip.crc", member.name):
                unpacking.wait()
                return unpacking.open()
        return None


def verify(file: File, member: Member) -> None:
    """Read a member from beginning to end.

    Raises
    ------
    InputError
        It is damaged.
    """
    for _ in _intact(file, member):
        pass


def _intact(file: File, member: Member) -> Iterator[bytes]:
    """Content of a member in pieces; `InputError` after the last one when size or CRC are not what the zip says."""
    part = file.part(content_offset(file, member), member.stored, member.name)
    size = crc = 0
    for piece in inflated(part) if member.deflated else stored_pieces(part):
        size, crc = size + len(piece), crc32(piece, crc)
        if size > member.size:
            break
        yield piece
    if (size, crc) != (member.size, member.crc):
        raise InputError(Problem(member.name, "is altered: its size or its CRC is not what the zip says", _COPY_AGAIN))


@contextmanager
def noting(findings: Findings, rule: str, file: str) -> Iterator[Problems]:
    """Turn problems, noted or raised, into errors of one rule."""
    problems = Problems()
    try:
        yield problems
    except InputError as error:
        problems.found.extend(error.problems)
    for problem in problems.found:
        found = problem.found if problem.where == file else f"{problem.where}: {problem.found}"
        findings.error(rule, file, found, problem.remedy or EXPORT_AGAIN)


@contextmanager
def warning_of(findings: Findings, rule: str, file: str) -> Iterator[list[str]]:
    """Turn warnings, which are problems as text, into findings of one rule."""
    warnings: list[str] = []
    yield warnings
    for text in warnings:
        found, _, remedy = text.removeprefix(f"{file}: ").partition(" → ")
        findings.warning(rule, file, found, remedy or EXPORT_AGAIN)
