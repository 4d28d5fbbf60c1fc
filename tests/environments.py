"""Python environments of their own for the tests that need other packages than this one, made once for each machine and kept."""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys


def python_with(*requirements, python=sys.executable):
    """Returns the path of a Python interpreter that has these packages.

    Args:
        requirements: What pip is to install, such as `"numpy<2"`.
        python: The interpreter that it is made of.

    Raises:
        subprocess.CalledProcessError: if they cannot be installed; pip says why on the screen.
    """
    own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}

    def make(folder):
        subprocess.run([python, "-m", "venv", folder], check=True, env=own)
        pip = [folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, env=own)

    return str(made_once("python", [python, sorted(requirements)], make) / "bin" / "python")


def emulated_boards(*requirements):
    """Returns the folder of the programs `pi4` and `pi5`: Pythons of emulated Raspberry Pis that have these packages. tests/arm_sysroot.sh makes it.

    Args:
        requirements: What pip would install there, with versions.

    Raises:
        subprocess.CalledProcessError: if it cannot be made.
    """
    script = pathlib.Path(__file__).with_name("arm_sysroot.sh")

    def make(folder):
        subprocess.run(["bash", script, folder, *requirements], check=True, env={**os.environ, "PYTHON": sys.executable})

    return made_once("boards", [script.read_text(encoding="utf-8"), sorted(requirements)], make)


def made_once(name, key, make):
    """Returns a folder that `make(folder)` has filled: once for each `key`, a value that JSON can hold."""
    named = json.dumps(key)
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "tfdistill-tests")
    folder = cache / f"{name}-{hashlib.sha256(named.encode()).hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    # Of several test processes one makes it, and the others wait.
    with open(cache / f"{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / "whole").write_text(named, encoding="utf-8")
    return folder
