"""Finds the files that are copied to devices."""

import pathlib

from tfdistill.errors import ConfigurationError

_PACKAGE = pathlib.Path(__file__).parents[1]


def device_folder(name):
    """Returns the folder of a kind of device, with the files that its kit copies.

    Args:
        name: Kind of device, such as `"raspberry_pi"`.

    Raises:
        ConfigurationError: if there is no such folder.
    """
    for root in (_PACKAGE.parent / "export", _PACKAGE / "export"):  # in a checkout; in an installed package
        if (root / name).is_dir():
            return root / name
    raise ConfigurationError(f"This installation of tfdistill has no files for '{name}'.", f"a folder export/{name}")
