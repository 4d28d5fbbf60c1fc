"""Environments of packages that cannot live beside TensorFlow and TFMOT: programs of others that read our files."""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys


def python_with(*requirements):
    """Returns the Python interpreter of an environment that has some packages. It is made at the first use on a machine, and kept in the user's cache.

    Args:
        *requirements: What pip installs, with versions.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = hashlib.sha256("\n".join([version, *sorted(requirements)]).encode()).hexdigest()[:16]
    folder = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "tfdistill-tests" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    python, done = folder / "bin/python", folder / "done"
    with _locked(folder.with_suffix(".lock")):
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run has left
            run([sys.executable, "-m", "venv", folder])
            run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], timeout=600)
            done.write_text("\n".join(requirements) + "\n")
    return python


def run(command, timeout=300):
    """Runs a command without the present environment's packages; returns what it printed. What fails says what was printed."""
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "TF_"))}
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, env=settings, timeout=timeout)
    assert done.returncode == 0, f"{command} failed: {done.stdout}\n{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def _locked(path):
    """Lets one process at a time make an environment."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
