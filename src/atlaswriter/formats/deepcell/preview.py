"""One picture that shows at a glance whether a project is right: frames, with outlines of their cells."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from atlaswriter.errors import OutputError, Problem, Problems
from atlaswriter.formats.deepcell import layout, tiles
from atlaswriter.formats.deepcell.lettering import Color, letters, shortened, write
from atlaswriter.formats.deepcell.read import Project, open_export
from atlaswriter.formats.deepcell.tiles import Fit
from atlaswriter.sinks import fs
from atlaswriter.sinks.archive import check_target_file
from atlaswriter.sinks.folder import target_path

# Frames that are shown, at most, by the longer side of an image in pixels: cells of larger ones need more room.
_MOST_FRAMES = ((512, 24), (1024, 12), (math.inf, 6))

_MOST_FEATURES = 4

# Pixels of the sheet.
_WIDTH, _LEAST_WIDTH, _MOST_HIGH = 1680, 760, 1100
_MARGIN, _GAP, _CAPTION, _LINE = 32, 16, 26, 30
_LEAST_SLOT = 190
_ASPECT = 1.5

_GROUND: Color = (14, 17, 23)
_EDGE: Color = (38, 44, 56)
_TEXT: Color = (230, 235, 243)
_MUTED: Color = (139, 150, 168)


def write_preview(project: str | PathLike[str], picture: str | PathLike[str], *, force: bool = False) -> None:
    """Write a PNG picture of a project: `contact_sheet`.

    Parameters
    ----------
    project
        Its zip file.
    picture
        File to write.
    force
        Replace an existing file.

    Raises
    ------
    FormatError
        The project is damaged.
    InputError
        The picture may not be written there.
    OutputError
        The picture cannot be written; what was there is as it was.
    """
    target, problems = target_path(picture, "picture"), Problems()
    check_target_file(target, force=force, problems=problems)
    problems.raise_if_any()
    content = contact_sheet(project)
    staged = target.with_name(f".{target.name}.atlaswriter-{os.getpid()}")
    try:
        fs.write_file(staged, [content])
        fs.sync_file(staged)
        (fs.replace if force else fs.rename_new)(staged, target)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(str(Problem(str(target), f"cannot be written ({reason})", "choose another file"))) from error
    finally:
        with suppress(OSError):  # it has its name, or the folder is gone
            staged.unlink()


def write_preview_beside(project: Path, *, force: bool) -> None:
    """Write a picture of a project beside it."""
    write_preview(project, project.with_name(layout.preview_file(project.name)), force=force)


def contact_sheet(project: str | PathLike[str]) -> bytes:
    """A picture of a project: up to 24 frames, evenly spaced, with outlines of their cells.

    Channels are added up in colours, each stretched from the smallest to the largest value of what is shown. Every
    cell has its colour in all frames; lines of the first feature are solid, of others pale and dotted.

    Parameters
    ----------
    project
        Its zip file.

    Returns
    -------
    bytes
        PNG; the same for the same project.

    Raises
    ------
    FormatError
        The project is damaged.
    """
    import imagecodecs

    with open_export(project) as opened:
        sheet = _drawn(opened)
    return bytes(imagecodecs.png_encode(sheet))


@dataclass(frozen=True)
class _Grid:
    """Where pictures of frames are on the sheet."""

    fit: Fit
    n_columns: int
    n_rows: int

    @classmethod
    def of(cls, n: int, height: int, width: int) -> _Grid:
        """The arrangement of so many frames that comes closest to a usual page."""
        every = []
        for n_columns in range(1, n + 1):
            slot = (_WIDTH - 2 * _MARGIN + _GAP) // n_columns - _GAP
            if slot >= _LEAST_SLOT or n_columns == 1:
                every.append(cls(Fit.into(height, width, _MOST_HIGH, slot), n_columns, math.ceil(n / n_columns)))
        return min(every, key=lambda grid: grid.strangeness(n))

    def strangeness(self, n: int) -> float:
        """How far from a usual page it is, and how many of its places so many frames leave empty."""
        height, width = self.size
        return abs(math.log(width / height / _ASPECT)) + 1 - n / (self.n_rows * self.n_columns)

    @property
    def slot(self) -> tuple[int, int]:
        """Height and width that a frame takes, with its caption and the gap to the next."""
        height, width = self.fit.shape
        return height + _CAPTION + _GAP, max(width, _LEAST_SLOT) + _GAP

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of all of them."""
        return self.n_rows * self.slot[0] - _GAP, self.n_columns * self.slot[1] - _GAP

    def place(self, number: int) -> tuple[int, int]:
        """Row and column of one, from the first."""
        row, column = divmod(number, self.n_columns)
        return row * self.slot[0], column * self.slot[1]


def _drawn(project: Project) -> NDArray[np.uint8]:
    """The sheet, (rows, columns, 3)."""
    frames = _chosen(project)
    grid = _Grid.of(len(frames), project.height, project.width)
    width = max(grid.size[1] + 2 * _MARGIN, _LEAST_WIDTH)
    head = _head(project, len(frames), width)
    sheet = np.full((len(head) + grid.size[0] + _MARGIN, width, 3), _GROUND, np.uint8)
    sheet[: len(head)] = head
    left = (width - grid.size[1]) // 2
    for number, (frame, picture) in enumerate(zip(frames, _pictures(project, frames, grid.fit), strict=True)):
        top, column = grid.place(number)
        _put(sheet, picture, len(head) + top, left + column)
        cells = {
            cell for c in range(project.n_features) for some in project.cells_at(frame, c).values() for cell in some
        }
        _caption(sheet, frame, len(cells), len(head) + top + picture.shape[0] + 8, left + column)
    project.verify()
    return sheet


