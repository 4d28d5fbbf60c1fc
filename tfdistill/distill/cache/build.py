"""The teacher runs once: its answers, which Hinton et al. (2015, arXiv 1503.02531) call soft targets, go to disk."""

import os
import sys

from tfdistill.distill.cache import manifest, sources
from tfdistill.distill.cache.folder import folder_to_write, tidy
from tfdistill.distill.cache.manifest import MANIFEST, PLAN, Settings
from tfdistill.distill.cache.plan import CachePlanner
from tfdistill.distill.cache.query import CacheOptions
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.distill.cache.writer import ShardWriter
from tfdistill.utils.progress import progress

TEMPERATURES = (1.0, 2.0, 4.0)


def soft_targets(
    teacher,
    dataset,
    directory,
    layers=None,
    dtype="float16",
    top_k=None,
    views=1,
    augment=None,
    *,
    temperatures=TEMPERATURES,
    batch_size=None,
    shard_elements=None,
    say=None,
):
    """Asks a teacher about every element of a data set, once, and keeps the answers in a folder.

    A run that was killed goes on where it was when it is started again; a folder that is complete is only compared with the arguments. The folder is
    this one writer's while it runs.

    Args:
        teacher: Whatever `Distiller` takes as a teacher, or a `RemoteTeacher` (an API). It runs in inference mode.
        dataset: `x`, `(x, y)` or `(x, y, sample_weight)` of arrays; a `tf.data.Dataset` of batches that come in the same order every time; or a
            `keras.utils.PyDataset`. Labels are not kept: they come from the data at training.
        directory: Folder of the cache; made if it is missing.
        layers: Names or paths of layers whose outputs are kept besides the final ones. How many bytes that takes is said before they are written.
        dtype: Type of kept numbers: "float32" (exact), "bfloat16" (a relative error of at most 2**-8) or "float16" with a scale for each tensor of each
            element: a relative error of at most 2**-11 for numbers of at least 2**-28 of the largest magnitude in the same tensor of the same element,
            for smaller ones an error of at most 2**-39 of that; the largest number is 65504.
        top_k: Number of largest logits kept of each final output `(batch, ..., classes)`, with the log-sum of the rest; None keeps all.
            `tfdistill.losses.SoftTargets` is taught from these; other losses refuse them.
        views: Number of augmented views of each element that the teacher is asked about (consistent teaching, Beyer et al. 2022, arXiv 2106.05237).
        augment: Function `(x, seed)` of one element's inputs (without batch axis) and an int32 tensor of shape (2,), stateless: equal arguments give
            equal results. Training draws one of the views, and gives the student what the teacher saw.
        temperatures: With `top_k`, the temperatures for which the log-sum of the rest is kept. At another temperature it is not known.
        batch_size: Elements that the teacher is asked about at once. Defaults to 256, for a `RemoteTeacher` to 32.
        shard_elements: Elements in a file; what a killed run has to do again. Defaults to at most 8192 and 4 MiB, for a `RemoteTeacher` to one batch.
        say: Function that is given the plan as text before anything is written. Defaults to standard error where layers are kept, else to nothing.

    Returns:
        `SoftTargetCache`.

    Raises:
        ConfigurationError: if arguments contradict each other, another process writes the folder, or the disk is too small.
        DataError: if the folder holds answers of another teacher, about other data or of another kind; or is damaged; or an answer is NaN.
        ModelError: if a layer is not there.
        BudgetExceededError: if a `RemoteTeacher` may not be called again.
    """
    wanted = CacheOptions(layers, dtype, top_k, temperatures, views, augment)
    source = sources.as_source(dataset)
    if say is None and wanted.layers:
        say = _say_to_the_user
    with folder_to_write(directory) as directory:
        shelf, ready, finished = begin(directory, teacher, source, wanted, batch_size, shard_elements, say)
        if not finished:
            elements = ready.plan().elements
            with progress("Asking the teacher", elements and -(-elements // ready.settings.block)) as advance:
                shelf.finish(shelf.fill_all(source, ready.asker, ready.known, advance))
    return open_cache(directory, source, augment, check=finished)


def plan_soft_targets(
    teacher,
    dataset,
    layers=None,
    dtype="float16",
    top_k=None,
    views=1,
    augment=None,
    *,
    temperatures=TEMPERATURES,
    batch_size=None,
    shard_elements=None,
):
    """Finds what `soft_targets` would keep and how large it would be. The teacher is asked about one batch; nothing is written.

    Returns:
        `CachePlan`; `str` of it is for people.
    """
    wanted = CacheOptions(layers, dtype, top_k, temperatures, views, augment)
    return CachePlanner(teacher, sources.as_source(dataset), wanted, batch_size, shard_elements).plan()


def begin(directory, teacher, source, wanted, batch_size, shard_elements, say=None):
    """Begins a cache in a folder, or goes on with the one that is there. Only for who holds the folder's lock.

    Args:
        directory: `pathlib.Path` of the folder.
        teacher, source, wanted, batch_size, shard_elements: As for `CachePlanner`.
        say: Function that is given the plan of a new cache as text before anything is written, or None.

    Returns:
        Its `ShardWriter`, the `CachePlanner`, and whether the cache is finished.

    Raises:
        ConfigurationError: if a number is out of its range, or the disk is too small.
        DataError: if the folder holds another cache, or a damaged one.
    """
    finished, old = os.path.lexists(directory / MANIFEST), None
    if finished:
        old = manifest.load_manifest(directory)[0].settings
    elif os.path.lexists(directory / PLAN):
        old = manifest.load_signed(Settings, directory / PLAN)[0]
    ready = CachePlanner(teacher, source, wanted, batch_size, shard_elements, old)
    if old is not None:
        ready.compare(old, directory)
    else:
        ready.check_room(directory)
        if say:
            say(str(ready.plan()))
        manifest.save_signed(ready.settings, directory / PLAN)
    shelf = ShardWriter(directory, old or ready.settings)
    tidy(directory)
    return shelf, ready, finished


def open_cache(directory, source, augment, check):
    """Opens a finished cache; with `check`, its files and the data set are compared with what its manifest says of them.

    Raises:
        DataError: if a file is damaged, or it is another data set.
    """
    cache = SoftTargetCache(directory, augment=augment)
    if check:
        cache.verify()
        cache.check_dataset(source)
    return cache


def _say_to_the_user(text):
    print(text, file=sys.stderr)
