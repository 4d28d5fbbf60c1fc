"""What native libraries print while a block runs, and which lines of it are reasons."""

import os
import pathlib
import subprocess
import sys

import pytest

from tfdistill.runtime.said import Said, listening

PRINTED = """INFO: [environment.cc:36] Creating LiteRT environment with options
WARNING: Logging before InitGoogle() is written to STDERR
I0000 00:00:1795732487.846308   20581 environment.cc:532] Selected adapter
E0000 00:00:1795732558.060775   22188 delegate_webgpu.cc:736] Failed to get the environment: no adapters
=== Source Location Trace: ===
third_party/odml/litert/ml_drift/delegate/delegate_webgpu.cc:432
ERROR: [delegate_webgpu.cc:359] No adapters found
WARNING: [compiler_plugin.cc:955] Applying plugin with unknown SDK version, because nobody says it.

ERROR: Following operations are not supported by GPU delegate:
CONV_2D: Tensor type(INT16) is not supported.
CONV_2D: Tensor type(INT16) is not supported.
"""


def test_reasons_are_what_is_no_progress():
    said = Said()
    said.text = PRINTED
    assert said.reasons().splitlines() == [
        "Failed to get the environment: no adapters",
        "No adapters found",
        "Following operations are not supported by GPU delegate:",
        "CONV_2D: Tensor type(INT16) is not supported.",
    ]
    assert said.reasons(lines=1) == "CONV_2D: Tensor type(INT16) is not supported."


def test_of_a_process_whose_errors_go_elsewhere():
    with listening() as said:
        os.write(2, b"to the descriptor\n")
    assert "to the descriptor" in said.text


JOB = """
import os, sys
sys.path.insert(0, sys.argv[1])
from tfdistill.runtime.said import listening
os.write(2, b"before\\n")
with listening() as said:
    os.write(2, b"inside\\n")
    try:
        with listening() as inner:
            raise OSError
    except OSError:
        os.write(2, b"again\\n")
print(repr(said.text), repr(inner.text))
if len(sys.argv) > 2:
    with listening():
        os.write(2, b"last words\\n")
        os.abort()
"""


@pytest.mark.parametrize("crashes", [False, True])
def test_of_a_process_whose_errors_go_into_a_file(crashes, tmp_path):
    """It is read there, not redirected: what a crash interrupts is there as well."""
    log = tmp_path / "log"
    with open(log, "w+b") as file:
        arguments = [str(pathlib.Path(__file__).parents[2]), *(["crash"] if crashes else [])]
        done = subprocess.run([sys.executable, "-c", JOB, *arguments], stdout=subprocess.PIPE, stderr=file, check=False, text=True)
    assert done.stdout == "'inside\\nagain\\n' ''\n"
    assert log.read_text().startswith("before\ninside\nagain\n")
    assert ("last words" in log.read_text()) == crashes
    assert (done.returncode != 0) == crashes
