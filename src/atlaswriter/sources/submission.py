"""Everything that makes a project, from whatever it was given as: files, archives, folders, addresses, arrays.

The forms are those of DeepCell Label's page "File Format" (``images``, ``labels``), read as their authors mean them.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from atlaswriter.errors import InputError, Problem, Problems, listed
from atlaswriter.sources.archives import Archive, Container, Opener, archive_kind, is_zarr
from atlaswriter.sources.contents import LINEAGE, LINEAGES, SPOTS, Contents, How, Part, Role, contents, natural
from atlaswriter.sources.download import Progress, download, is_url, shown
from atlaswriter.sources.files import File
from atlaswriter.sources.imagezarr import is_zarr_folder
from atlaswriter.sources.movie import Movie, Submission
from atlaswriter.sources.pixels import Pixels
from atlaswriter.sources.unpacked import Unpacker
from atlaswriter.units import format_bytes

# Largest download, unless told otherwise, and seconds without a byte after which one is given up.
DOWNLOAD_LIMIT, TIMEOUT = 1 << 36, 60.0

# Lists of cells and spots are held in memory.
_LARGEST_MEMBER = 1 << 30

# ``.trks`` files count movies in front of the axes of a ``.trk``.
_AXES_OF_MOVIES = "ZTYXC"

_SOURCES = "give a path, an http(s) address, an array, or a list of files"


@dataclass(frozen=True)
class Options:
    """How what was given is read.

    Attributes
    ----------
    axes, label_axes
        Order of the dimensions of image and segmentation, as of `axes.choose`. Where several files are one movie they
        may begin with the letter of what the files are: C for channels, T for frames.
    limit
        Bytes of the largest download.
    timeout
        Seconds without a byte after which a download is given up.
    progress
        Told bytes done, and all or None, of a download.
    """

    axes: str | None = None
    label_axes: str | None = None
    limit: int = DOWNLOAD_LIMIT
    timeout: float = TIMEOUT
    progress: Progress | None = None


class OpenSubmission:
    """What was given, open: a context manager, which ends its threads and removes its temporary files.

    Parameters
    ----------
    images
        A path, an address, an array (NumPy, dask, zarr), or a list of these, each a frame. Files are known by their
        content: TIFF, PNG, ``.npy``, ``.npz``, tracking archive (``.trk``, ``.trks``), zip, Zarr; folders may be Zarr
        stores, unpacked projects, or hold a frame in each file. What archives and folders hold is found as by
        `contents.contents`; of several TIFFs in a zip each is a channel.
    labels
        The same for the segmentation and what is known about its cells; of several TIFFs or PNGs in a zip each is a
        feature. None: what `images` hold. Where it holds a segmentation, only the spots of `images` are kept.
    scratch
        Gives a folder for temporary files; called when one is needed.
    options
        How to read them.

    Attributes
    ----------
    submission
        What there is.

    Raises
    ------
    InputError
        With everything that is wrong: nothing that was looked for, ambiguous or damaged content, a segmentation whose
        frames, rows and columns are not those of the image.
    """

    def __init__(
        self, images: Any, labels: Any = None, *, scratch: Callable[[], Path], options: Options | None = None
    ) -> None:
        self._unpacker = Unpacker(scratch)
        try:
            self.submission = _Reader(self._unpacker, options or Options()).submission(images, labels)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> OpenSubmission:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give everything back; nothing can be read afterwards."""
        self._unpacker.close()

    @property
    def held(self) -> int:
        """Bytes that reading takes, beside what is asked for."""
        return self._unpacker.held

    def verify(self) -> None:
        """Wait until all that was opened is known to be undamaged; `InputError` with everything that is not."""
        self._unpacker.verify()


@dataclass
class _Found:
    """What a thing that was given holds."""

    images: Pixels | None = None
    labels: Pixels | None = None
    members: dict[str, tuple[str, bytes]] = field(default_factory=dict)


