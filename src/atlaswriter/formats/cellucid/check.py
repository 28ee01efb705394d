"""Verifying an export folder: every rule that the viewer relies on, and every byte it reads."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from pathlib import Path

from atlaswriter.findings import SEVERITIES, CheckResult, Findings
from atlaswriter.formats.cellucid.layout import Layout
from atlaswriter.formats.cellucid.rules import Survey, Task
from atlaswriter.formats.cellucid.rules_files import read_array
from atlaswriter.formats.cellucid.rules_identity import survey_identity
from atlaswriter.formats.cellucid.rules_manifests import survey_edges, survey_obs, survey_var
from atlaswriter.sinks import fs
from atlaswriter.units import usable_cpus, usable_memory

# A payload is held compressed and inflated while rules make temporaries of about its size.
_COPIES = 4


def check(
    directory: str | PathLike[str],
    *,
    strict: bool = False,
    layout: Layout | None = None,
    workers: int | None = None,
) -> CheckResult:
    """Verify an export folder.

    Every file that the manifests declare is read once and inflated completely, so any change to a
    ``.gz`` file is found; counts, names, bounds, codes, label positions and edges are compared
    with each other; files that nothing declares are reported. Never raises for anything that is
    in the folder.

    What cannot be found: a changed value in an uncompressed file, or in a manifest, that is as
    plausible as the original. The format has no checksums for these.

    Parameters
    ----------
    directory
        Folder of the export.
    strict
        Also count findings that only the viewer after 0.0.9's minds. They are always listed.
        Layout ``v1`` has no edge weights, so an export with a graph is never ok in this sense.
    layout
        File and folder names, when they were changed at export.
    workers
        Threads; by default one per usable CPU, fewer when files are large for the memory.

    Returns
    -------
    CheckResult
    """
    root = Path(directory).resolve()
    survey = Survey(root, layout or Layout())
    result = CheckResult(str(directory), strict)
    if not root.is_dir():
        survey.findings.error("folder.missing", str(directory), "is not a folder", "give the folder of an export")
    elif survey_identity(survey):
        survey_obs(survey)
        survey_var(survey)
        survey_edges(survey)
        _read_payloads(survey, workers)
        result.files, result.bytes = _look_for_stale(survey)
    result.findings = sorted(survey.findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return result


def _read_payloads(survey: Survey, workers: int | None) -> None:
    """Read and examine every payload, several at a time."""
    paths = Counter(payload.path for task in survey.tasks for payload in task.payloads)
    # Fields of the same name share a file, which has been reported with their names.
    for path in sorted(path for path, n_uses in paths.items() if n_uses > 1):
        survey.findings.strict("path.twice", path, "is declared for two purposes")
    largest = max((sum(payload.size for payload in task.payloads) for task in survey.tasks), default=0)
    if workers is None:
        workers = min(usable_cpus(), max(1, usable_memory() // (_COPIES * largest or 1)))
    with ThreadPoolExecutor(workers) as pool:
        for findings in pool.map(lambda task: _perform(survey.root, task), survey.tasks):
            survey.findings += findings


def _perform(root: Path, task: Task) -> Findings:
    findings = Findings()
    with findings.catching():
        arrays = [read_array(root, payload) for payload in task.payloads]
        findings += task.examine(*arrays)
    return findings


def _look_for_stale(survey: Survey) -> tuple[int, int]:
    """Report files that nothing declares; count those that are declared, and their bytes."""
    declared = {os.path.normpath(path) for path in survey.declared}
    n_files = n_bytes = 0
    try:
        for name, size in sorted(fs.file_sizes(survey.root)):
            if os.path.normpath(name) in declared:
                n_files += 1
                n_bytes += size
            else:
                # Names that are not UTF-8 could not be printed.
                _stale(survey, name.encode("utf-8", "backslashreplace").decode(), declared)
    except (OSError, RecursionError) as error:
        survey.findings.error("folder.unreadable", ".", f"cannot be listed ({error})", "check its permissions")
    return n_files, n_bytes


def _stale(survey: Survey, name: str, declared: set[str]) -> None:
    top = name.split("/", maxsplit=1)[0]
    if top in survey.uncertain:
        return
    shadowed = name.removesuffix(".gz")
    if name.endswith(".gz") and shadowed in declared and _is_shadowing(survey, shadowed):
        found = f"the viewer takes this instead of {shadowed}"
        survey.findings.error("stale.shadow", name, found, "remove it")
    elif top in survey.layout.entries():
        survey.findings.strict("stale.file", name, "no manifest declares this; it is of another export", "remove it")
    else:
        survey.findings.warning("stale.unknown", name, "does not belong to an export", "move it elsewhere")


def _is_shadowing(survey: Survey, name: str) -> bool:
    """Whether the viewer would look for ``.gz`` beside this file: it does for points and vectors."""
    folders = (survey.layout.obs_dir, survey.layout.var_dir, survey.layout.connectivity_dir)
    return not name.endswith(".json") and not any(name.startswith(f"{folder}/") for folder in folders)
