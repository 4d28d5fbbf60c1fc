"""Writes the folder of a kit completely or not at all, and replaces one only if nothing in it would be lost."""

import contextlib
import hashlib
import json
import os
import pathlib

from tfdistill.errors import ConfigurationError, DataError
from tfdistill.records import read_json
from tfdistill.utils.files import temporary_folder, writable_folder
from tfdistill.utils.hashing import sha256_of
from tfdistill.utils.shipped import is_left_over

# Names the files of a kit with their checksums: what `kit` may replace, and what the web page keeps for use without a network.
CONTENTS = "contents.json"


def require_place(out, overwrite):
    """Checks that a kit can be written to a folder.

    Args:
        out: The folder.
        overwrite: Whether a kit that is there may be replaced.

    Returns:
        `pathlib.Path` of the folder, with links followed.

    Raises:
        ConfigurationError: if there is something that is no kit or would be lost.
    """
    path = pathlib.Path(os.path.realpath(out))
    if path.exists() and not path.is_dir():
        raise ConfigurationError(f"'{out}' is a file.", "a folder to write")
    if path.is_dir() and any(path.iterdir()):
        _require_replaceable(path, overwrite)
    writable_folder(path.parent)
    return path


def write_kit(files, path, device, version):
    """Writes a folder.

    Args:
        files: Dict of path in the kit, with `/` -> bytes.
        path: As `require_place` returned it.
        device: Name of the device.
        version: Version of this package.

    Raises:
        ConfigurationError: if the folder cannot be written; an old one is there as before.
    """
    listed = {
        "format": 1,
        "device": device,
        "tfdistill": version,
        "files": {name: hashlib.sha256(files[name]).hexdigest() for name in sorted(files)},
    }
    files = {**files, CONTENTS: (json.dumps(listed, indent=1) + "\n").encode()}
    with temporary_folder(path.parent) as folder:
        new, old = folder / "new", folder / "old"
        for name, data in files.items():
            target = new / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            if data.startswith(b"#!"):  # wheels do not keep which files are programs
                target.chmod(target.stat().st_mode | (target.stat().st_mode & 0o444) >> 2)
        try:
            if path.exists():
                path.rename(old)
            try:
                new.rename(path)
            except OSError:
                if old.exists():
                    old.rename(path)
                raise
        except OSError as error:
            raise ConfigurationError(
                f"The folder '{path}' cannot be written: {error.strerror or error}.", "a folder that may be made there"
            ) from error


def _require_replaceable(path, overwrite):
    listed = {}
    with contextlib.suppress(DataError):
        found = read_json(path / CONTENTS)
        listed = found["files"] if isinstance(found.get("files"), dict) and isinstance(found.get("device"), str) else {}
    if not listed:
        raise ConfigurationError(f"The folder '{path}' is not empty, and no kit.", "a new folder, or an empty one", "choose another folder")
    if not overwrite:
        raise ConfigurationError(
            f"There is a kit in '{path}' already.",
            "a new folder, or an empty one",
            "choose another folder, or write overwrite=True (--overwrite)",
        )
    there = {found.relative_to(path).as_posix(): found for found in path.rglob("*") if not found.is_dir() or found.is_symlink()}
    own = [name for name in there if name != CONTENTS and not is_left_over(name) and _is_own(there[name], listed.get(name))]
    if own:
        raise ConfigurationError(
            f"The kit in '{path}' has files that are not as they were written: {', '.join(sorted(own)[:5])}{' ...' if len(own) > 5 else ''}.",
            "a kit in which nothing was changed",
            "move them to another place first, or choose another folder",
        )


def _is_own(path, checksum):
    return checksum is None or path.is_symlink() or not path.is_file() or sha256_of(path) != checksum
