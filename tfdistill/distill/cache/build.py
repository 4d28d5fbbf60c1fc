"""Runs a teacher once and stores its outputs, the soft targets of Hinton et al. (2015, arXiv 1503.02531)."""

import os
import sys
from collections.abc import Callable
from typing import Any

import keras

from tfdistill.distill.cache import manifest, sources
from tfdistill.distill.cache.folder import folder_to_write, tidy
from tfdistill.distill.cache.manifest import MANIFEST, PLAN, Settings
from tfdistill.distill.cache.options import CacheOptions, checked_options
from tfdistill.distill.cache.plan import CachePlanner
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.distill.cache.writer import ShardWriter
from tfdistill.utils.progress import progress
from tfdistill.utils.types import Data, LogFunction, PathLike


def soft_targets(
    teacher: keras.Model | PathLike | Callable[..., Any],
    dataset: Data,
    directory: PathLike,
    options: CacheOptions | None = None,
    *,
    log_fn: LogFunction | None = None,
) -> SoftTargetCache:
    """Runs a teacher on every element of a data set, once, and stores its outputs in a folder.

    A run that was killed continues where it stopped when it is started again. If the folder holds a finished cache, it is only compared
    with the arguments. One process at a time writes a folder.

    Args:
        teacher: Whatever `Distiller` takes as a teacher, or a `RemoteTeacher` (an API). It runs in inference mode.
        dataset: `x`, `(x, y)` or `(x, y, sample_weight)` of arrays; a `tf.data.Dataset` of batches that come in the same order every time;
            or a `keras.utils.PyDataset`. Labels are not stored: training takes them from the data.
        directory: Folder of the cache; made if it is missing.
        options: `CacheOptions`: which outputs are stored, in what type and what portions. None stands for `CacheOptions()`.
        log_fn: Function that gets the plan of a new cache, one text, before anything is written. By default the plan is printed to standard
            error where `options` names layers.

    Returns:
        `SoftTargetCache`.

    Raises:
        ConfigurationError: if options contradict each other or the teacher, another process writes the folder, or the disk is too small.
        DataError: if the folder holds a cache of another teacher, of other data or with other options; if it is damaged; or if an output is
            NaN.
        ModelError: if a layer does not exist.
        BudgetExceededError: if the call budget of a `RemoteTeacher` is used up.

    Example:
        >>> cache = tfdistill.soft_targets(teacher, (x, y), "cache", options=tfdistill.CacheOptions(dtype="float32"))
        >>> cache.elements, cache.size_bytes
        (64, 2576)
        >>> distiller = tfdistill.Distiller(cache, student, tfdistill.losses.SoftTargets(4.0))
        >>> distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        >>> history = distiller.fit(cache.join((x, y), batch_size=16), verbose=0, shuffle=False)
    """
    options, source = checked_options(options), sources.as_source(dataset)
    if log_fn is None and options.layers:
        log_fn = _print_to_stderr
    with folder_to_write(directory) as directory:
        writer, planner, finished = begin(directory, teacher, source, options, log_fn)
        if not finished:
            elements = planner.plan().elements
            with progress("Running the teacher", elements and -(-elements // planner.settings.block)) as advance:
                writer.finish(writer.write_all(source, planner.query, planner.first_outputs, advance))
    return open_cache(directory, source, options.augment, check=finished)


def plan_soft_targets(teacher, dataset, options=None):
    """Finds what `soft_targets` would store and how large it would be. The teacher runs on one batch; nothing is written.

    Returns:
        `CachePlan`; its `str` is a description in words.
    """
    return CachePlanner(teacher, sources.as_source(dataset), checked_options(options)).plan()


def begin(directory, teacher, source, options, log_fn=None):
    """Begins a cache in a folder, or continues the one that is there. The caller holds the folder's lock.

    Args:
        directory: `pathlib.Path` of the folder.
        teacher, source, options: As for `CachePlanner`.
        log_fn: Function that gets the plan of a new cache as text before anything is written, or None.

    Returns:
        Its `ShardWriter`, the `CachePlanner`, and whether the cache is finished.

    Raises:
        ConfigurationError: if the options do not fit the teacher, or the disk is too small.
        DataError: if the folder holds another cache, or a damaged one.
    """
    finished, old = os.path.lexists(directory / MANIFEST), None
    if finished:
        old = manifest.load_manifest(directory)[0].settings
    elif os.path.lexists(directory / PLAN):
        old = manifest.load_signed(Settings, directory / PLAN)[0]
    planner = CachePlanner(teacher, source, options, old)
    if old is not None:
        planner.compare(old, directory)
    else:
        planner.check_disk_space(directory)
        if log_fn:
            log_fn(str(planner.plan()))
        manifest.save_signed(planner.settings, directory / PLAN)
    writer = ShardWriter(directory, old or planner.settings)
    tidy(directory)
    return writer, planner, finished


def open_cache(directory, source, augment, check):
    """Opens a finished cache. With `check`, its files and the data set are compared with its manifest.

    Raises:
        DataError: if a file is damaged, or it is another data set.
    """
    cache = SoftTargetCache(directory, augment=augment)
    if check:
        cache.verify()
        cache.check_dataset(source)
    return cache


def _print_to_stderr(text):
    print(text, file=sys.stderr)
