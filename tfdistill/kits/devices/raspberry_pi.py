"""Raspberry Pi and other small computers with Linux."""

from tfdistill.runtime.versions import runtime_versions

NAME = "raspberry_pi"
# tflite-runtime computes integers with kernels that LiteRT has too, but does not take by default: the vectors hold the outputs of both.
OLD_RUNTIMES = True
_OLD = "tflite-runtime-2.14"


def refusals(description, report):
    """Returns an empty list: LiteRT is the runtime there, which has what runs here."""
    return []


def made_files(description):
    """Returns an empty dict: the folder of the device reads `model.json`."""
    return {}


def notes(description, report):
    """Says which operations boards without LiteRT (32-bit systems, Python 3.8 and 3.9) do not have."""
    lacking = report.runtimes[_OLD]
    if not lacking:
        return []
    return [f"{runtime_versions(_OLD).runtime}, for 32-bit systems, does not open the file: it lacks {', '.join(lacking)}."]
