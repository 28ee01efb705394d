"""Verifying a DeepCell Label project: every rule that the client relies on, and every byte that it reads."""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from os import PathLike
from pathlib import Path

from atlaswriter.engine.budget import Budget
from atlaswriter.engine.run import Team
from atlaswriter.findings import SEVERITIES, CheckResult, Findings
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.rules import Survey, noting
from atlaswriter.formats.deepcell.rules_cells import survey_cells
from atlaswriter.formats.deepcell.rules_members import survey_members, survey_others
from atlaswriter.formats.deepcell.rules_tables import (
    survey_cell_types,
    survey_divisions,
    survey_embeddings,
    survey_spots,
)
from atlaswriter.formats.deepcell.rules_tiff import Surveyed, survey_image
from atlaswriter.sources.files import File
from atlaswriter.sources.unpacked import Unpacker
from atlaswriter.units import usable_cpus


def check(path: str | PathLike[str], *, workers: int | None = None) -> CheckResult:
    """Verify a project.

    Every member is read and compared with its CRC, every pixel is decoded. Images are looked at as the client's
    reader (Viv) finds and decodes them; cells, divisions, types, embeddings and spots are compared with the labels.
    Projects of the original server, its exports, and those written by other programs are understood. Never raises for
    anything that is in the file. Images that are deflated are unpacked to a temporary file.

    What cannot be found: an alteration for which the zip was written anew, and which leaves everything readable and as
    plausible as before, such as other pixels.

    Parameters
    ----------
    path
        The zip.
    workers
        Threads; by default one per usable CPU.

    Returns
    -------
    CheckResult
        Errors: the client stops, shows wrong data or loses some. Warnings: it does not mind, but the deployed one or
        an export by the original may. Its files are the members, its bytes theirs in the zip.
    """
    result, findings = CheckResult(str(path)), Findings()
    target = Path(path)
    if target.is_file():
        _check(target, result, findings, workers or usable_cpus())
    else:
        findings.error("zip.unreadable", target.name, "is not a file", "give the zip of a project")
    result.findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return result


def _check(path: Path, result: CheckResult, findings: Findings, workers: int) -> None:
    with ExitStack() as stack, noting(findings, "zip.unreadable", path.name):
        file = File(path, name=path.name)
        members = survey_members(file, findings)
        if members is None:
            return
        result.files, result.bytes = len(members), sum(member.stored for member in members.values())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atlaswriter-")))
        unpacker = stack.enter_context(Unpacker(lambda: scratch))
        team = stack.enter_context(Team(workers, Budget()))
        _survey(Survey(file, members, unpacker, team, findings))


def _survey(survey: Survey) -> None:
    image, labels = survey_image(survey, layout.IMAGE), survey_image(survey, layout.LABELS)
    _compare_sizes(survey, image, labels)
    cells = survey_cells(survey, labels)
    survey_divisions(survey, cells, labels)
    survey_cell_types(survey, cells, labels)
    survey_embeddings(survey, cells)
    survey_spots(survey, image or labels)
    survey_others(survey)


def _compare_sizes(survey: Survey, image: Surveyed | None, labels: Surveyed | None) -> None:
    if image is None or labels is None:
        return
    one, other = image.described, labels.described
    if (one.n_frames, one.height, one.width) != (other.n_frames, other.height, other.width):
        sizes = [f"{size.n_frames} frames of {size.width} × {size.height} pixels" for size in (other, one)]
        survey.findings.error("labels.size", layout.LABELS, f"has {sizes[0]}, {layout.IMAGE} has {sizes[1]}")
