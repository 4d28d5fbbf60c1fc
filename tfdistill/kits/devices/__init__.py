"""The devices that a kit can be made for: a module for each.

A module has

- `NAME`: name of the device, and of its folder in `export/`;
- `refusals(description, report)`: list of pairs of texts, such as `tfdistill.kits.refusals.Obstacle`: why the device cannot run the file, and what would do. Empty if
  it can. Called before anything is written. `report` is the file's `FileInspection`;
- `made_files(description)`: dict of path in the kit -> bytes: the files that are made for this model, beside those of `export/<NAME>/`, the model, its labels,
  `model.json` and the vectors. A path of `export/<NAME>/` is replaced by a made file of the same path.

It may also have `Runner`, a class like `tfdistill.kits.vectors.LiteRT` that makes the outputs of the vectors with other kernels, and `notes(description, report)`: list
of texts that are said in the record.

`description` is a `tfdistill.kits.description.Description`: the dict that is written as `model.json`, with the bytes of the model in `description.content`.
"""

import importlib
import typing

from tfdistill.errors import ConfigurationError, nearest

Device = typing.Literal["raspberry_pi", "android", "web", "microcontroller"]
DEVICES: tuple[Device, ...] = typing.get_args(Device)


def device_module(name):
    """Returns the module of a device.

    Raises:
        ConfigurationError: if there is no such device; with the nearest name.
    """
    if name not in DEVICES:
        raise ConfigurationError(f"There is no kit for {name!r}.", f"one of {', '.join(DEVICES)}", nearest(str(name), DEVICES))
    return importlib.import_module(f"tfdistill.kits.devices.{name}")
