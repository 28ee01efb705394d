"""Small letters for pictures, drawn as pixels."""

from __future__ import annotations

import re
import unicodedata
from functools import cache

import numpy as np
from numpy.typing import NDArray

Color = tuple[int, int, int]

# Rows of the tallest letter, those below the line included.
ROWS = 9

# Rows of each letter from the top, a digit of base 32 each: its bits are the five columns. Missing rows are empty.
_ROWS_OF: dict[str, str] = dict(
    re.findall(
        r"(\S) (\S+)",
        """
    A EHHVHHH   B UHHUHHU   C EHGGGHE   D UHHHHHU   E VGGUGGV   F VGGUGGG   G EHGNHHF   H HHHVHHH   I E44444E
    J 72222IC   K HIKOKIH   L GGGGGGV   M HRLLHHH   N HHPLJHH   O EHHHHHE   P UHHUGGG   Q EHHHLID   R UHHUKIH
    S FGGE11U   T V444444   U HHHHHHE   V HHHHHA4   W HHHLLLA   X HHA4AHH   Y HHHA444   Z V1248GV
    a 00E1FHF   b GGMPHHU   c 00EGGHE   d 11DJHHF   e 00EHVGE   f 698S888   g 00FHHHF1E h GGMPHHH   i 40C444E
    j 2062222IC k GGIKOKI   l C44444E   m 00QLLHH   n 00MPHHH   o 00EHHHE   p 00UHHHUGG q 00FHHHF11 r 00MPGGG
    s 00FGE1U   t 88S8896   u 00HHHJD   v 00HHHA4   w 00HHLLA   x 00HA4AH   y 00HHHHF1E z 00V248V
    0 EHJLPHE   1 4C4444E   2 EH1248V   3 V2421HE   4 26AIV22   5 VGU11HE   6 68GUHHE   7 V124888   8 EHHEHHE
    9 EHHF12C   ! 4444404   " AA        # AAVAVAA   $ 4FKE5U4   % OP248J3   & CIK8LID   ' 44        ( 2488842
    ) 8422248   * 04LEL4    + 044V44    , 00000C48  - 000E      . 00000CC   / 01248G    : 00CC0CC   ; 00CC0C48
    < 248G842   = 00V0V     > 8421248   ? EH12404   @ EHNLNGE   [ E88888E   \\ 0G8421   ] E22222E   ^ 4AH
    _ 0000000V  ` 84        { 2448442   | 4444444   } 8442448   ~ 008L2     × 00HA4AH   · 000CC     µ 00HHHJTGG
    … 000000L   – 000V
    """,
    )
)
_SPACE = 3


@cache
def _letter(sign: str) -> NDArray[np.bool_]:
    """Pixels of a letter, (rows, columns), without empty columns beside it; digits are of one width."""
    if sign == " ":
        return np.zeros((ROWS, _SPACE), np.bool_)
    plain = unicodedata.normalize("NFKD", sign)[0]
    rows = _ROWS_OF[next(known for known in (sign, plain, "?") if known in _ROWS_OF)]
    bits = np.zeros((ROWS, 5), np.bool_)
    for row, digit in enumerate(rows):
        bits[row] = [int(digit, 32) >> (4 - column) & 1 for column in range(5)]
    used = np.flatnonzero(bits.any(axis=0))
    return bits if sign.isdecimal() else bits[:, used[0] : used[-1] + 1]


def letters(text: str, size: int) -> NDArray[np.bool_]:
    """Pixels of a line of text, (`ROWS` × size, columns); letters that are not known become ``?``."""
    gap = np.zeros((ROWS, 1), np.bool_)
    parts = [part for sign in text for part in (_letter(sign), gap)][:-1]
    line = np.concatenate(parts, axis=1) if parts else gap
    return line.repeat(size, axis=0).repeat(size, axis=1)


def shortened(text: str, size: int, most: int) -> str:
    """The text, or its beginning and ``…``, so that it takes at most so many columns."""
    if letters(text, size).shape[1] <= most:
        return text
    while text and letters(text + "…", size).shape[1] > most:
        text = text[:-1]
    return text + "…"


def write(picture: NDArray[np.uint8], text: str, top: int, left: int, size: int, color: Color) -> int:
    """Draw a line of text, cut off where the picture ends; the column behind it."""
    line = letters(text, size)
    place = picture[top : top + line.shape[0], left : left + line.shape[1]]
    place[line[: place.shape[0], : place.shape[1]]] = color
    return left + int(line.shape[1])
