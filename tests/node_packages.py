"""Packages of npm for the tests that need them."""

import subprocess

from environments import made_once


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
