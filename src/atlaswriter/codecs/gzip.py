"""gzip in one call or in segments: ISA-L where it is installed, zlib elsewhere.

Every stream is one member without a name and with time 0, so the same content always gives the
same bytes, and browsers, which refuse a second member, can read it. Content larger than memory is
compressed in segments of a fixed size, each on its own, that follow each other in one stream.
"""

from __future__ import annotations

import zlib
from types import ModuleType
from typing import Any

from atlaswriter.errors import FormatError

_isal: ModuleType | None
try:
    from isal import igzip_lib as _isal
    from isal import isal_zlib
    from isal.isal_zlib import crc32
except ImportError:  # no wheel for this machine
    from zlib import crc32

    _isal = None

_HEADER_BITS = 16 + zlib.MAX_WBITS
_RAW_BITS = -zlib.MAX_WBITS
_GZIP_RESERVED_FLAGS = 0xE0

# Level of ISA-L for each level of zlib. Measured on 64 gene columns (u8), edges, points and codes of
# a Xenium atlas: ISA-L 1 and 2 cost the same (1.5 ns/byte at most, 17-200 times less than zlib 6) and 2
# is never larger than 1; ISA-L 3 costs 1.2-5 times more and is larger on genes and edge sources.
_ISAL_LEVEL = {level: 1 if level == 1 else 2 for level in range(1, 10)}


def encoder_name() -> str:
    """Name of the library that compresses."""
    return "ISA-L" if _isal is not None else "zlib (no ISA-L for this machine)"


def compress(content: Any, level: int) -> bytes:
    """gzip a bytes-like object.

    Parameters
    ----------
    content
        Anything with a contiguous buffer.
    level
        1-9 as in zlib.
    """
    if _isal is None:
        return compress_small(content, level)
    # Not igzip_lib.compress: in about 1 of 20 processes it gave another stream for the same bytes (both decode
    # right), also under a lock; why is not known. An encoder object did so in 0 of 200, at the same speed.
    encoder = isal_zlib.compressobj(_ISAL_LEVEL[level], isal_zlib.DEFLATED, _HEADER_BITS)
    return bytes(encoder.compress(content) + encoder.flush())


def compress_small(content: Any, level: int) -> bytes:
    """As `compress`, by zlib: slower, and never larger than cellucid's own file."""
    encoder = zlib.compressobj(level, zlib.DEFLATED, _HEADER_BITS)
    return encoder.compress(content) + encoder.flush()


def zlib_stream(content: Any) -> bytes:
    """A bytes-like object as a zlib stream (RFC 1950), fast."""
    encoder = (zlib if _isal is None else isal_zlib).compressobj(1)
    return bytes(encoder.compress(content) + encoder.flush())


def segment(content: Any, level: int) -> bytes:
    """DEFLATE of a part of a stream (`Stream`), by the encoder of `compress`."""
    if _isal is None:
        return segment_small(content, level)
    encoder = isal_zlib.compressobj(_ISAL_LEVEL[level], isal_zlib.DEFLATED, _RAW_BITS)
    return bytes(encoder.compress(content) + encoder.flush(isal_zlib.Z_SYNC_FLUSH))


def segment_small(content: Any, level: int) -> bytes:
    """As `segment`, by zlib."""
    encoder = zlib.compressobj(level, zlib.DEFLATED, _RAW_BITS)
    return encoder.compress(content) + encoder.flush(zlib.Z_SYNC_FLUSH)


class Stream:
    """One gzip file of several segments, to be written one behind the other: header, segments, trailer.

    A segment is DEFLATE blocks, none marked as the last, that end at a byte.
    """

    header = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"

    def __init__(self) -> None:
        self._crc = self._size = 0

    def add(self, content: Any) -> None:
        """Take the content of the next segment into the trailer."""
        self._crc, self._size = crc32(content, self._crc), self._size + memoryview(content).nbytes

    def trailer(self) -> bytes:
        """What ends the file: an empty last block, CRC and size."""
        return b"\x03\0" + self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")


def inflate(content: bytes, size: int) -> bytes:
    """Content of a gzip file of one member, at most ``size + 1`` bytes of it.

    A result longer than `size` means that the file holds more than it should; nothing past that
    byte was inflated or verified.

    Raises
    ------
    FormatError
        The stream is damaged or cut short, or something follows its end.
    """
    # ISA-L lets reserved header bits pass, which zlib and browsers refuse.
    if len(content) > 3 and content[3] & _GZIP_RESERVED_FLAGS:
        raise FormatError("damaged gzip header")
    decoder = _isal.IgzipDecompressor(flag=_isal.DECOMP_GZIP) if _isal else zlib.decompressobj(_HEADER_BITS)
    failures = (zlib.error, _isal.IsalError) if _isal else (zlib.error,)
    try:
        result: bytes = decoder.decompress(content, size + 1)
    except failures as error:
        raise FormatError(f"damaged gzip stream ({error})") from None
    except (MemoryError, OverflowError):
        raise FormatError("content too large to inflate") from None
    if len(result) > size:
        return result
    if not decoder.eof:
        raise FormatError("gzip stream is cut short")
    if decoder.unused_data:
        raise FormatError("something follows the end of the gzip stream")
    return result
