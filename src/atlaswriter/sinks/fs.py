"""The few disk primitives, and the one seam where tests inject faults.

Nothing here knows what is written. Callers use the functions through the module (``fs.rename``),
so that a test can replace any of them.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

_WRITE_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_FOR_SYNC = os.O_RDWR if os.name == "nt" else os.O_RDONLY

_AT_FDCWD = -100
_RENAME_NOREPLACE, _RENAME_EXCHANGE = 1, 2  # linux/fs.h
_RENAME_SWAP, _RENAME_EXCL = 2, 4  # sys/stdio.h of macOS

# What systems answer when they lack a call or a file system lacks its flag; EPERM comes from the
# system call filters of older container engines.
_UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EPERM}


def _from_libc(name: str) -> Any:
    """A function of the C library, or None where there is none of this name."""
    return None if os.name == "nt" else getattr(ctypes.CDLL(None, use_errno=True), name, None)


def located(path: Path) -> Path:
    """The absolute path, with every link resolved except one in the last place."""
    if path.name in ("", ".."):
        return Path(os.path.realpath(path))
    return Path(os.path.realpath(path.parent)) / path.name


def nearest_existing(path: Path) -> Path:
    """The path itself or the closest of its parents that exists, as far as this process can see."""
    while not os.path.lexists(path) and path != path.parent:
        path = path.parent
    return path


def occupied(folder: Path) -> bool:
    """Whether the folder exists and holds anything."""
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except FileNotFoundError:
        return False


def file_sizes(folder: Path | str, prefix: str = "") -> Iterator[tuple[str, int]]:
    """``(relative name with forward slashes, bytes)`` of everything below but folders; nothing if it is gone."""
    try:
        listing = os.scandir(folder)
    except FileNotFoundError:
        return
    with listing as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield from file_sizes(entry.path, f"{prefix}{entry.name}/")
            else:
                yield prefix + entry.name, entry.stat(follow_symlinks=False).st_size


def write_file(path: Path | str, buffers: Iterable[Any]) -> int:
    """Write a new file, all of it.

    Parameters
    ----------
    path
        Must not exist.
    buffers
        Contiguous bytes-like objects, written one after the other.

    Returns
    -------
    int
        Bytes written.
    """
    descriptor = create(path)
    try:
        return sum(append(descriptor, buffer) for buffer in buffers)
    finally:
        os.close(descriptor)


def put(path: Path, content: bytes) -> None:
    """Write a file, on disk and in one step, in the place of the one that has its name if there is one."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(content)
    sync_file(temporary)
    replace(temporary, path)


def create(path: Path | str) -> int:
    """The descriptor of a new file; `OSError` if there is one of this name."""
    return os.open(path, _WRITE_NEW, 0o666)


def append(descriptor: int, buffer: Any) -> int:
    """Write a contiguous bytes-like object at the end of a file; its bytes."""
    rest = memoryview(buffer)
    size = rest.nbytes
    if size:  # an empty array with several axes cannot be cast
        rest = rest.cast("B")
    while rest.nbytes:
        rest = rest[os.write(descriptor, rest) :]
    return size


def overwrite(descriptor: int, buffer: Any, offset: int) -> None:
    """Write a contiguous bytes-like object over what begins at `offset`; later bytes are appended as before."""
    os.lseek(descriptor, offset, os.SEEK_SET)
    append(descriptor, buffer)
    os.lseek(descriptor, 0, os.SEEK_END)


def sync_tree(folder: Path) -> None:
    """Return when everything in the folder is on disk; raise `OSError` if it did not get there."""
    # Measured on 2,000 files of 20 kB (ext4): one syncfs 31 ms, an fsync of each file afterwards
    # 465 ms, an fsync of each file while writing 700 ms.
    if not _sync_file_system(folder):
        for base, _, names in os.walk(folder):
            for name in names:
                sync_file(Path(base, name))
            sync_dir(Path(base))


def sync_files(folder: Path, names: Iterable[str]) -> None:
    """As `sync_tree`, for some files of the folder."""
    if not _sync_file_system(folder):
        paths = [folder / name for name in names]
        for path in paths:
            sync_file(path)
        for parent in {path.parent for path in paths}:
            sync_dir(parent)


