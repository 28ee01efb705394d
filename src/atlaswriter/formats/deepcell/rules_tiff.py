"""Rules of the two images: pages as the client's reader (geotiff) decodes them, and every pixel read."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import tifffile
from numpy.typing import NDArray

from atlaswriter.errors import InputError
from atlaswriter.findings import Findings
from atlaswriter.formats.deepcell import layout
from atlaswriter.formats.deepcell.jsonlist import Faults
from atlaswriter.formats.deepcell.ometiff import OME_TYPES
from atlaswriter.formats.deepcell.rules import Survey, noting, warning_of
from atlaswriter.formats.deepcell.rules_xml import Described, survey_xml
from atlaswriter.formats.deepcell.values import Present, Values
from atlaswriter.sources.base import Array
from atlaswriter.sources.files import File
from atlaswriter.sources.tiff import TiffPlane
from atlaswriter.sources.tiffset import reading
from atlaswriter.units import format_bytes

# What a stored byte can become at most, by compression: as it is; LZW, 4096 bytes in 12 bits; deflate, 258 in 2.
_MOST_TIMES = {1: 1, 5: 2800, 8: 1100, 32946: 1100}
_NO_PREDICTOR, _HORIZONTAL, _FLOATING = 1, 2, 3

# What no browser holds in one array.
_MOST_BYTES = 1 << 31

_WARNINGS = {"image.negative", "image.finite"}
_WRITE_AGAIN = "write the image again"


@dataclass(frozen=True)
class Surveyed:
    """One image, as far as it can be read.

    Attributes
    ----------
    described
        Its size.
    present
        The values of labels; None where not all can be read, and for images that are no labels.
    """

    described: Described
    present: Present | None = None


class _Fault(NamedTuple):
    """Something wrong with a page."""

    rule: str
    kind: str
    example: str


class _Seen(NamedTuple):
    """What became known of a page; `values` of labels whose every pixel could be read."""

    page: int
    faults: list[_Fault]
    values: NDArray[np.int32] | None = None


class _Page(NamedTuple):
    """A page that can be decoded."""

    number: int
    plane: TiffPlane
    as_labels: bool

    def bands(self) -> Iterator[Array]:
        """All pixels, a strip or some tiles at a time."""
        height, width = self.plane.shape[:2]
        for top in range(0, height, self.plane.grain):
            yield self.plane.values(slice(top, min(top + self.plane.grain, height)), slice(0, width), 0)


class _Faults:
    """What is wrong with pages, by rule."""

    def __init__(self, file: str) -> None:
        self._file, self.n = file, 0
        self._by_rule: dict[str, Faults] = defaultdict(lambda: Faults(file, "pages"))

    def add(self, rule: str, kind: str, page: int, example: str = "", remedy: str = _WRITE_AGAIN) -> None:
        self._by_rule[rule].add(kind, f"page {page}{example and f' {example}'}", remedy)
        self.n += 1

    def report(self, findings: Findings) -> None:
        for rule, faults in self._by_rule.items():
            if rule in _WARNINGS:
                with warning_of(findings, rule, self._file) as warnings:
                    faults.warn(warnings)
            else:
                with noting(findings, rule, self._file) as problems:
                    faults.report(problems)


def survey_image(survey: Survey, name: str) -> Surveyed | None:
    """Every rule of one image; None where nothing is known of it."""
    file = survey.image(name)
    if file is None:
        return None
    with (
        noting(survey.findings, "tiff.unreadable", name),
        reading(name),
        tifffile.TiffFile(file.path, offset=file.offset, size=file.size) as opened,
    ):
        if opened.is_bigtiff:
            found, remedy = "is a BigTIFF, which the deployed client may refuse", "export fewer frames"
            survey.findings.warning("tiff.big", name, found, remedy)
        n_pages, xml = len(opened.pages), opened.pages.first.description
        described = survey_xml(xml, name, survey.findings, names=name == layout.IMAGE)
        if described is None:
            return None
        if n_pages != described.n_pages:
            found = f"has {n_pages:,} pages where its OME-XML counts {described.n_pages:,}"
            survey.findings.error("tiff.pages", name, found, _WRITE_AGAIN)
        return Surveyed(described, _survey_pages(survey, opened, file, described))
    return None


def _survey_pages(survey: Survey, opened: tifffile.TiffFile, file: File, described: Described) -> Present | None:
    """Look at all that the client asks for; the values of labels, where all could be read."""
    faults, team = _Faults(file.name), survey.team
    values: dict[int, NDArray[np.int32]] = {}
    # Stored, decoded, and between two codecs.
    room = min(3 * _segment_bytes(opened.pages.first), team.budget.free)
    pages = _readable(opened, file, described, faults)
    for seen in team.in_order(_look, pages, memory=room, what=f"reading {file.name}"):
        for fault in seen.faults:
            faults.add(fault.rule, fault.kind, seen.page, fault.example)
        if seen.values is not None:
            values[seen.page] = seen.values
    faults.report(survey.findings)
    if len(values) < described.n_pages:
        return None
    order = [described.page(c, t) for t in range(described.n_frames) for c in range(described.n_channels)]
    return Present.of((values[page] for page in order), described.n_channels)


def _readable(opened: tifffile.TiffFile, file: File, described: Described, faults: _Faults) -> Iterator[_Page]:
    """Pages that can be decoded."""
    as_labels = file.name == layout.LABELS
    for number in range(min(len(opened.pages), described.n_pages)):
        try:
            with reading(file.name):
                page = opened.pages[number].aspage()
                _survey_header(page, number, described, faults, as_labels=as_labels)
                is_sound = _survey_storage(page, number, faults)
                plane = TiffPlane(page, file) if is_sound else None
        except InputError as error:
            faults.add("tiff.strips", "cannot be read", number, f"({error.problems[0].found})")
            continue
        if plane is not None:
            yield _Page(number, plane, as_labels)


def _survey_header(
    page: tifffile.TiffPage, number: int, described: Described, faults: _Faults, *, as_labels: bool
) -> None:
    """Compare a page with what the XML says of all, and labels with what the client takes them for."""
    size = f"{page.imagewidth} × {page.imagelength}"
    if (page.imagelength, page.imagewidth) != (described.height, described.width):
        kind = f"have another size than the OME-XML says, {described.width} × {described.height}"
        faults.add("tiff.size", kind, number, f"has {size}")
    found, dtype = _kind(page), f"{page.dtype} of {page.bitspersample} bit"
    if found and found != described.kind:
        faults.add(
            "tiff.type", f"have another type than the OME-XML says, {described.kind[:20]!a}", number, f"is {dtype}"
        )
    if found and as_labels and found != "int32":
        faults.add("labels.dtype", "are not int32, as which the client takes labels", number, f"is {dtype}")


def _kind(page: tifffile.TiffPage) -> str:
    """Type of the pixels as OME-XML calls it; empty for one that the client does not know."""
    if page.dtype is None or page.bitspersample != 8 * page.dtype.itemsize:
        return ""
    return OME_TYPES.get(page.dtype.str[1:], "")


def _survey_storage(page: tifffile.TiffPage, number: int, faults: _Faults) -> bool:
    """Whether the client's decoder can take the pixels out, and so can we."""
    compression, predictor = int(page.compression), int(page.predictor)
    n_before = faults.n
    if page.samplesperpixel != 1 or not _kind(page):
        faults.add("tiff.samples", "have no single number of 8 to 64 bit as a pixel", number)
    if compression not in _MOST_TIMES or page.fillorder != 1:
        kind = "are compressed in a way that the client may not know"
        faults.add("tiff.compression", kind, number, f"({getattr(page.compression, 'name', compression)})")
    elif not _known(predictor, page.dtype, big_endian=page.parent.byteorder == ">"):
        faults.add("tiff.predictor", "are stored as differences (predictor) that the client cannot add up", number)
    if faults.n > n_before:
        return False
    _refuse_segments(page, _MOST_TIMES[compression])
    return True


