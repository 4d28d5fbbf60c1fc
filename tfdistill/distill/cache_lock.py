"""One writer to a folder."""

import contextlib
import os
import pathlib
import socket

from tfdistill.errors import ConfigurationError

LOCK = ".lock"


@contextlib.contextmanager
def only_writer(directory):
    """Holds a folder for this process while the block runs. The operating system lets go of it when the process ends, however it ends.

    Args:
        directory: An existing folder.

    Raises:
        ConfigurationError: if another writer holds the folder, naming its process.
    """
    import fcntl  # not on Windows, where reading works all the same

    path = pathlib.Path(directory) / LOCK
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigurationError(
                f"The folder '{directory}' is being written by {file.read().strip() or 'another process'}.",
                "one writer to a folder",
                "wait for it to end, or choose another folder",
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
