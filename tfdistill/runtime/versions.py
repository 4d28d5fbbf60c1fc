"""Which version of each operation a runtime on devices has: tables of data, measured (`make operations`).

The converter raises the version of an operation when it uses what only newer runtimes can do, and a runtime refuses a file with a version that it does not know.
"""

import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import typing

from tfdistill.errors import ConfigurationError, nearest

RuntimeName = typing.Literal["tflite-runtime-2.14", "tflite-micro"]
RUNTIMES: tuple[RuntimeName, ...] = typing.get_args(RuntimeName)
FOLDER = pathlib.Path(__file__).parent / "operation_versions"


@dataclasses.dataclass(frozen=True)
class RuntimeVersions:
    """The operations of a runtime.

    Attributes:
        name: One of `RUNTIMES`.
        runtime: Name and version of the package that was measured.
        operations: Name of each operation that it has, as in the .tflite schema -> the newest version that it opens; None if it does not look at versions.
    """

    name: str
    runtime: str
    operations: dict[str, int | None]

    def refuses(self, operation, version):
        """Returns why the runtime does not open an operation, as `FULLY_CONNECTED version 12 (up to 10 there)`; None if it does.

        Args:
            operation: Its name in the .tflite schema.
            version: Its version in the file.
        """
        if operation not in self.operations:
            return operation
        newest = self.operations[operation]
        return None if newest is None or version <= newest else f"{operation} version {version} (up to {newest} there)"


def require_runtime(name):
    """Refuses what is not the name of a runtime.

    Raises:
        ConfigurationError: with the nearest name.
    """
    if not isinstance(name, str) or name not in RUNTIMES:
        raise ConfigurationError(
            f"There is no table of the runtime {name!r}.", f"one of {', '.join(RUNTIMES)}", nearest(str(name), RUNTIMES)
        )


@functools.cache
def runtime_versions(name):
    """Returns the `RuntimeVersions` of a runtime.

    Raises:
        ConfigurationError: if there is no such runtime.
    """
    require_runtime(name)
    content = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    return RuntimeVersions(content["name"], content["runtime"], content["operations"])


def installed_version(engine):
    """Returns the version of an installed runtime by its import name; an empty text where it is not known."""
    try:
        return importlib.metadata.version(engine.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return ""
