"""Rules of the OME-XML: what the client's reader (Viv) takes from it.

Viv finds the page of an image from DimensionOrder and the sizes alone. It takes attributes by a parser that knows no
prefixes and no entities, and turns what looks like a number or a boolean into one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from atlaswriter.errors import listed
from atlaswriter.findings import Findings
from atlaswriter.formats.deepcell.channelnames import is_shown_otherwise
from atlaswriter.formats.deepcell.ometiff import OME_TYPES
from atlaswriter.formats.deepcell.rules import noting
from atlaswriter.sources import ome

_ORDERS = {"XYZCT", "XYCZT", "XYZTC", "XYCTZ", "XYTZC", "XYTCZ"}
_COUNT = re.compile(r"[1-9][0-9]{0,8}")

_PREFIXED = re.compile(r"<[\w.-]+:(OME|Image|Pixels|Channel)\b")
_CHANNEL = re.compile(r"""<Channel((?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'))*)\s*/?>""")
_NAME = re.compile(r"""\sName\s*=\s*("[^"]*"|'[^']*')""")


_WRITE_AGAIN = "write the image again"


@dataclass(frozen=True)
class Described:
    """An image as its XML describes it.

    Attributes
    ----------
    order
        Axes of the pages, the first of which changes fastest: ``"ZC"`` or ``"CZ"``.
    n_channels, n_frames, height, width
        Its size.
    kind
        Of its pixels, such as ``"uint8"``.
    """

    order: str
    n_channels: int
    n_frames: int
    height: int
    width: int
    kind: str

    @property
    def n_pages(self) -> int:
        """Pages that it takes."""
        return self.n_channels * self.n_frames

    def page(self, channel: int, frame: int) -> int:
        """Page of an image."""
        return channel * self.n_frames + frame if self.order == "ZC" else frame * self.n_channels + channel

    def place(self, page: int) -> tuple[int, int]:
        """Channel and frame of a page."""
        if self.order == "ZC":
            return divmod(page, self.n_frames)
        frame, channel = divmod(page, self.n_channels)
        return channel, frame


def survey_xml(xml: str, file: str, findings: Findings, *, names: bool) -> Described | None:
    """What the XML says; None where it does not say enough to find an image.

    Parameters
    ----------
    xml
        Description of the first page.
    file
        Name of the member.
    findings
        Is added to.
    names
        Whether the client shows the channels' names.
    """
    with noting(findings, "tiff.xml", file) as problems:
        if not xml.strip():
            problems.add(file, "has no OME-XML in its first page", _WRITE_AGAIN)
            return None
        parsed = ome.parse(xml, file)
        if _PREFIXED.search(xml):
            problems.add(file, "has elements with a prefix, which the client does not know", "write them without")
        pixels = _pixels(ET.fromstring(xml), file, findings)  # noqa: S314 - `parse` refuses declarations
        if pixels is None:
            return None
        _survey_channels(pixels, file, findings)
        if names:
            _survey_names(xml, file, findings)
        described = _described(pixels.attrib, file, findings)
        if described is not None:
            _survey_places(parsed, described, file, findings)
        return described
    return None


def _pixels(root: ET.Element, file: str, findings: Findings) -> ET.Element | None:
    """The only Pixels of the only Image."""
    images = _children(root, "Image")
    pixels = _children(images[0], "Pixels") if images else []
    if len(images) != 1 or len(pixels) != 1:
        found = f"describes {len(images)} images, the first by {len(pixels)} Pixels; the client needs one of both"
        findings.error("tiff.images", file, found, _WRITE_AGAIN)
    return pixels[0] if pixels else None


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    return [child for child in element if child.tag.rpartition("}")[2] == name]


def _described(pixels: Mapping[str, str], file: str, findings: Findings) -> Described | None:
    order, kind = pixels.get("DimensionOrder", ""), pixels.get("Type", "")
    if kind not in OME_TYPES.values():
        known = ", ".join(OME_TYPES.values())
        findings.error("tiff.type", file, f"has pixels of type {kind[:40]!a}; the client knows {known}")
    if pixels.get("Interleaved") == "true":
        findings.error("tiff.interleaved", file, "is described as interleaved, which makes the client expect colours")
    given = {axis: pixels.get(f"Size{axis}", "") for axis in "XYZCT"}
    wrong = [f"Size{axis}={text[:20]!a}" for axis, text in given.items() if not _COUNT.fullmatch(text)]
    if wrong or order not in _ORDERS:
        found = f"does not say where an image is: DimensionOrder={order[:20]!a} {' '.join(wrong)}".rstrip()
        findings.error("tiff.order", file, found, _WRITE_AGAIN)
        return None
    sizes = {axis: int(text) for axis, text in given.items()}
    if sizes["T"] != 1:
        found = f"has {sizes['T']:,} time points; the client shows the first only"
        findings.error("tiff.time", file, found, "write frames on the Z axis: atlaswriter deepcell PROJECT NEW does it")
    frames = "T" if sizes["Z"] == 1 else "Z"  # what was meant
    fastest = "".join("Z" if axis == frames else axis for axis in order[2:] if axis in ("C", frames))
    return Described(fastest, sizes["C"], sizes[frames], sizes["Y"], sizes["X"], kind)


def _survey_channels(pixels: ET.Element, file: str, findings: Findings) -> None:
    channels = _children(pixels, "Channel")
    if str(len(channels)) != pixels.attrib.get("SizeC"):
        found = f"describes {len(channels)} channels where SizeC is {pixels.attrib.get('SizeC', '')[:20]!a}"
        findings.error("tiff.channels", file, found, _WRITE_AGAIN)
    elif not all(channel.attrib for channel in channels):
        findings.error("tiff.channels", file, "has channels without any attribute, at which the client stops")


def _survey_places(parsed: ome.Ome, described: Described, file: str, findings: Findings) -> None:
    """TiffData, by which other programs find a page, agrees with what the client does."""
    if parsed.times != 1 or len(parsed.channels) != described.n_channels:
        return
    other = [
        (channel, frame, where)
        for (channel, frame, _), where in parsed.places.items()
        if where != (None, described.page(channel, frame))
    ]
    if other:
        channel, frame, (name, page) = other[0]
        place = f"page {page}{f' of {name!a}' if name else ''}"
        found = f"says by TiffData that channel {channel} of frame {frame} is on {place}"
        own = f"by DimensionOrder, which the client follows, on page {described.page(channel, frame)}"
        findings.error("tiff.order", file, f"{found}, {own}", _WRITE_AGAIN)


def _survey_names(xml: str, file: str, findings: Findings) -> None:
    found = [_NAME.search(attributes) for attributes in _CHANNEL.findall(xml)]
    raw = [name[1][1:-1] for name in found if name and name[1][1:-1]]
    if len(set(raw)) < len(raw):
        findings.warning("names.unique", file, f"has channels of one name: {listed(raw)}", "give each its own")
    changed = [name for name in raw if is_shown_otherwise(name)]
    if changed:
        text = f"has names that the client shows in another way: {listed(map(ascii, changed))}"
        findings.warning("names.changed", file, text, "avoid & and <, outer spaces, true, false and odd numbers")
