"""A lock that lets one process at a time write a folder."""

import contextlib
import os
import pathlib
import re
import socket

from tfdistill.errors import ConfigurationError
from tfdistill.utils.files import open_regular

LOCK = ".lock"
_HOLDER = re.compile(r"(process \d+ on \S*\n)?")
_LONGEST = 512


@contextlib.contextmanager
def only_writer(directory):
    """Locks a folder for this process while the block runs. The operating system releases the lock when the process ends, however it ends.

    The lock is a file `.lock` that names its holder. Any other file of that name, such as a link, is never written.

    Args:
        directory: An existing folder.

    Raises:
        ConfigurationError: if another writer holds the folder, naming its process; or the file cannot serve as a lock.
    """
    import fcntl  # Windows has none: there caches can only be read

    path = pathlib.Path(directory) / LOCK
    # filelock's locks truncate the file that they open, and do not name their holder.
    try:
        descriptor = open_regular(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    with open(descriptor, "r+", encoding="utf-8", errors="replace", newline="") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigurationError(
                f"The folder '{directory}' is being written by {file.read(_LONGEST).strip() or 'another process'}.",
                "one writer to a folder",
                "wait for it to end, or choose another folder",
            ) from error
        if os.fstat(descriptor).st_nlink != 1 or not _HOLDER.fullmatch(file.read(_LONGEST)):
            raise _unusable(path, "it is not a lock of tfdistill")
        file.seek(0)
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def is_lock(path):
    """Whether a file is a lock that `only_writer` made."""
    try:
        descriptor = open_regular(path)
    except OSError:
        return False
    with open(descriptor, encoding="utf-8", errors="replace", newline="") as file:
        return os.fstat(descriptor).st_nlink == 1 and _HOLDER.fullmatch(file.read(_LONGEST)) is not None


def _unusable(path, why):
    return ConfigurationError(f"The lock '{path}' cannot be used: {why}.", "no file of that name, or a lock", "choose another folder")
