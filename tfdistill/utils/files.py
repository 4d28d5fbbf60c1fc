"""Writes files completely or not at all."""

import contextlib
import errno
import os
import pathlib
import re
import shutil
import stat
import tempfile

from tfdistill.errors import ConfigurationError

# A file is written inside a folder with this prefix, next to its destination.
PREFIX = ".tfdistill-"
_LOCK = ".tfdistill.lock"
_KINDS = {stat.S_IFIFO: "a named pipe", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}


@contextlib.contextmanager
def write_whole(path, follow_links=True):
    """Yields a temporary path and renames the file to `path` when the block ends without an error.

    A reader sees the old file or the new one, never a part of it. If the block raises, the old file stays and nothing else is left. The
    content is on disk when the block ends. A new file gets the permissions that `open` would give it; an existing file keeps its
    permissions, and its owner if the system allows it. A symbolic link stays, and the file that it points to is replaced. Other hard links
    of an existing file keep the old content.

    The temporary file is in a folder `.tfdistill-????????` next to the destination, which its writer keeps locked. If a killed process
    leaves such a folder behind, the next call that writes into the same folder removes it.

    Args:
        path: The file to write. Its folder is created if missing.
        follow_links: Whether to follow a symbolic link. If not, a link raises.

    Yields:
        `pathlib.Path` of the temporary file, with the same suffix as `path` (some writers choose their format by it).

    Raises:
        ConfigurationError: if the folder cannot be written, or if `path` is a folder, a named pipe, a device, a read-only file or an
            invalid name.

    Example:
        >>> with write_whole("result.txt") as temporary:
        ...     temporary.write_text("all of it")
    """
    target = _target(pathlib.Path(path), follow_links)
    writable_folder(target.parent)
    with temporary_folder(target.parent) as folder:
        temporary = folder / _name_for_writers(target)
        # Created here, so that the kernel applies the umask, and any default access list of the folder.
        created = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        mode = os.fstat(created).st_mode
        os.close(created)
        yield temporary
        _into_place(temporary, target, stat.S_IMODE(mode))


@contextlib.contextmanager
def temporary_folder(parent=None):
    """Yields a new folder that is removed when the block ends.

    Only the user of this process can read it. If the process is killed, the next call with the same parent removes the folder.

    Args:
        parent: Folder to create it in; None is the system's folder for temporary files.

    Yields:
        `pathlib.Path` of the folder.
    """
    parent = tempfile.gettempdir() if parent is None else parent
    clear_leftovers(parent)
    folder, lock = None, None
    while lock is None:
        folder = pathlib.Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = _lock(folder)
    try:
        yield folder
    finally:
        if os.name == "nt":  # where an open file cannot be removed
            os.close(lock)
        shutil.rmtree(folder, ignore_errors=True)
        if os.name != "nt":
            os.close(lock)


def clear_leftovers(folder):
    """Removes the folders that `write_whole` and `temporary_folder` of killed processes left behind; those of running processes stay."""
    try:
        import fcntl
    except ImportError:  # Windows, where a killed writer cannot be told from a running one
        return
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if is_temporary(name):
                with contextlib.suppress(OSError):
                    _clear(pathlib.Path(folder) / name, fcntl)


def is_temporary(name):
    """Whether a name is that of a folder of `write_whole` or `temporary_folder`."""
    return re.fullmatch(re.escape(PREFIX) + "[a-z0-9_]{8}", name) is not None


def open_regular(path, flags=os.O_RDONLY):
    """Opens a regular file and nothing else: symbolic links are not followed, and a named pipe does not block.

    Args:
        path: The file.
        flags: As for `os.open`.

    Returns:
        The descriptor.

    Raises:
        OSError: as `os.open` does; with ELOOP for a symbolic link, EINVAL for what is no regular file.
    """
    if not hasattr(os, "O_NOFOLLOW") and os.path.islink(path):
        raise OSError(errno.ELOOP, "is a symbolic link", str(path))
    try:
        descriptor = os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if os.path.islink(path):
            raise OSError(errno.ELOOP, "it is a symbolic link", str(path)) from error
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return descriptor


