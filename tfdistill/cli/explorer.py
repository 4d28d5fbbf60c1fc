"""Opens a .tflite file in Model Explorer, a program of its own that shows a file's operations in the browser."""

import json
import pathlib
import re
import shutil
import socket
import subprocess
import sys

from tfdistill.errors import MissingPackageError
from tfdistill.report.explorer import explorer_data
from tfdistill.utils.files import temporary_folder

PROGRAM = "model-explorer"


def explorer_program():
    """Returns the path of Model Explorer's program: that of this environment, else the first on the path.

    Raises:
        MissingPackageError: if it is not installed.
    """
    own = pathlib.Path(sys.executable).with_name(PROGRAM)
    found = str(own) if own.is_file() else shutil.which(PROGRAM)
    if found is None:
        raise MissingPackageError(
            "The package 'ai-edge-model-explorer' is not installed; it is needed to open a file in Model Explorer.",
            "its program model-explorer, in any environment whose programs are on the path",
            "pip install ai-edge-model-explorer",
        )
    return found


def explore(program, file, inspection, target):
    """Shows a file until the user ends it with Ctrl+C. The server listens on this machine alone.

    Args:
        program: What `explorer_program` returned.
        file: The `ModelFile`: the bytes that were inspected are those that are shown.
        inspection: Its `FileInspection`.
        target: Name of the target whose colors the operations have.
    """
    with temporary_folder() as folder:
        # Model Explorer takes a comma for the end of a path.
        model = folder / (re.sub(r"[^\w.-]", "_", pathlib.Path(file.path).stem) + ".tflite")
        model.write_bytes(file.content)
        colors = folder / f"{target}.json"
        colors.write_text(json.dumps(explorer_data(inspection, target)), encoding="utf-8")
        arguments = ["--host", "127.0.0.1", "--port", str(_free_port()), "--node_data_paths", str(colors)]
        process = subprocess.Popen([program, str(model), *arguments])
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()  # Ctrl+C in a terminal reaches both
        finally:
            process.kill()
            process.wait()


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
