"""DeepCell Label projects written by hand, independently of the package: every byte of their TIFFs is decided here."""

import struct
import zipfile
import zlib
from xml.sax.saxutils import quoteattr

import numpy as np

OME_TYPES = {"uint8": "uint8", "uint16": "uint16", "int16": "int16", "int32": "int32", "float32": "float"}
# Of the tags written: TIFF type and struct letter; ASCII counts bytes. An offset is a LONG8 in BigTIFF.
SHORT, LONG, ASCII, LONG8 = (3, "H"), (4, "I"), (2, "s"), (16, "Q")
SAMPLE_FORMAT = {"u": 1, "i": 2, "f": 3}


def ome_xml(shape, dtype, names=None, order="XYZCT", frames_on="Z"):
    """OME-XML of an image of channels × frames × rows × columns; `frames_on` is the axis of OME that counts frames."""
    channels, frames, height, width = shape
    sizes = {"X": width, "Y": height, "C": channels, "Z": 1, "T": 1, frames_on: frames}
    attributes = " ".join(f'Size{axis}="{size}"' for axis, size in sizes.items())
    named = [f" Name={quoteattr(name)}" for name in names] if names else [""] * channels
    listed = "".join(
        f'<Channel ID="Channel:0:{c}" SamplesPerPixel="1"{name}><LightPath/></Channel>' for c, name in enumerate(named)
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06">'
        f'<Image ID="Image:0" Name="Image0"><Pixels ID="Pixels:0" DimensionOrder="{order}" '
        f'Type="{OME_TYPES[np.dtype(dtype).name]}" {attributes}>{listed}<TiffData/></Pixels></Image></OME>'
    )


def tiff(pages, xml, *, big=False, predictor=False, share=False, rows=7):
    """A little-endian TIFF of zlib strips that start at byte 16, with all IFDs at the end of the file.

    Parameters
    ----------
    pages
        Array of pages × rows × columns.
    big
        BigTIFF.
    predictor
        Horizontal differencing (predictor 2), of floats too: on the bits, as integers of their size.
    share
        Store identical strips once.
    rows
        Rows of a strip; the last may be shorter.
    """
    pages = np.ascontiguousarray(pages, pages.dtype.newbyteorder("<"))
    data, written, known = bytearray(16), [], {}
    for page in pages:
        strips = [_strip(page[first : first + rows], predictor) for first in range(0, len(page), rows)]
        offsets = []
        for strip in strips:
            offsets.append(known.get(strip, len(data)) if share else len(data))
            if offsets[-1] == len(data):
                known[strip] = len(data)
                data += strip
        written.append((offsets, [len(strip) for strip in strips]))
    data[:8] = struct.pack("<2sHHH", b"II", 43, 8, 0) if big else struct.pack("<2sHI", b"II", 42, 0)
    at, link = (LONG8, 8) if big else (LONG, 4)
    for number, (offsets, sizes) in enumerate(written):
        height, width = pages.shape[1:]
        tags = [
            (256, LONG, [width]),
            (257, LONG, [height]),
            (258, SHORT, [8 * pages.dtype.itemsize]),
            (259, SHORT, [8]),
            (262, SHORT, [1]),
            *([(270, ASCII, xml.encode() + b"\0")] if number == 0 else []),
            (273, at, offsets),
            (277, SHORT, [1]),
            (278, LONG, [rows]),
            (279, at, sizes),
            (317, SHORT, [2 if predictor else 1]),
            (339, SHORT, [SAMPLE_FORMAT[pages.dtype.kind]]),
        ]
        link = _append_ifd(data, tags, big, link)
    return bytes(data)


def _strip(rows, predictor):
    if predictor:
        bits = rows.view(f"<u{rows.dtype.itemsize}").copy()
        bits[:, 1:] -= rows.view(bits.dtype)[:, :-1]
        rows = bits
    return zlib.compress(rows.tobytes(), 6)


def _append_ifd(data, tags, big, link):
    """Values too large for their entry, then the IFD, its offset to byte `link`; returns where the next one goes."""
    room, count, offset = (8, "<Q", "Q") if big else (4, "<H", "I")
    entries = bytearray()
    for tag, (kind, letter), values in tags:
        value = values if letter == "s" else struct.pack(f"<{len(values)}{letter}", *values)
        if len(value) > room:
            data += bytes(len(data) % 2)
            place = struct.pack(f"<{offset}", len(data))
            data += value
        else:
            place = value.ljust(room, b"\0")
        entries += struct.pack(f"<HH{offset}", tag, kind, len(values)) + place
    data += bytes(len(data) % 2)
    struct.pack_into(f"<{offset}", data, link, len(data))
    data += struct.pack(count, len(tags)) + entries + bytes(room)
    return len(data) - room


def write_project(path, members, *, stored=(), zip64=False):
    """A zip of (name, bytes or text) pairs, deflated but for the names in `stored`."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=zip64) as member:
                member.write(content.encode() if isinstance(content, str) else content)
    return path
