"""What OME-XML says of an image: its channels, and in which page of which file each plane is.

The XML comes from outside: it may not define entities, and names in it lead to files beside its own only.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

from atlaswriter.errors import InputError, Problem, listed

# Limits on what is believed: real files have some thousands of planes and some hundred kB.
_MOST_PLANES = 1 << 20
_LONGEST = 64 << 20

_DECLARATION = re.compile(r"<!\s*(DOCTYPE|ENTITY)", re.IGNORECASE)
_REMEDY = "write the image again, or convert it to a plain TIFF"


@dataclass(frozen=True)
class Channel:
    """One channel.

    Attributes
    ----------
    label
        As named in the XML; may be empty.
    suggested_max
        Of the annotation "Suggested LUT max" for a channel of this name; None without one.
    samples
        Values per pixel: 3 where the channel is a colour image.
    """

    label: str
    suggested_max: float | None = None
    samples: int = 1


@dataclass(frozen=True)
class Ome:
    """The first image that OME-XML describes.

    Attributes
    ----------
    shape
        (height, width).
    depth, times
        Number of z planes and of time points.
    channels
        In order.
    places
        Of each (channel, z, t): the file (None for the one that holds the XML) and the page in it.
    n_images
        Images that the XML describes.
    elsewhere
        File that holds the XML instead of this one; then nothing else is known.
    order
        Axes of the planes, the first of which changes slowest, such as ``"TZC"``.
    """

    shape: tuple[int, int] = (0, 0)
    depth: int = 1
    times: int = 1
    channels: list[Channel] = field(default_factory=list)
    places: dict[tuple[int, int, int], tuple[str | None, int]] = field(default_factory=dict)
    n_images: int = 1
    elsewhere: str | None = None
    order: str = "TZC"


def parse(xml: str, location: str) -> Ome:
    """Read OME-XML; what cannot be used raises `InputError`."""
    if len(xml) > _LONGEST:
        raise _refused(location, f"has {len(xml)} bytes of XML")
    if _DECLARATION.search(xml):
        raise _refused(location, "has OME-XML that declares entities or a document type")
    try:
        root = ET.fromstring(xml)  # noqa: S314 - without declarations there are no entities to expand
        return _read(root, location)
    except (ET.ParseError, ValueError, KeyError, RecursionError) as error:
        raise _refused(location, f"has damaged OME-XML ({error})") from error


def _refused(location: str, found: str) -> InputError:
    return InputError(Problem(location, found, _REMEDY))


def _local(element: ET.Element) -> str:
    return element.tag.rpartition("}")[2]


def _children(element: ET.Element, name: str) -> list[ET.Element]:
    return [child for child in element if _local(child) == name]


def _read(root: ET.Element, location: str) -> Ome:
    if binary := _children(root, "BinaryOnly"):
        return Ome(elsewhere=_beside(binary[0].attrib["MetadataFile"], location))
    images = _children(root, "Image")
    pixels = _children(images[0], "Pixels") if images else []
    if not pixels:
        raise _refused(location, "has OME-XML without an image")
    sizes = {axis: int(pixels[0].attrib.get(f"Size{axis}", "1")) for axis in "XYZCT"}
    channels = _channels(root, pixels[0], sizes["C"])
    sizes["C"] = len(channels)
    n_planes = sizes["Z"] * sizes["C"] * sizes["T"]
    if min(sizes.values()) < 1 or n_planes > _MOST_PLANES:
        raise _refused(location, f"is said to have {n_planes} planes of {sizes['X']} × {sizes['Y']}")
    places = dict(_places(pixels[0], sizes, root.attrib.get("UUID"), location))
    order = _order(pixels[0])[::-1]
    return Ome((sizes["Y"], sizes["X"]), sizes["Z"], sizes["T"], channels, places, len(images), order=order)


def _order(pixels: ET.Element) -> str:
    return pixels.attrib.get("DimensionOrder", "XYCZT")[2:]


def _channels(root: ET.Element, pixels: ET.Element, size: int) -> list[Channel]:
    maxima = _suggested(root)
    found = []
    for element in _children(pixels, "Channel"):
        label = element.attrib.get("Name", "")
        found.append(Channel(label, maxima.get(label), int(element.attrib.get("SamplesPerPixel", "1"))))
    # Some writers leave channels out, or count the samples of one as several.
    return found if sum(channel.samples for channel in found) == size else _filled(found, min(size, _MOST_PLANES + 1))


def _filled(channels: list[Channel], size: int) -> list[Channel]:
    return [*channels[:size], *(Channel("") for _ in range(size - len(channels)))]


def _suggested(root: ET.Element) -> dict[str, float]:
    """Xenium's calibration: a MapAnnotation for each channel, with its name and the value to be shown brightest."""
    found = {}
    for annotation in root.iter():
        if _local(annotation) != "MapAnnotation":
            continue
        pairs = {pair.get("K"): pair.text for pair in annotation.iter() if _local(pair) == "M"}
        name, value = pairs.get("Long name"), pairs.get("Suggested LUT max")
        if name and value and re.fullmatch(r"\s*\d+(\.\d*)?([eE][+-]?\d{1,2})?\s*", value) and float(value) > 0:
            found[name] = float(value)
    return found


def _places(
    pixels: ET.Element, sizes: dict[str, int], own: str | None, location: str
) -> Iterator[tuple[tuple[int, int, int], tuple[str | None, int]]]:
    order = pixels.attrib.get("DimensionOrder", "XYZCT")[2:]
    if sorted(order) != ["C", "T", "Z"]:
        raise _refused(location, f"has the dimension order {order!r}")
    n_planes = sizes["Z"] * sizes["C"] * sizes["T"]
    total = 0
    for block in _children(pixels, "TiffData") or [ET.Element("TiffData")]:
        first = {axis: int(block.attrib.get(f"First{axis}", "0")) for axis in "ZCT"}
        start = first[order[0]] + sizes[order[0]] * (first[order[1]] + sizes[order[1]] * first[order[2]])
        alone = "IFD" in block.attrib
        count = int(block.attrib.get("PlaneCount", "1" if alone else str(n_planes - start)))
        total += count
        if start < 0 or count < 0 or total > 2 * _MOST_PLANES:
            raise _refused(location, "has OME-XML that places planes where there are none")
        file, page = _file(block, own, location), int(block.attrib.get("IFD", "0"))
        for step in range(min(count, n_planes - start)):
            at, rest = {}, start + step
            for axis in order:
                rest, at[axis] = divmod(rest, sizes[axis])
            yield (at["C"], at["Z"], at["T"]), (file, page + step)


def _file(block: ET.Element, own: str | None, location: str) -> str | None:
    """The file that a TiffData element names; None for the one that holds the XML, whatever it is called now."""
    for element in _children(block, "UUID"):
        name = element.attrib.get("FileName")
        if name and not (own and (element.text or "").strip() == own):
            name = _beside(name, location)
            return None if name == Path(location).name else name
    return None


def _beside(name: str, location: str) -> str:
    if Path(name).name != name or "\\" in name or "\0" in name:
        raise _refused(location, f"names a file that is not beside it: {listed([name])}")
    return name
