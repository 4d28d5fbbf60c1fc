"""The folder of a cache, and which files in it belong to the cache. No other file is written, read or removed."""

import contextlib
import os
import pathlib
import re
import stat

from tfdistill.distill.cache.lock import LOCK, is_lock, only_writer
from tfdistill.distill.cache.manifest import MANIFEST, PLAN, Settings, Shard, load_manifest, load_signed, shard_record_name
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.utils.files import clear_leftovers, is_temporary, writable_folder

# Names that earlier versions of the library gave to unfinished files.
_EARLIER = re.compile(r"\.(shard-\d{5,}|manifest|plan)\.[a-z0-9_]+\.(tfrecord|json)")


@contextlib.contextmanager
def folder_to_write(directory):
    """Locks a folder for a writer of a cache while the block runs. The folder is made if it is missing.

    Args:
        directory: The folder.

    Yields:
        `pathlib.Path` of the folder.

    Raises:
        ConfigurationError: if the folder cannot be written, another writer holds it, or it is neither empty nor a cache.
        DataError: if the manifest or the plan in it is damaged.
    """
    directory = writable_folder(directory)
    check_folder(directory)
    with only_writer(directory):
        yield directory


def check_folder(directory):
    """Refuses a folder that is neither empty nor a cache: its files could be overwritten, or taken for those of a cache.

    Raises:
        ConfigurationError: naming files that are in the folder.
        DataError: if its manifest or plan is damaged, or was not written by `soft_targets`.
    """
    directory = pathlib.Path(directory)
    names = sorted(os.listdir(directory))
    if MANIFEST in names:
        load_manifest(directory)
    elif PLAN in names:
        load_signed(Settings, directory / PLAN)
    else:
        foreign = [name for name in names if not is_temporary(name) and not (name == LOCK and is_lock(directory / name))]
        if foreign:
            shown = ", ".join(repr(name) for name in foreign[:5]) + (", ..." if len(foreign) > 5 else "")
            raise ConfigurationError(
                f"The folder '{directory}' holds files that are not a cache's: {shown}.",
                "an empty folder, one that does not exist yet, or that of a cache",
                f"choose a folder inside it: '{directory / 'soft_targets'}'",
            )


def tidy(directory):
    """Removes what a finished cache does not need, and what killed writers left behind. The caller holds the folder's lock."""
    directory = pathlib.Path(directory)
    if os.path.lexists(directory / MANIFEST):
        shards = load_manifest(directory)[0].shards
        _remove_signed(Settings, directory / PLAN)
        for index in range(len(shards)):
            _remove_signed(Shard, directory / shard_record_name(index))
    clear_leftovers(directory)
    for name in os.listdir(directory):
        if _EARLIER.fullmatch(name) and _is_regular(directory / name):
            (directory / name).unlink()


def remove_cache(directory):
    """Removes the files of a finished cache, and no others. The folder and its lock stay.

    Raises:
        ConfigurationError: if another process writes the folder.
        DataError: if it holds no finished cache.
    """
    directory = pathlib.Path(directory)
    load_manifest(directory)
    with only_writer(directory):
        manifest, _ = load_manifest(directory)
        tidy(directory)
        # The manifest goes last: if this process is killed here, the rest can still be removed.
        for shard in manifest.shards:
            if _is_regular(directory / shard.file):
                (directory / shard.file).unlink()
        (directory / MANIFEST).unlink()


def _remove_signed(kind, path):
    """Removes a file that `save_signed` wrote; any other file of that name stays."""
    with contextlib.suppress(DataError):
        load_signed(kind, path)
        path.unlink()


def _is_regular(path):
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except FileNotFoundError:
        return False