def _n_cells(project: Project, frame: int) -> int:
    """Cells that a frame shows, in any feature."""
    meanings = [project.cells_at(frame, feature) for feature in range(project.n_features)]
    return len({cell for meaning in meanings for cells in meaning.values() for cell in cells})


def _chosen(project: Project) -> list[int]:
    """Frames that are shown."""
    side = max(project.height, project.width)
    n = min(project.n_frames, next(most for largest, most in _MOST_FRAMES if side <= largest))
    found: list[int] = np.linspace(0, project.n_frames - 1, n).round().astype(int).tolist()
    return found


def _pictures(project: Project, frames: Sequence[int], fit: Fit) -> list[NDArray[np.uint8]]:
    """Each of the frames, with outlines."""
    colors = tiles.channel_colors(project.n_channels)
    n_features = min(project.n_features, _MOST_FEATURES)
    images = [tiles.means(project.images.stack, frame, len(colors), fit) for frame in frames]
    limits = [
        (min(float(image[c].min()) for image in images), max(float(image[c].max()) for image in images))
        for c in range(len(colors))
    ]
    pictures = []
    for frame, image in zip(frames, images, strict=True):
        picture = tiles.blended(image, limits, colors, fit)
        labels = tiles.samples(project.segmentation.stack, frame, n_features, fit)
        for feature in reversed(range(n_features)):
            tiles.draw_outlines(picture, labels[feature], project.cells_at(frame, feature), feature, fit)
        pictures.append(picture)
    return pictures


def _put(sheet: NDArray[np.uint8], picture: NDArray[np.uint8], top: int, left: int) -> None:
    """A picture in a thin frame."""
    height, width = picture.shape[:2]
    sheet[top - 1 : top + height + 1, left - 1 : left + width + 1] = _EDGE
    sheet[top : top + height, left : left + width] = picture


def _caption(sheet: NDArray[np.uint8], frame: int, n_cells: int, top: int, left: int) -> None:
    behind = write(sheet, f"frame {frame}", top, left, 2, _TEXT)
    write(sheet, _counted(n_cells, "cell"), top, behind + 14, 2, _MUTED)


def _counted(n: int, thing: str) -> str:
    return f"{n:,} {thing}{'' if n == 1 else 's'}"


def _head(project: Project, n_shown: int, width: int) -> NDArray[np.uint8]:
    """Name, sizes, and what the colours mean."""
    inner = width - 2 * _MARGIN
    facts = [
        f"{_counted(project.n_frames, 'frame')} of {project.width:,} × {project.height:,} px",
        *([f"{n_shown} shown"] if n_shown < project.n_frames else []),
        str(project.image_dtype),
        _counted(np.unique(project.cells["cell"]).size, "cell"),
    ]
    lines = _legend(project, inner)
    head = np.full((_MARGIN + 44 + _LINE * (1 + len(lines)) + 10, width, 3), _GROUND, np.uint8)
    write(head, shortened(project.path.name, 3, inner), _MARGIN, _MARGIN, 3, _TEXT)
    top = _MARGIN + 44
    write(head, shortened("  ·  ".join(facts), 2, inner), top, _MARGIN, 2, _MUTED)
    for line in lines:
        top += _LINE
        left = _MARGIN
        for entry in line:
            left = entry.draw(head, top, left) + 2 * _GAP
    return head


@dataclass(frozen=True)
class _Entry:
    """A colour or a kind of line, and what it means."""

    text: str
    color: Color
    is_line: bool = False
    dotted: bool = False

    @property
    def width(self) -> int:
        """Columns that it takes."""
        return 34 + int(letters(self.text, 2).shape[1])

    def draw(self, sheet: NDArray[np.uint8], top: int, left: int) -> int:
        """Draw it; the column behind it."""
        if self.is_line:
            for column in range(left, left + 24, 6 if self.dotted else 1):
                sheet[top + 6 : top + 9, column : min(column + 3, left + 24)] = self.color
        else:
            sheet[top : top + 14, left : left + 24] = self.color
        return write(sheet, self.text, top, left + 34, 2, _TEXT)


def _legend(project: Project, width: int) -> list[list[_Entry]]:
    """Entries, line by line."""
    colors = tiles.channel_colors(project.n_channels)
    entries = [
        _Entry(shortened(name, 2, width // 3), color) for name, color in zip(project.channels, colors, strict=False)
    ]
    hidden = project.n_channels - len(colors)
    if hidden:
        entries.append(_Entry(f"{hidden:,} more channels are not shown", _EDGE))
    if project.n_features > 1:
        lines = min(project.n_features, _MOST_FEATURES)
        entries.append(_Entry("feature 0", tiles.cell_color(1), is_line=True))
        rest = "feature 1" if lines == 2 else f"features 1–{lines - 1}"
        entries.append(_Entry(rest, _TEXT, is_line=True, dotted=True))
        if project.n_features > lines:
            entries.append(_Entry(f"{project.n_features - lines:,} more features are not shown", _EDGE))
    found: list[list[_Entry]] = [[]]
    left = 0
    for entry in entries:
        if left and left + entry.width > width:
            found.append([])
            left = 0
        found[-1].append(entry)
        left += entry.width + 2 * _GAP
    return found
