"""Files that appear whole or not at all."""

import contextlib
import os
import pathlib
import shutil
import tempfile

from tfdistill.errors import ConfigurationError


@contextlib.contextmanager
def write_whole(path):
    """Gives a temporary path beside `path` and renames it into place when the block ends without an error.

    A reader sees the old file or the new one, never a part; a block that raises leaves the old file alone and nothing else behind.

    Args:
        path: The file to write. Its folder is made if it is missing.

    Yields:
        `pathlib.Path` of the temporary file, with the same suffix as `path` (some writers choose their format by it).

    Raises:
        ConfigurationError: if the folder cannot be written.
    """
    path = pathlib.Path(path)
    writable_folder(path.parent)
    if path.is_dir():
        raise ConfigurationError(f"'{path}' is a folder.", "the name of a file to write")
    handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=path.suffix, dir=path.parent)
    os.close(handle)
    beside = pathlib.Path(name)
    try:
        yield beside
        umask = os.umask(0)
        os.umask(umask)
        beside.chmod(0o666 & ~umask)  # mkstemp makes 0600; a result is an ordinary file
        with open(beside, "rb") as done:
            os.fsync(done.fileno())
        os.replace(beside, path)
    finally:
        if beside.is_dir():
            shutil.rmtree(beside)
        beside.unlink(missing_ok=True)


def writable_folder(path):
    """Makes the folder `path` if it is missing and proves that a file can be written there.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ConfigurationError: if it cannot be made or written, with the operating system's reason.
    """
    path = pathlib.Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigurationError(
            f"The folder '{path}' cannot be written: {error.strerror or error}.",
            "a folder in which files can be made",
            "choose another folder, or change its permissions",
        ) from error
    return path