def _known(predictor: int, dtype: np.dtype[Any] | None, *, big_endian: bool) -> bool:
    """geotiff adds in the order of the machine, whatever that of the file, and up to 32 bit."""
    if dtype is None:
        return False
    if predictor == _HORIZONTAL:
        return dtype.itemsize == 1 or (dtype.itemsize <= 4 and not big_endian)
    return predictor == _NO_PREDICTOR or (predictor == _FLOATING and dtype.kind == "f")


def _segment(page: tifffile.TiffPage) -> tuple[int, int]:
    """Rows and columns of a strip or tile."""
    if page.is_tiled:
        return int(page.tilelength), int(page.tilewidth)
    return min(int(page.rowsperstrip), int(page.imagelength)), int(page.imagewidth)


def _segment_bytes(page: tifffile.TiffPage) -> int:
    rows, columns = _segment(page)
    return rows * columns * page.bitspersample // 8


def _refuse_segments(page: tifffile.TiffPage, most_times: int) -> None:
    """Refuse strips and tiles that are missing or cannot hold what they must."""
    (rows, columns), largest = _segment(page), _segment_bytes(page)
    if largest > _MOST_BYTES:
        raise ValueError(f"a strip has {format_bytes(largest)}, which no browser holds at once")
    height, width = int(page.imagelength), int(page.imagewidth)
    n = -(-height // rows) * -(-width // columns)
    stored = np.array(page.databytecounts, np.int64)
    if stored.size < n:
        raise ValueError(f"{n - stored.size} of {n} strips are missing")
    content = np.full(n, largest)
    if not page.is_tiled and height % rows:
        content[-1] = largest // rows * (height % rows)
    if np.any(content > most_times * stored[:n]):
        raise ValueError("a strip has fewer bytes than its pixels take")


def _look(page: _Page) -> _Seen:
    """Read all pixels of a page."""
    rule, dtype = "tiff.strips", page.plane.dtype
    values = Values(f"page {page.number}") if page.as_labels and dtype == np.int32 else None
    n_negative = n_missing = 0
    try:
        with reading(f"page {page.number}"):
            for band in page.bands():
                n_negative += int((band < 0).sum()) if dtype.kind == "i" else 0
                n_missing += int((~np.isfinite(band)).sum()) if dtype.kind == "f" else 0
                if values is not None:
                    rule = "labels.values"
                    values.add(band)
                    rule = "tiff.strips"
    except InputError as error:
        kind = "cannot be decoded" if rule == "tiff.strips" else "cannot be labels"
        return _Seen(page.number, [_Fault(rule, kind, f"({error.problems[0].found})")])
    found = []
    if n_missing:
        found.append(_Fault("image.finite", "have pixels that are no finite numbers", f"has {n_missing:,}"))
    if n_negative and page.as_labels:
        found.append(_Fault("labels.negative", "have negative pixels, which mean nothing", f"has {n_negative:,}"))
    elif n_negative and dtype.itemsize < 4:
        kind = f"have negative pixels, which the client takes for large ones ({dtype})"
        found.append(_Fault("image.negative", kind, f"has {n_negative:,}"))
    return _Seen(page.number, found, None if values is None else values.sorted())
