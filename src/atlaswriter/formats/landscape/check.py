"""Verifying LandscapeFiles: every rule that the front-end relies on, and every byte it reads."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path

from atlaswriter.findings import SEVERITIES, CheckResult, Findings
from atlaswriter.formats.landscape import layout
from atlaswriter.formats.landscape.header import Header
from atlaswriter.formats.landscape.rules import Survey
from atlaswriter.formats.landscape.rules_counts import survey_counts
from atlaswriter.formats.landscape.rules_images import survey_images
from atlaswriter.formats.landscape.rules_tables import survey_tables, survey_transforms
from atlaswriter.formats.landscape.rules_tiles import survey_outlines, survey_transcripts
from atlaswriter.sinks import fs
from atlaswriter.sources.untrusted import load_json
from atlaswriter.units import usable_cpus


def check(directory: str | PathLike[str], *, workers: int | None = None) -> CheckResult:
    """Verify LandscapeFiles.

    Every file that the front-end can ask for is read once: Parquet is decoded completely, every
    image tile to its pixels. Ids, tiles, counts, statistics, clusters, signatures, outlines,
    pyramids and parameters are compared with each other; other files are reported. Sets of celldega
    0.27.0 in both storage modes, and older ones with names in place of ids, are understood. Never
    raises for anything that is in the folder.

    What cannot be found: a change that leaves a file readable and its content as plausible as before,
    such as another position in the same tile, or other pixels. Neither the format nor lossy WebP
    has checksums for these; pages of Parquet files only when their writer added them.

    Parameters
    ----------
    directory
        Folder with ``landscape_parameters.json``.
    workers
        Threads; by default one per usable CPU.

    Returns
    -------
    CheckResult
        Errors: the front-end breaks or shows wrong data. Warnings: it does not mind, but notebooks may,
        or the files are not what a writer means to leave.
    """
    root = Path(directory).resolve()
    result, findings = CheckResult(str(directory)), Findings()
    try:
        files = dict(fs.file_sizes(root))
    except (OSError, RecursionError) as error:
        findings.error("folder.unreadable", str(directory), f"cannot be listed ({error})", "check its permissions")
        files = {}
    with findings.catching(), ThreadPoolExecutor(workers or usable_cpus()) as pool:
        survey = Survey(root, Header(load_json(root, layout.PARAMETERS)), files, pool, findings)
        _survey(survey)
        _look_for_stale(survey)
        result.files = len(survey.declared & files.keys())
        result.bytes = sum(files[name] for name in survey.declared & files.keys())
    result.findings = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return result


def _survey(survey: Survey) -> None:
    header = survey.header
    survey.declared.update({layout.PARAMETERS, layout.PREVIEW})
    # Without these nothing else can be understood.
    has_image, names = header.has_image, [None, *header.segmentations]
    for known in (lambda: header.int_index, lambda: header.tile_size, lambda: header.row_groups):
        if survey.attempt(known) is None:
            survey.declared.update(survey.files)
            return
    wants_groups = header.raw.get("use_row_groups") is True
    if wants_groups and not header.row_groups:
        found = "use_row_groups without the numbers of tiles in tile_grid; the viewer looks for loose files"
        survey.findings.error("groups.grid", layout.PARAMETERS, found)
    segmentations = [survey_tables(survey, name) for name in names]
    for one in segmentations:
        survey_counts(survey, one)
    if has_image:
        survey_transcripts(survey, segmentations[0].genes)
        for one in segmentations:
            survey_outlines(survey, one)
        survey_images(survey)
    survey_transforms(survey)


def _look_for_stale(survey: Survey) -> None:
    """Report files that are no part of the set."""
    folders = {name.split("/")[0] for name in survey.declared if "/" in name}
    for name in sorted(survey.files.keys() - survey.declared):
        # Names that are not UTF-8 could not be printed.
        shown = name.encode("utf-8", "backslashreplace").decode()
        if name.split("/")[0] in folders:
            survey.findings.warning("stale.file", shown, "nothing asks for this; it is of another set", "remove it")
        else:
            survey.findings.warning("stale.unknown", shown, "does not belong to the set", "move it elsewhere")