def writable_folder(path):
    """Creates the folder `path` if it is missing and checks that files can be written there.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ConfigurationError: if it cannot be created or written, with the operating system's reason.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"The folder '{path}' cannot be written: {getattr(error, 'strerror', None) or error}.",
            "a folder in which files can be made",
            "choose another folder, or change its permissions",
        ) from error
    return path


def _target(path, follow_links):
    """Returns the path to replace: `path` or the file that it links to. Raises if it cannot be replaced by a file."""
    try:
        target = pathlib.Path(os.path.realpath(path)) if follow_links else path
        found = target.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return target  # a new file; whether its folder can be written is checked next
    except (OSError, ValueError) as error:
        raise ConfigurationError(
            f"'{path}' cannot be written: {getattr(error, 'strerror', None) or error}.", "the name of a file to write"
        ) from error
    if stat.S_ISLNK(found):
        what = "is a symbolic link that leads to itself" if follow_links else "is a symbolic link"
        raise ConfigurationError(f"'{path}' {what}.", "the name of a file to write")
    if stat.S_ISDIR(found):
        raise ConfigurationError(f"'{path}' is a folder.", "the name of a file to write")
    if not stat.S_ISREG(found):
        raise ConfigurationError(f"'{path}' is {_KINDS.get(stat.S_IFMT(found), 'no regular file')}.", "the name of a regular file to write")
    if not found & 0o222 or not os.access(target, os.W_OK):
        raise ConfigurationError(
            f"'{path}' is read-only (mode {stat.S_IMODE(found):o}).",
            "a file that may be written",
            f"write to another file, or allow it: os.chmod({str(target)!r}, 0o{stat.S_IMODE(found) | 0o200:o})",
        )
    return target


def _lock(folder):
    """Locks a new folder; returns the descriptor of the lock, or None if another process has just removed the folder as a leftover."""
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except FileNotFoundError:
        return None
    try:
        import fcntl

        fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except ImportError:
        return descriptor
    except FileNotFoundError:
        pass
    except OSError:  # a file system without locks, where leftovers are not recognized and stay
        return descriptor
    os.close(descriptor)
    return None


def _clear(folder, fcntl):
    """Removes a folder of `temporary_folder` that is not locked."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        return
    try:
        descriptor = open_regular(folder / _LOCK, os.O_RDWR)
    except FileNotFoundError:
        folder.rmdir()  # not locked yet: its writer was killed, or will create another folder
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The lock file goes last: a folder with files but without a lock file is never removed.
        for inside in folder.iterdir():
            if inside.name != _LOCK:
                shutil.rmtree(inside) if inside.is_dir() and not inside.is_symlink() else inside.unlink()
        shutil.rmtree(folder)
    finally:
        os.close(descriptor)


def _into_place(temporary, target, mode):
    """Sets the permissions of a finished file, renames it to its destination, and flushes both to disk."""
    with contextlib.suppress(FileNotFoundError):
        old = target.lstat()
        mode = stat.S_IMODE(old.st_mode)
        if not _take_owner(temporary, old):
            mode &= 0o777
    with open(temporary, "r+b") as done:
        temporary.chmod(mode)
        os.fsync(done.fileno())
    try:
        os.replace(temporary, target)
    except OSError as error:
        raise ConfigurationError(
            f"'{target}' cannot be replaced: {error.strerror or error}.", "a file that may be replaced", "write to another file"
        ) from error
    with contextlib.suppress(OSError):  # some systems cannot open a folder, and some file systems cannot flush it
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _take_owner(temporary, old):
    """Gives a file the owner and group of the one that it replaces; returns whether it has both."""
    if not hasattr(os, "chown"):
        return True
    for owner in ((old.st_uid, -1), (-1, old.st_gid)):
        with contextlib.suppress(OSError):
            os.chown(temporary, *owner)
    new = temporary.stat()
    return (new.st_uid, new.st_gid) == (old.st_uid, old.st_gid)


def _name_for_writers(target):
    """Returns the name of the temporary file: that of the destination, unless it has bytes that are not UTF-8, which C++ code rejects."""
    if target.name != _LOCK and not re.search("[\udc80-\udcff]", target.name):
        return target.name
    return "file" + ("" if re.search("[\udc80-\udcff]", target.suffix) else target.suffix)
