"""Parts of the preview's page: pictures in layers, legends, tables."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atlaswriter.formats.landscape.figures import Frame
from atlaswriter.formats.landscape.previewfacts import Facts

Array = NDArray[Any]

# Bytes of a picture: where it takes more without loss, or with little, it is stored with more; the page stays small.
_MOST_BYTES, _QUALITIES = 250_000, (85, 70, 50, 30, 10)
# Pixels of a photograph that are stored without loss.
_SMALL = 1 << 16
# A part of the picture that needs no box to tell where it is.
_ALL = 0.9
# Layers that are stored, or shown, in a way of their own.
IMAGE, CELLS, GROUND = "Image", "Cells", "Ground"


def figure(
    facts: Facts, frame: Frame, name: str, layers: Sequence[tuple[str, Array]], text: str, below: str,
    *, boxes: bool = False,
) -> str:  # fmt: skip
    """Layers over each other, each of which can be hidden, and what belongs below."""
    height, width = frame.shape
    # The pixels of a tiny image are meant to be seen.
    sharp = " sharp" if frame.scale >= 8 else ""
    images = ""
    for k, (what, pixels) in enumerate(layers):
        kind = f"l{k} veil" if what == CELLS else f"l{k}"
        source = uri(pixels, photo=what == IMAGE)
        images += f"<img class='{kind}' alt='{escape(name)}: {escape(what)}' src='{source}'>"
    marks = _scale_bar(facts, frame)
    if boxes:
        marks += "".join(_box(frame, one, "AB"[k]) for k, one in enumerate(facts.details))
    toggles = "".join(
        f"<label><input type=checkbox checked class=t{k}>{escape(what)}</label>"
        for k, (what, _) in enumerate(layers)
        if len(layers) > 1 and what != GROUND
    )
    style = f"aspect-ratio:{width}/{height};max-width:{max(760 * width / height, 240):.0f}px"
    return (
        f"<figure><div class=top><h3>{escape(name)}</h3><div class=toggles>{toggles}</div></div>"
        f"<label class='stage{sharp}' style='{style}' title='Click to enlarge'>"
        f"<input type=checkbox class=zoom aria-label='Enlarge'>{images}{marks}</label>"
        f"<figcaption>{escape(text)}</figcaption>{below}</figure>"
    )


def uri(pixels: Array, *, photo: bool = False) -> str:
    """An image as a WebP data URI: photographs with loss, drawings without."""
    import imagecodecs

    pixels = np.ascontiguousarray(pixels)
    content = b""
    if not photo or pixels.size <= _SMALL:
        content = bytes(imagecodecs.webp_encode(pixels, lossless=True))
    for quality in _QUALITIES:
        if 0 < len(content) <= _MOST_BYTES:
            break
        content = bytes(imagecodecs.webp_encode(pixels, lossless=False, level=quality))
    return f"data:image/webp;base64,{base64.b64encode(content).decode()}"


def _scale_bar(facts: Facts, frame: Frame) -> str:
    unit = facts.um_per_px or 1.0
    room = 0.28 * frame.wide * unit
    if room <= 0:
        return ""
    step = 10.0 ** math.floor(math.log10(room))
    length = next((factor * step for factor in (5, 2) if factor * step <= room), step)
    share = 100 * length / unit * frame.scale / frame.shape[1]
    if facts.um_per_px is None:
        label = f"{length:,g} px"
    else:
        label = f"{length / 1000:g} mm" if length >= 1000 else f"{length:g} µm"
    return f"<span class=scale style='width:{share:.2f}%'>{label}</span>"


def _box(whole: Frame, one: Frame, name: str) -> str:
    height, width = (side / whole.scale for side in whole.shape)
    if one.wide * one.high > _ALL * width * height:
        return ""
    place = {
        "left": (one.left - whole.left) / width,
        "top": (one.top - whole.top) / height,
        "width": one.wide / width,
        "height": one.high / height,
    }
    style = ";".join(f"{key}:{100 * value:.2f}%" for key, value in place.items())
    return f"<span class=box style='{style}'><b>{name}</b></span>"


def legend(rows: Sequence[tuple[str, str, str]], end: str = "") -> str:
    """Names with their colours, as HTML: rows of name, colour and what stands to the right."""
    items = "".join(
        f"<li><i style='background:{color}'></i><span>{escape(name)}</span><em>{count}</em></li>"
        for name, color, count in rows
    )
    return f"<ul class=legend>{items}</ul>" + (f"<p class=more>{escape(end)}</p>" if end else "")


def card(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]], end: str = "") -> str:
    """A table; its cells are HTML."""
    top = "".join(f"<th>{head}</th>" for head in heads)
    top = f"<thead><tr>{top}</tr></thead>" if any(heads) else ""
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    end = f"<p class=more>{escape(end)}</p>" if end else ""
    return f"<div class=card><h3>{title}</h3><table>{top}<tbody>{body}</tbody></table>{end}</div>"
