"""``datasets.json``: the list of exports that a viewer offers."""

from __future__ import annotations

import contextlib
import json
import os
from collections import defaultdict
from os import PathLike
from pathlib import Path
from typing import Any

from atlaswriter.errors import InputError, OutputError, Problem, Problems, listed
from atlaswriter.findings import ReadError
from atlaswriter.formats.cellucid import layout as names
from atlaswriter.formats.cellucid.rules_entries import as_dict
from atlaswriter.sinks import fs
from atlaswriter.sources.untrusted import load_json, text


def generate_datasets_manifest(
    exports_dir: str | PathLike[str],
    output_filename: str = names.DATASETS,
    default_dataset: str | None = None,
) -> Path:
    """Write the list of all exports in a folder, as cellucid's function of the same name.

    Parameters
    ----------
    exports_dir
        Folder whose sub-folders are exports; those without ``dataset_identity.json`` are left out.
    output_filename
        Name of the file, written into `exports_dir` in one step.
    default_dataset
        Id of the dataset shown first; by default the first by folder name.

    Returns
    -------
    pathlib.Path
        The file.

    Raises
    ------
    InputError
        There is no export, an identity cannot be read, two exports have one id, or there is no
        dataset of the id `default_dataset`. Lists everything that was found; nothing is written.
    OutputError
        The file cannot be written; the one before is unchanged.
    """
    root, problems = Path(exports_dir), Problems()
    if not root.is_dir():
        raise InputError(Problem("exports_dir", f"{root} is not a folder", "give the folder that holds the exports"))
    if Path(output_filename).name != output_filename:
        problems.add("output_filename", f"{output_filename!r} is not a file name", "leave out the folder")
    folders = [folder for folder in sorted(root.iterdir()) if (folder / names.IDENTITY).exists()]
    datasets = [entry for folder in folders if (entry := _entry(folder, problems))]
    _refuse_ambiguous(datasets, problems)
    ids = [entry["id"] for entry in datasets]
    if not folders:
        problems.add("exports_dir", f"no folder in {root} has a {names.IDENTITY}", "export something into it first")
    elif default_dataset is not None and default_dataset not in ids:
        problems.add("default_dataset", f"there is no dataset {default_dataset!r}", f"choose one of {listed(ids)}")
    problems.raise_if_any()
    default = ids[0] if default_dataset is None else default_dataset
    content = json.dumps({"version": 1, "default": default, "datasets": datasets}, indent=2)
    return _replace(root / output_filename, content.encode())


def _entry(folder: Path, problems: Problems) -> dict[str, Any] | None:
    """What the list says about one export."""
    where = f"{folder.name}/{names.IDENTITY}"
    try:
        identity = load_json(folder.resolve(), names.IDENTITY)
        entry: dict[str, Any] = {
            "id": text(identity.get("id", folder.name), "id", where),
            "path": f"{folder.name}/",
            "name": text(identity.get("name", folder.name), "name", where),
        }
        stats = as_dict(identity.get("stats"), "stats", where)
    except ReadError as error:
        problems.add(where, error.problem.found, "export it again, or move the folder elsewhere")
        return None
    return entry | {key: stats[key] for key in ("n_cells", "n_genes") if stats.get(key)}


def _refuse_ambiguous(datasets: list[dict[str, Any]], problems: Problems) -> None:
    folders = defaultdict(list)
    for entry in datasets:
        folders[entry["id"]].append(entry["path"])
    for dataset, paths in folders.items():
        if len(paths) > 1:
            problems.add(f"id {dataset!r}", f"is that of {listed(paths)}", "export with another dataset_id")


def _replace(path: Path, content: bytes) -> Path:
    """Write a file beside its place and move it there."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        fs.sync_dir(path.parent)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise OutputError(f"{path} cannot be written: {error}") from error
    return path