def _sync_file_system(folder: Path) -> bool:
    """Sync by one ``syncfs``; False where that does not exist or keeps write-back errors to itself."""
    if sys.platform != "linux" or _kernel() < (5, 8):
        return False
    syncfs = _from_libc("syncfs")
    if syncfs is None:
        return False
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        return _succeeded(syncfs(descriptor), folder)
    finally:
        os.close(descriptor)


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _succeeded(code: int, *paths: Path) -> bool:
    """Whether a C call did its work; False if it cannot here, `OSError` if it failed."""
    if code == 0:
        return True
    number = ctypes.get_errno()
    if number in _UNSUPPORTED:
        return False
    raise OSError(number, os.strerror(number), str(paths[0]), None, *(str(path) for path in paths[1:]))


def sync_file(path: Path) -> None:
    """Return when a file's content is on disk; raise `OSError` if it did not get there."""
    descriptor = os.open(path, _FOR_SYNC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_dir(folder: Path) -> None:
    """Return when the folder's own entries are on disk, where the system can promise that."""
    if os.name == "nt":
        return
    try:
        sync_file(folder)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise


def rename(old: Path, new: Path) -> None:
    """Rename a folder; `new` may be absent or an empty folder, else `OSError`."""
    if os.name == "nt" and new.is_dir():
        new.rmdir()  # Windows does not rename over a folder, not even an empty one
    os.rename(old, new)  # noqa: PTH104 - the seam of the crash tests


def exchange(first: Path, second: Path) -> bool:
    """Swap two folders so that nobody ever sees either name missing.

    Returns
    -------
    bool
        False, with nothing changed, where the system or the file system cannot do this.
    """
    return _renamed(first, second, _RENAME_EXCHANGE, _RENAME_SWAP)


def replace(old: Path, new: Path) -> None:
    """Rename a file, in the place of the one that has the new name if there is one."""
    os.replace(old, new)  # noqa: PTH105 - the seam of the crash tests


def rename_new(old: Path, new: Path) -> None:
    """Rename a file; `FileExistsError` if there is anything of the new name."""
    if os.name == "nt":
        os.rename(old, new)  # noqa: PTH104 - refuses by itself
    elif not _renamed(old, new, _RENAME_NOREPLACE, _RENAME_EXCL):
        try:
            os.link(old, new)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            _rename_where_free(old, new)
        else:
            old.unlink()


def _rename_where_free(old: Path, new: Path) -> None:
    """For file systems that can only look first."""
    if os.path.lexists(new):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(new))
    os.rename(old, new)  # noqa: PTH104


def _renamed(old: Path, new: Path, linux_flag: int, mac_flag: int) -> bool:
    """Rename with a condition; False, with nothing changed, where the system or the file system cannot do this."""
    a, b = os.fsencode(old), os.fsencode(new)
    if sys.platform == "linux" and (renameat2 := _from_libc("renameat2")) is not None:
        return _succeeded(renameat2(_AT_FDCWD, a, _AT_FDCWD, b, linux_flag), old, new)
    if sys.platform == "darwin" and (renamex_np := _from_libc("renamex_np")) is not None:
        return _succeeded(renamex_np(a, b, mac_flag), old, new)
    return False


def remove_tree(folder: Path) -> None:
    """Delete a folder and what is in it; a link is refused with `OSError`, a missing folder is fine."""
    if os.path.lexists(folder):
        shutil.rmtree(folder)


def case_sensitive(target: Path) -> bool:
    """Whether ``a`` and ``A`` are two names in the folder that is to be written.

    Asks the nearest existing parent, because that is where a new folder gets this property from.
    Nothing is left behind. True if the parent cannot be written to, which `check_target` reports.
    """
    try:
        descriptor, name = tempfile.mkstemp(prefix=".atlaswriter-case-", dir=nearest_existing(located(target).parent))
    except OSError:
        return True
    probe = Path(name)
    try:
        os.close(descriptor)
        return not os.path.lexists(probe.with_name(probe.name.upper()))
    finally:
        probe.unlink()
