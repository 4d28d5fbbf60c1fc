"""Where the files of `export/` are: at the top of a checkout, or inside the package where it was installed from a wheel."""

import pathlib

from tfdistill.errors import ConfigurationError, nearest

_PACKAGE = pathlib.Path(__file__).parents[1]
# setup.py copies `export/` into the package of a wheel.
_PLACES = (_PACKAGE / "export", _PACKAGE.parent / "export")


def device_folder(name):
    """Returns the folder of the files that go to a kind of device.

    Args:
        name: Name of the folder in `export/`, such as `"raspberry_pi"`.

    Returns:
        `pathlib.Path` of the folder.

    Raises:
        ConfigurationError: if there is no such folder.
    """
    found = {folder.name: folder for place in reversed(_PLACES) if place.is_dir() for folder in place.iterdir() if folder.is_dir()}
    if name not in found:
        raise ConfigurationError(f"There are no files for the device {name!r}.", "a folder of export/", nearest(str(name), found))
    return found[name]


def shipped_files(name):
    """Reads the files that go to a kind of device.

    Args:
        name: Name of the folder in `export/`.

    Returns:
        Dict of path in the folder, with `/` between its parts -> bytes. What programs left there, such as `__pycache__`, is left out.

    Raises:
        ConfigurationError: if there is no such folder.
    """
    folder = device_folder(name)
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and not _is_left_over(path.relative_to(folder)))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _is_left_over(path):
    return any(part in ("__pycache__", ".gradle", "build", "node_modules") for part in path.parts) or path.suffix in (".pyc", ".swp")
