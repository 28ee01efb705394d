"""Colours that nobody chose: the original writer's wheel."""

from __future__ import annotations

import colorsys

_SATURATION, _VALUE = 0.65, 0.9
# What is named so by instruments is no gene, and white.
_BLANK = "Blank"
WHITE = "#FFFFFF"


def wheel(hue: float, name: str = "") -> str:
    """``"#rrggbb"`` of a hue from 0 to 1; blanks are white."""
    if _BLANK in name:
        return WHITE
    return "#" + "".join(f"{int(share * 255):02x}" for share in colorsys.hsv_to_rgb(hue, _SATURATION, _VALUE))
