"""Opening, checking, comparing and summarising a folder of any format: its files tell which it is."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from atlaswriter.errors import InputError, Problem, listed
from atlaswriter.findings import CheckResult, DiffResult, ReadError

if TYPE_CHECKING:
    from atlaswriter.formats.cellucid.layout import Layout
    from atlaswriter.formats.cellucid.read import Export
    from atlaswriter.formats.landscape.read import Landscape

Folder = str | PathLike[str]

_CELLUCID, _LANDSCAPE = "cellucid", "landscape"


def format_of(directory: Folder, *, layout: Layout | None = None) -> str:
    """Which format a folder holds.

    Parameters
    ----------
    directory
        A folder that was written for a viewer.
    layout
        Names of the files of a Cellucid export, when they were changed at export.

    Returns
    -------
    str
        ``"cellucid"`` or ``"landscape"``, the name of the format's package.

    Raises
    ------
    FormatError
        It is no folder, or holds neither.
    """
    from atlaswriter.formats.cellucid.layout import Layout
    from atlaswriter.formats.landscape.layout import signs as signs_of_landscape

    root = Path(directory)
    if not root.is_dir():
        raise ReadError("folder.missing", str(directory), "is not a folder", "give the folder of an export")
    signs = {_CELLUCID: (layout or Layout()).manifests(), _LANDSCAPE: signs_of_landscape()}
    for name, files in signs.items():
        if any((root / file).is_file() for file in files):
            return name
    found = f"is no export; it has none of {listed(file for files in signs.values() for file in files)}"
    raise ReadError("folder.format", str(directory), found, "give the folder of an export")


def open_export(
    directory: Folder, *, layout: Layout | None = None, segmentation: str | None = None
) -> Export | Landscape:
    """Open what was written for a viewer; files are read when they are asked for.

    Parameters
    ----------
    directory
        Folder of a Cellucid export or of LandscapeFiles.
    layout
        Cellucid: file and folder names, when they were changed at export.
    segmentation
        LandscapeFiles: name of another segmentation than the default one.

    Returns
    -------
    atlaswriter.formats.cellucid.read.Export or atlaswriter.formats.landscape.read.Landscape

    Raises
    ------
    FormatError
        The folder holds neither format, or something in it is damaged.
    """
    name = format_of(directory, layout=layout)
    function = _function(name, "read", "open_export")
    return cast("Export | Landscape", function(directory, **_options(name, layout=layout, segmentation=segmentation)))


def check(
    directory: Folder, *, strict: bool = False, layout: Layout | None = None, workers: int | None = None
) -> CheckResult:
    """Verify every rule that the viewer relies on, and every byte that it reads.

    Never raises for anything that is in the folder. The modules ``check`` of the formats say what
    is found, and what cannot be.

    Parameters
    ----------
    directory
        Folder of a Cellucid export or of LandscapeFiles.
    strict
        Cellucid: also count findings that only the viewer after 0.0.9's minds.
    layout
        Cellucid: file and folder names, when they were changed at export.
    workers
        Threads; by default one per usable CPU.

    Returns
    -------
    CheckResult
    """
    try:
        name = format_of(directory, layout=layout)
    except ReadError as error:
        return CheckResult(str(directory), strict, [error.finding()])
    options = _options(name, strict=strict or None, layout=layout)
    return cast("CheckResult", _function(name, "check", "check")(directory, workers=workers, **options))


def diff(
    a: Folder,
    b: Folder,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    steps: float | None = None,
    px: float | None = None,
    grey: float | None = None,
    layout: Layout | None = None,
) -> DiffResult:
    """Compare two folders of one format by what the viewer would show.

    Parameters
    ----------
    a, b
        Folders of two Cellucid exports, or of two sets of LandscapeFiles.
    rtol, atol
        Values are the same when ``|a - b| <= atol + rtol * max(|a|, |b|)``.
    steps
        Cellucid: tolerance in quantisation steps; 0 by default.
    px
        LandscapeFiles: tolerance of positions, pixels; 0.01 by default.
    grey
        LandscapeFiles: tolerated mean difference of an image tile, grey levels; 0 by default.
    layout
        Cellucid: file and folder names of both, when they were changed at export.

    Returns
    -------
    DiffResult

    Raises
    ------
    FormatError
        A file of either is missing or damaged.
    InputError
        The folders are of different formats, or an option is the other format's.
    """
    name, other = (format_of(folder, layout=layout) for folder in (a, b))
    if name != other:
        found = f"{name} and {other} files cannot be compared"
        raise InputError(Problem(f"{a} and {b}", found, "give two folders of one format"))
    options = _options(name, steps=steps, px=px, grey=grey, layout=layout)
    return cast("DiffResult", _function(name, "diff", "diff")(a, b, rtol=rtol, atol=atol, **options))


def summarise(directory: Folder, *, layout: Layout | None = None) -> dict[str, Any]:
    """What a folder holds, as plain values: ``format``, and what `summarise` of that format gives."""
    name = format_of(directory, layout=layout)
    return {"format": name, **_function(name, "info", "summarise")(directory, **_options(name, layout=layout))}


def as_text(summary: dict[str, Any]) -> str:
    """A summary of `summarise` for people."""
    return cast("str", _function(summary["format"], "info", "as_text")(summary))


_KNOWN = {_CELLUCID: {"layout", "strict", "steps"}, _LANDSCAPE: {"segmentation", "px", "grey"}}


def _options(name: str, **given: Any) -> dict[str, Any]:
    """The options that were given; those of the other format are refused."""
    given = {option: value for option, value in given.items() if value is not None}
    remedy = "leave it out"
    wrong = [Problem(option, f"means nothing for {name} files", remedy) for option in given.keys() - _KNOWN[name]]
    if wrong:
        raise InputError(wrong)
    return given


def _function(name: str, module: str, function: str) -> Callable[..., Any]:
    return cast("Callable[..., Any]", getattr(import_module(f"atlaswriter.formats.{name}.{module}"), function))