class _Folder:
    """The files of a folder: a `Container`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)
        files = (file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))
        self.names = tuple(sorted((file.name for file in files), key=natural))

    def opener(self, name: str) -> Opener:
        """What opens one of them, as often as is wanted."""
        return functools.partial(File, self._path / name)

    def read_small(self, name: str, limit: int) -> bytes:
        """Content of one of them, of at most `limit` bytes."""
        file = self.opener(name)()
        if file.size > limit:
            found = f"has {format_bytes(file.size)}, more than the {format_bytes(limit)} that are read"
            raise InputError(Problem(file.name, found, "give a smaller file"))
        return file.read(0, file.size)


class _Reader:
    """Finds out what was given."""

    def __init__(self, unpacker: Unpacker, options: Options) -> None:
        self._unpacker, self._options = unpacker, options
        self._warnings: list[str] = []
        # Whether the segmentation that comes with the image is of no use, as another was given.
        self._replaced = False

    def submission(self, images: Any, labels: Any) -> Submission:
        """All of it, or every problem at once."""
        problems, of_problems, options = Problems(), Problems(), self._options
        of_labels = _Found()
        if labels is not None:
            of_labels = of_problems.attempt(self._found, labels, "labels") or of_labels
            self._replaced = of_labels.labels is not None
        given = problems.attempt(self._found, images, "images") or _Found()
        movie = masks = like = None
        if given.images is not None:
            movie = problems.attempt(given.images.movie, options.axes, as_labels=False, like=None)
        if movie is not None:
            like = _extent(movie)
        pixels = of_labels.labels or given.labels
        if pixels is not None:
            masks = of_problems.attempt(pixels.movie, options.label_axes, as_labels=True, like=like)
        if movie is not None and masks is not None:
            _refuse_other_extent(movie, masks, problems)
        problems.found += of_problems.found
        problems.raise_if_any()
        if movie is None:
            raise InputError(Problem("images", "hold no image", _SOURCES))
        return Submission(movie, masks, {**given.members, **of_labels.members}, tuple(self._warnings))

    def _found(self, source: Any, role: Role) -> _Found:
        if isinstance(source, list | tuple):
            if not source:
                raise InputError(Problem(role, "is an empty list", _SOURCES))
            each = [self._located(one, f"{role}[{number}]") for number, one in enumerate(source)]
            return _of_role(Pixels(role, [(where, _opener(one, where)) for one, where in each], "frames"), role)
        located, where = self._located(source, role)
        if isinstance(located, Path):
            return self._of_path(located, role, where)
        return _single(located, role, where)

    def _located(self, source: Any, where: str) -> tuple[Any, str]:
        """A path for paths and addresses, else the array, and its name in messages."""
        if is_url(source):
            return self._downloaded(source), shown(source)
        if not isinstance(source, str | os.PathLike):
            return source, where
        path = Path(source).expanduser()
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise InputError(Problem(str(path), "is neither a file nor a folder", _SOURCES))
        return path, str(path)

    def _downloaded(self, url: str) -> Path:
        folder, options = self._unpacker.folder, self._options
        path = download(url, folder, limit=options.limit, timeout=options.timeout, progress=options.progress)
        return self._unpacker.own(path)

    def _of_path(self, path: Path, role: Role, where: str) -> _Found:
        if path.is_dir():
            return _single(path, role, where) if is_zarr_folder(path) else self._of_container(_Folder(path), role)
        file = File(path, name=where)
        if archive_kind(file) and not _is_zarr_zip(path, where):
            return self._of_container(Archive(file, self._unpacker), role)
        return _single(path, role, where)

    def _of_container(self, container: Container, role: Role) -> _Found:
        several: How = "frames" if isinstance(container, _Folder) else "channels"
        found = contents(container.names, role, container.where, several)
        if found.unused:
            self._warnings.append(f"{container.where}: {listed(found.unused)} not used")
        if role == "images" and self._replaced:
            found = self._without_labels(found, container.where)
        own = _AXES_OF_MOVIES if LINEAGES in found.members else None
        members = self._members(container, found)
        images, inner = self._pixels(container, found.images, role, own)
        labels, _ = self._pixels(container, found.labels, "labels", own)
        return _Found(images, labels or (inner.labels if inner else None), members)

    def _without_labels(self, found: Contents, where: str) -> Contents:
        """Of what came with an image only what is not about the cells of another segmentation."""
        about_cells = [name for key, name in found.members.items() if key != SPOTS]
        if about_cells:
            text = f"{where}: {listed(about_cells)} not used: about another segmentation than the one given"
            self._warnings.append(text)
        return replace(found, labels=None, members={key: name for key, name in found.members.items() if key == SPOTS})

    def _pixels(
        self, container: Container, part: Part | None, role: Role, own: str | None
    ) -> tuple[Pixels | None, _Found | None]:
        """The files of a part of a container; of an ``.npz`` in it, what that holds."""
        if part is None:
            return None, None
        openers = [(f"{container.where}: {name}", container.opener(name)) for name in part.names]
        if part.how != "npz":
            return Pixels(container.where, openers, part.how, part.places, own), None
        ((where, opener),) = openers
        file = opener()
        if archive_kind(file) != "zip":
            raise InputError(Problem(where, "is no .npz file", "write it with numpy.savez"))
        archive = Archive(file, self._unpacker)
        found = self._of_container(_Arrays(archive), role)
        return (found.images if role == "images" else found.labels), found

    def _members(self, container: Container, found: Contents) -> dict[str, tuple[str, bytes]]:
        result = {}
        for key, name in found.members.items():
            content, where = container.read_small(name, _LARGEST_MEMBER), f"{container.where}: {name}"
            if key == LINEAGES:
                result[LINEAGE] = where, _only_lineage(content, where)
            else:
                result[key] = where, content
        return result


class _Arrays:
    """The arrays of an ``.npz`` inside an archive: a `Container` of nothing else, however deep the archives go."""

    def __init__(self, archive: Archive) -> None:
        self.where = archive.where
        self.names = tuple(name for name in archive.names if name.endswith(".npy"))
        self.opener, self.read_small = archive.opener, archive.read_small


def _of_role(pixels: Pixels, role: Role) -> _Found:
    return _Found(images=pixels) if role == "images" else _Found(labels=pixels)


def _single(source: Any, role: Role, where: str) -> _Found:
    return _of_role(Pixels(where, [(where, _opener(source, where))]), role)


def _opener(source: Any, where: str) -> Callable[[], Any]:
    """What gives a file, an array, or the path of a store."""
    if isinstance(source, Path) and not source.is_dir() and not _is_zarr_zip(source, where):
        return functools.partial(File, source, name=where)
    return lambda: source


def _is_zarr_zip(path: Path, where: str) -> bool:
    file = File(path, name=where)
    return archive_kind(file) == "zip" and is_zarr(file)


def _only_lineage(content: bytes, where: str) -> bytes:
    """The lineage of the only movie of a ``.trks`` file."""
    try:
        every = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(Problem(where, f"is no JSON ({error})", "write the file again")) from None
    if not isinstance(every, list) or len(every) != 1:
        n = len(every) if isinstance(every, list) else "no list of"
        found = f"tells of {n} movies, where a project has one"
        raise InputError(Problem(where, found, "save each movie as a .trk file of its own"))
    return json.dumps(every[0]).encode()


def _extent(movie: Movie) -> tuple[int, int, int]:
    """Frames, rows and columns."""
    frames, _, rows, columns = movie.stack.shape
    return frames, rows, columns


def _refuse_other_extent(movie: Movie, masks: Movie, problems: Problems) -> None:
    def said(each: Movie) -> str:
        frames, rows, columns = _extent(each)
        return f"{frames} frames of {rows} × {columns} pixels (axes {each.axes})"

    if _extent(movie) != _extent(masks):
        found = f"has {said(masks)}, the image {movie.where} {said(movie)}"
        problems.add(masks.where, found, "give the segmentation of this image, or tell the axes of both")
