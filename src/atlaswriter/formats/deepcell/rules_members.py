"""Rules of the zip: what is in it, and whether all of it can be taken out."""

from __future__ import annotations

from atlaswriter.codecs.ziprecords import COUNT_LIMIT, LIMIT
from atlaswriter.errors import InputError, Problem
from atlaswriter.findings import Findings
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.rules import Survey, noting, verify
from atlaswriter.sources.archives import archive_kind
from atlaswriter.sources.files import File
from atlaswriter.sources.members import Member, zip_members, zip_names

# Without any of these the client stops; the other two it does without.
_NEEDED = (layout.IMAGE, layout.LABELS, layout.CELLS, layout.DIVISIONS, layout.CELL_TYPES)
_KNOWN = {*_NEEDED, *layout.MEMBERS, *layout.EXPORTED}


def survey_members(file: File, findings: Findings) -> dict[str, Member] | None:
    """Members of the zip by name, and what is wrong with the list; None where there is none."""
    with noting(findings, "zip.unreadable", file.name):
        if archive_kind(file) != "zip":
            raise InputError(Problem(file.name, "is no zip file", "give a project"))
        names = zip_names(file)
        with noting(findings, "zip.member", file.name):
            members = {member.name: member for member in zip_members(file)}
            _survey_names(names, members, findings)
            _survey_size(file, members, findings)
            return members
    return None


def shown(name: str) -> str:
    """A name that others chose, as it can be printed."""
    return ascii(name)[1:-1]


def _survey_names(names: list[str], members: dict[str, Member], findings: Findings) -> None:
    """The client looks for names letter by letter, and takes everything that ends like one for an image."""
    for name in _NEEDED:
        if name not in names:
            findings.error("zip.missing", name, "is missing")
    images = [name for name in names if name.endswith(layout.OME_TIFF) and name not in _KNOWN]
    for name in images:
        found = f"ends in {layout.OME_TIFF}, so that the client takes it for an image of the project"
        findings.error("zip.image", shown(name), found, "remove it")
    for name in sorted(members.keys() - _KNOWN - set(images)):
        findings.warning("zip.unknown", shown(name), "is not known to the client", "remove it")


def _survey_size(file: File, members: dict[str, Member], findings: Findings) -> None:
    large = [one.name for one in members.values() if max(one.size, one.stored, one.offset) >= LIMIT]
    if large or len(members) >= COUNT_LIMIT:
        found = f"is beyond what a zip holds without Zip64 (4 GiB, 65,535 members): {', '.join(map(shown, large[:3]))}"
        findings.warning("zip.large", file.name, found, "the deployed client may refuse it: export fewer frames")


def survey_others(survey: Survey) -> None:
    """Members that the client does not read can be taken out too."""
    others = [survey.members[name] for name in sorted(survey.members.keys() - (_KNOWN - set(layout.EXPORTED)))]

    def read(member: Member) -> Findings:
        findings = Findings()
        with noting(findings, "zip.crc", shown(member.name)):
            verify(survey.file, member)
        return findings

    for findings in survey.team.in_order(read, others, memory=0, what="reading members"):
        survey.findings += findings
