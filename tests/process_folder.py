"""A temporary folder for each process of tests, for files that its tests share."""

import pathlib
import tempfile

FOLDER = tempfile.TemporaryDirectory(prefix="tfdistill-files-")  # removed at the end of the process


def new_folder():
    """Returns a new folder inside it."""
    return pathlib.Path(tempfile.mkdtemp(dir=FOLDER.name))
