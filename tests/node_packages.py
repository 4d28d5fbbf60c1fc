"""Packages of npm for the tests that need them, and other things that are made once for each machine and kept."""

import fcntl
import hashlib
import json
import os
import pathlib
import shutil
import subprocess


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


def node_modules(*requirements):
    """Returns the folder `node_modules` that has these packages; their install scripts are not run.

    Args:
        requirements: What npm is to install, such as `"kotlin-compiler@2.3.0"`.

    Raises:
        subprocess.CalledProcessError: if they cannot be installed; npm says why on the screen.
    """
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error")
    install = ["npm", "install", *quiet, "--prefix"]
    return (
        made_once("npm", sorted(requirements), lambda folder: subprocess.run([*install, folder, *requirements], check=True))
        / "node_modules"
    )
