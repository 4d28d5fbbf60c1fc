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
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if not is_left_over(name)}


def is_left_over(name):
    """Whether a path in a folder of a device is something that a program left there when it ran or was built.

    Args:
        name: The path in the folder, with `/` between its parts.
    """
    parts = name.split("/")
    return any(part in ("__pycache__", ".gradle", "build", "node_modules") for part in parts[:-1]) or parts[-1].endswith((".pyc", ".swp"))
