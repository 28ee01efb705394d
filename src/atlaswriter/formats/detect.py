"""Opening, checking, comparing and summarising what any format wrote: its files tell which it is."""

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
    from atlaswriter.formats.deepcell.read import Project
    from atlaswriter.formats.landscape.read import Landscape

Place = str | PathLike[str]

_CELLUCID, _LANDSCAPE, _DEEPCELL = "cellucid", "landscape", "deepcell"

_GIVE = "give the folder of a Cellucid export or of LandscapeFiles, or the zip file of a DeepCell Label project"


def format_of(path: Place, *, layout: Layout | None = None) -> str:
    """Which format a folder or file holds.

    Parameters
    ----------
    path
        A folder or zip file that was written for a viewer.
    layout
        Names of the files of a Cellucid export, when they were changed at export.

    Returns
    -------
    str
        ``"cellucid"``, ``"landscape"`` or ``"deepcell"``, the name of the format's package.

    Raises
    ------
    FormatError
        There is nothing there, it holds none of them, or it is a damaged zip file.
    """
    from atlaswriter.formats.cellucid.layout import Layout
    from atlaswriter.formats.landscape.layout import signs as signs_of_landscape

    root = Path(path)
    if root.is_file():
        return _format_of_file(root)
    if not root.is_dir():
        found = "is not a folder, and not a file" if root.exists() else "does not exist"
        raise ReadError("folder.missing", str(path), found, _GIVE)
    signs = {_CELLUCID: (layout or Layout()).manifests(), _LANDSCAPE: signs_of_landscape()}
    for name, files in signs.items():
        if any((root / file).is_file() for file in files):
            return name
    found = f"is no export; it has none of {listed(file for files in signs.values() for file in files)}"
    raise ReadError("folder.format", str(path), found, _GIVE)


def _format_of_file(path: Path) -> str:
    from atlaswriter.formats.deepcell.layout import is_project, signs
    from atlaswriter.sources.archives import archive_kind
    from atlaswriter.sources.files import File
    from atlaswriter.sources.members import zip_names

    try:
        file = File(path)
        names = zip_names(file) if archive_kind(file) == "zip" else None
    except InputError as error:
        problem = error.problems[0]
        raise ReadError("zip.unreadable", problem.where, problem.found, problem.remedy) from error
    if names is None:
        raise ReadError("file.format", str(path), "is not a folder, and no zip file", _GIVE)
    if not is_project(names) and set(signs()) & set(names):
        remedy = "atlaswriter deepcell-export makes a project of an export request"
        raise ReadError("file.format", str(path), "is what DeepCell Label's client sends, no project", remedy)
    if not set(signs()) & set(names):
        found = f"is no DeepCell Label project; it has none of {listed(signs())}"
        raise ReadError("file.format", str(path), found, _GIVE)
    return _DEEPCELL


def open_export(
    path: Place, *, layout: Layout | None = None, segmentation: str | None = None
) -> Export | Landscape | Project:
    """Open what was written for a viewer; files are read when they are asked for.

    Parameters
    ----------
    path
        Folder of a Cellucid export or of LandscapeFiles, or zip file of a DeepCell Label project.
    layout
        Cellucid: file and folder names, when they were changed at export.
    segmentation
        LandscapeFiles: name of another segmentation than the default one.

    Returns
    -------
    Export, Landscape or Project
        Of the module ``read`` of the format.

    Raises
    ------
    FormatError
        It holds none of these formats, or something in it is damaged.
    InputError
        An option is another format's.
    """
    name = format_of(path, layout=layout)
    options = _options(name, layout=layout, segmentation=segmentation)
    return cast("Export | Landscape | Project", _function(name, "read", "open_export")(path, **options))


def check(
    path: Place, *, strict: bool = False, layout: Layout | None = None, workers: int | None = None
) -> CheckResult:
    """Verify every rule that the viewer relies on, and every byte that it reads.

    Never raises for anything that is in the folder or file. The modules ``check`` of the formats say what
    is found, and what cannot be.

    Parameters
    ----------
    path
        Folder of a Cellucid export or of LandscapeFiles, or zip file of a DeepCell Label project.
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
        name = format_of(path, layout=layout)
    except ReadError as error:
        return CheckResult(str(path), strict, [error.finding()])
    options = _options(name, strict=strict or None, layout=layout)
    return cast("CheckResult", _function(name, "check", "check")(path, workers=workers, **options))


def diff(
    a: Place,
    b: Place,
    *,
    rtol: float = 0.0,
    atol: float = 0.0,
    steps: float | None = None,
    px: float | None = None,
    grey: float | None = None,
    layout: Layout | None = None,
) -> DiffResult:
    """Compare two exports of one format by what the viewer would show.

    Parameters
    ----------
    a, b
        Folders of two Cellucid exports or of two sets of LandscapeFiles, or zip files of two DeepCell Label projects.
    rtol, atol
        Values, and pixels of a project's image, are the same when ``|a - b| <= atol + rtol * max(|a|, |b|)``.
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
        They are of different formats, or an option is another format's.
    """
    name, other = (format_of(path, layout=layout) for path in (a, b))
    if name != other:
        found = f"{name} and {other} files cannot be compared"
        raise InputError(Problem(f"{a} and {b}", found, "give two exports of one format"))
    options = _options(name, steps=steps, px=px, grey=grey, layout=layout)
    return cast("DiffResult", _function(name, "diff", "diff")(a, b, rtol=rtol, atol=atol, **options))


def summarise(path: Place, *, layout: Layout | None = None) -> dict[str, Any]:
    """What a folder or file holds, as plain values: ``format``, and what `summarise` of that format gives."""
    name = format_of(path, layout=layout)
    return {"format": name, **_function(name, "info", "summarise")(path, **_options(name, layout=layout))}


def as_text(summary: dict[str, Any]) -> str:
    """A summary of `summarise` for people."""
    return cast("str", _function(summary["format"], "info", "as_text")(summary))


_KNOWN: dict[str, set[str]] = {
    _CELLUCID: {"layout", "strict", "steps"},
    _LANDSCAPE: {"segmentation", "px", "grey"},
    _DEEPCELL: set(),
}


def _options(name: str, **given: Any) -> dict[str, Any]:
    """The options that were given; those of other formats are refused."""
    given = {option: value for option, value in given.items() if value is not None}
    remedy = "leave it out"
    wrong = [Problem(option, f"means nothing for {name} files", remedy) for option in given.keys() - _KNOWN[name]]
    if wrong:
        raise InputError(wrong)
    return given


def _function(name: str, module: str, function: str) -> Callable[..., Any]:
    return cast("Callable[..., Any]", getattr(import_module(f"atlaswriter.formats.{name}.{module}"), function))
