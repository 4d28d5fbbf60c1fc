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
    named = json.dumps([python, sorted(requirements)])
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"), "tfdistill-tests")
    folder = cache / hashlib.sha256(named.encode()).hexdigest()[:16]
    cache.mkdir(parents=True, exist_ok=True)
    made = folder / "bin" / "python"
    # Of several test processes one makes it, and the others wait.
    with open(cache / f"{folder.name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            own = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")}
            subprocess.run([python, "-m", "venv", folder], check=True, env=own)
            subprocess.run([made, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements], check=True, env=own)
            (folder / "whole").write_text(named, encoding="utf-8")
    return str(made)
