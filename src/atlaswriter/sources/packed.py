"""Packed files, read in place: gzip, and tar."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

try:
    # 280 ns of CPU time a row of 13 columns of which 3 are wanted (2,000,000 transcripts); pyarrow's own gzip took
    # 450, Python's 570; unpacked it is 210.
    from isal import igzip, igzip_lib

    open_gzip: Any = igzip.open
    GzipError: Any = igzip_lib.IsalError
except ImportError:
    import gzip
    import zlib

    open_gzip, GzipError = gzip.open, zlib.error


def tar_files(path: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Files in a ``.tar.gz`` under their names there, each to be read before the next is asked for.

    Nothing is unpacked, so it does not matter where names lead to.

    Raises
    ------
    ValueError, OSError
        It is damaged, or not such a file.
    """
    try:
        with open_gzip(path, "rb") as stream, tarfile.open(fileobj=stream, mode="r|") as file:
            for member in file:
                content = file.extractfile(member) if member.isfile() else None
                if content is not None:
                    yield member.name, content
    except tarfile.TarError as error:
        raise ValueError(f"{error}") from error
