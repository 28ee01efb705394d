"""CRC-32 of content whose first bytes become known last."""

from __future__ import annotations

try:
    from isal.isal_zlib import crc32 as _crc32
except ImportError:  # no wheel for this machine
    from zlib import crc32 as _crc32
from typing import Any

# Residues are reflected, as CRC registers are: bit 31 is x**0.
_POLYNOMIAL = 0xEDB88320
_ONE, _X_TO_8 = 1 << 31, 1 << 23


def crc32(content: Any, before: int = 0) -> int:
    """CRC-32 of a contiguous bytes-like object that follows content with the CRC `before`."""
    return int(_crc32(content, before))


def filled(crc: int, prefix: bytes, n_after: int) -> int:
    """CRC-32 of content once zeros at its beginning have been replaced.

    A CRC is linear: what the prefix changes is its own residue, less that of as many zeros, moved to
    the left by all the bytes that follow. (Polynomial: RFC 1952, 8.)

    Parameters
    ----------
    crc
        CRC-32 of the content that begins with ``len(prefix)`` zeros.
    prefix
        What takes their place.
    n_after
        Bytes that follow them.
    """
    change = crc32(prefix) ^ crc32(bytes(len(prefix)))
    return crc ^ _times(change, _power(_X_TO_8, n_after))


def _times(a: int, b: int) -> int:
    """Product of two residues."""
    product = 0
    for bit in range(31, -1, -1):
        if a >> bit & 1:
            product ^= b
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return product


def _power(residue: int, exponent: int) -> int:
    power = _ONE
    while exponent:
        if exponent & 1:
            power = _times(power, residue)
        residue = _times(residue, residue)
        exponent >>= 1
    return power
