"""Files from the web, streamed to disk."""

from __future__ import annotations

import base64
import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path
from tempfile import mkstemp
from typing import IO, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from atlaswriter.errors import InputError, Problem
from atlaswriter.units import format_bytes

Progress = Callable[[int, int | None], None]

_SCHEMES = ("http", "https")
_PIECE_BYTES = 1 << 20

_PHRASES = {status.value: status.phrase for status in HTTPStatus}
_REDIRECTIONS = range(300, 400)
_ASTRAY = "leads to no address of the web (http or https), or in a circle"

_CHECK = "check the address, or download it yourself and give the file"
_AGAIN = "try again, or download it yourself and give the file"
_SMALLER = "raise the limit if it is meant to be so large"


def is_url(text: object) -> bool:
    """Whether something is an address of the web, not a path."""
    return isinstance(text, str) and text.partition("://")[0].lower() in _SCHEMES and "://" in text


def shown(url: str) -> str:
    """An address for messages, without user, password and query, which often hold secrets."""
    with suppress(ValueError):
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    return "URL"


def download(url: str, folder: Path, *, limit: int, timeout: float, progress: Progress | None = None) -> Path:
    """Fetch a file to a folder.

    Parameters
    ----------
    url
        ``http://`` or ``https://``, as must be every address it leads on to. A user and password in it are sent to
        its host only.
    folder
        Where the file goes, under a name of our own.
    limit
        Bytes beyond which it is refused.
    timeout
        Seconds without a single byte after which it is given up.
    progress
        Told the bytes that are there and how many there will be (None: not known) after each piece of at most 1 MiB.

    Returns
    -------
    Path
        The file; none is left when it fails.

    Raises
    ------
    InputError
        It cannot be fetched, is cut short, or is too large; user, password and query of the address are not told.
    """
    where = shown(url)
    request = _request(url, where)
    descriptor, name = mkstemp(".part", "download-", folder)
    path = Path(name)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file, _opened(request, timeout, where) as response:
            free = shutil.disk_usage(folder).free
            _fetch(response, file, limit, free, progress or (lambda _done, _whole: None), where)
    except BaseException as error:
        with suppress(OSError):
            path.unlink()
        if isinstance(error, TimeoutError):
            raise InputError(Problem(where, f"sent nothing for {timeout:g} seconds", _AGAIN)) from None
        if isinstance(error, OSError | http.client.HTTPException) and not isinstance(error, InputError):
            raise InputError(Problem(where, f"cannot be downloaded ({_reason(error)})", _AGAIN)) from None
        raise
    return path


def _request(url: str, where: str) -> urllib.request.Request:
    """What is asked of the server; a user and password go into a header that does not follow redirections."""
    try:
        parts = urlsplit(url)
        if parts.scheme.lower() not in _SCHEMES or not parts.hostname:
            raise ValueError
        plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
        request = urllib.request.Request(plain, headers={"Accept-Encoding": "identity", "User-Agent": "atlaswriter"})  # noqa: S310 - checked above
    except ValueError:
        raise InputError(Problem(where, "is no address of the web (http or https)", _CHECK)) from None
    if parts.username is not None:
        secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(secret).decode()}")
    return request


class _Redirected(urllib.request.HTTPRedirectHandler):
    """Follows to addresses of the web only."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not is_url(newurl):
            raise urllib.error.URLError(f"it {_ASTRAY}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opened(request: urllib.request.Request, timeout: float, where: str) -> http.client.HTTPResponse:
    # An opener of urllib's own would read local files and FTP too.
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.HTTPDefaultErrorHandler(),
        _Redirected(),
    ):
        opener.add_handler(handler)
    try:
        response: http.client.HTTPResponse = opener.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        answer = f"answers {error.code} {_PHRASES.get(error.code, '')}".rstrip()
        found = f"{answer} and {_ASTRAY}" if error.code in _REDIRECTIONS else answer
        raise InputError(Problem(where, found, _CHECK)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            raise error.reason from None
        raise InputError(Problem(where, f"cannot be reached ({_reason(error.reason)})", _CHECK)) from None
    except ValueError as error:  # such as control characters in an address
        raise InputError(Problem(where, f"cannot be reached ({error})", _CHECK)) from None
    return response


def _fetch(
    response: http.client.HTTPResponse, file: IO[bytes], limit: int, free: int, progress: Progress, where: str
) -> None:
    whole = response.length  # None where the server does not tell
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise InputError(Problem(where, f"comes compressed by {encoding[:20]!a}, unasked", "download it yourself"))
    if whole is not None and whole > limit:
        found = f"has {format_bytes(whole)}, more than the {format_bytes(limit)} allowed"
        raise InputError(Problem(where, found, _SMALLER))
    if whole is not None and whole > free:
        found = f"has {format_bytes(whole)}, and {format_bytes(free)} are free on the disk"
        raise InputError(Problem(where, found, "free some space, or choose another folder for temporary files"))
    n = 0
    while piece := response.read(min(_PIECE_BYTES, limit + 1 - n)):
        n += len(piece)
        if n > limit:
            raise InputError(Problem(where, f"has more than the {format_bytes(limit)} allowed", _SMALLER))
        _write_all(file, piece)
        progress(n, whole)
    if whole is not None and n < whole:
        raise InputError(Problem(where, f"was cut short: {n} of {whole} bytes arrived", _AGAIN))


def _write_all(file: IO[bytes], piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]


def _reason(error: object) -> str:
    """What went wrong, in a line."""
    if isinstance(error, http.client.IncompleteRead):
        return f"it was cut short after {len(error.partial)} bytes of a piece"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).partition("\n")[0]
