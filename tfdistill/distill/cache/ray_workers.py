"""Labelling on many machines: the shards of one cache, written by Ray workers that each load the teacher once."""

import collections
import contextlib
import importlib
import itertools
import os
import pathlib

import keras
import tensorflow as tf

from tfdistill.distill.cache import sources
from tfdistill.distill.cache.build import TEMPERATURES, begin, open_cache
from tfdistill.distill.cache.fingerprint import teacher_print
from tfdistill.distill.cache.folder import folder_to_write
from tfdistill.distill.cache.manifest import Shard
from tfdistill.distill.cache.query import CacheOptions, TeacherQuery
from tfdistill.distill.cache.ray_cluster import local_cluster
from tfdistill.distill.cache.writer import ShardWriter
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.errors import ConfigurationError, DataError, ModelError, TfdistillError
from tfdistill.utils.optional import require
from tfdistill.utils.progress import progress

# How often a shard is given to another worker after the one that had it died.
TRIES = 5


def label(
    teacher_path,
    make_dataset,
    directory,
    num_shards,
    address=None,
    *,
    workers=None,
    threads=1,
    layers=None,
    dtype="float16",
    top_k=None,
    views=1,
    augment=None,
    temperatures=TEMPERATURES,
    batch_size=None,
    pids=None,
):
    """Does what `soft_targets` does, on many processes or machines. The files are the same.

    Each worker loads the teacher and makes the data set once, then takes shard after shard. The shard of a worker that dies is done again by a new
    one. A second run does only what is missing. On several machines the teacher's path and the directory must be on a file system that all share.

    Args:
        teacher_path: A .keras file, .tflite file or SavedModel folder.
        make_dataset: Function without arguments that makes the data set (see `soft_targets`), or its name as "module:function". A
            `tf.data.Dataset` is read from its beginning by every worker; arrays and PyDatasets only where they are needed.
        directory: Folder of the cache.
        num_shards: Number of files, at least 1; fewer where whole batches fill fewer.
        address: Address of a Ray cluster ("auto", "ray://host:10001"). None starts one on this machine, which listens on the loopback interface alone
            and ends with this process.
        workers: Number of workers. Defaults to one for each CPU that Ray has, at most one for each shard.
        threads: CPU threads of each worker.
        layers: As for `soft_targets`, like all that follow.
        dtype: "float16", "bfloat16" or "float32".
        top_k: Number of largest logits, or None.
        views: Number of augmented views.
        augment: Function `(x, seed)`, or None.
        temperatures: With `top_k`, those for which the log-sum of the rest is kept.
        batch_size: Elements that the teacher is asked about at once.
        pids: Function that is given the process number of each worker that starts, or None.

    Returns:
        `SoftTargetCache`.

    Raises:
        MissingPackageError: if Ray is not installed.
        ConfigurationError: if a value is out of its range, or another process writes the folder.
        DataError: as for `soft_targets`; or if one shard's workers died five times.
    """
    for name, value in (("num_shards", num_shards), ("threads", threads), ("workers", 1 if workers is None else workers)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigurationError(f"{name} is {value!r}.", "a whole number of at least 1")
    ray = require("ray", "label on many machines")
    wanted = CacheOptions(layers, dtype, top_k, temperatures, views, augment)
    teacher_path = str(teacher_path if "://" in str(teacher_path) else pathlib.Path(teacher_path).absolute())
    source = sources.as_source(_dataset_maker(make_dataset)())
    with folder_to_write(pathlib.Path(directory).absolute()) as directory:
        per_shard = _per_shard(source.count(), num_shards)
        shelf, _, finished = begin(directory, load_teacher(teacher_path), source, wanted, batch_size, per_shard)
        if not finished:
            count = -(-source.count() // shelf.settings.shard_elements)
            shards = {index: done for index in range(count) if (done := shelf.done(index))}
            for index, shard in shards.items():
                shelf.compare(shard, _blocks(source, shelf.settings, index))
            missing = [index for index in range(count) if index not in shards]
            with progress("Labelling", count) as advance:
                advance(len(shards))
                jobs = (teacher_path, make_dataset, str(directory), shelf.settings, wanted, threads)
                with _cluster(ray, address, workers, threads):
                    shards |= _WorkerPool(ray, jobs, workers, pids).run(missing, advance)
            shelf.finish([shards[index] for index in range(count)])
    return open_cache(directory, source, augment, check=finished)


def load_teacher(path):
    """Loads a teacher from a path: a .keras file, which Keras loads in safe mode, or what `as_teacher` takes.

    Raises:
        ModelError: if there is no such file, or it is damaged, or holds what is not safe to load.
    """
    if not str(path).endswith(".keras"):
        return as_teacher(path)
    try:
        return keras.saving.load_model(path, compile=False)
    except TfdistillError:
        raise
    except Exception as error:  # Keras raises what the damaged part of the file happens to raise
        raise ModelError(
            f"The teacher file '{path}' cannot be loaded: {type(error).__name__}: {error}", "a .keras file that Keras loads in safe mode"
        ) from error


def _per_shard(elements, num_shards):
    if not elements:
        raise DataError("The dataset is empty.", "at least one element")
    return -(-elements // num_shards)


def _dataset_maker(make_dataset):
    if callable(make_dataset):
        return make_dataset
    module, mark, name = str(make_dataset).partition(":")
    if not mark:
        raise ConfigurationError(f"make_dataset is {make_dataset!r}.", "a function, or its name as 'module:function'")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f"The function '{make_dataset}' cannot be imported: {error}.", "'module:function'") from error


def _blocks(source, settings, index):
    per = settings.shard_elements // settings.block
    return itertools.islice(source.blocks(settings.block, index * per), per)


@contextlib.contextmanager
def _cluster(ray, address, workers, threads):
    """Ray, for the length of a block: one that runs already, or one of our own."""
    if ray.is_initialized():
        yield
    elif address is None:
        with local_cluster(ray, workers and workers * threads):
            yield
    else:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        try:
            yield
        finally:
            ray.shutdown()


class Worker:
    """What runs in a process of Ray: one teacher, one data set, shard after shard.

    Args:
        teacher_path: See `label`.
        make_dataset: See `label`.
        directory: See `label`.
        settings: `Settings` of the cache.
        wanted: `CacheOptions`.
        threads: CPU threads of TensorFlow in this process, or None to leave them as they are.

    Raises:
        DataError: if the teacher that is found here is another one.
    """

    def __init__(self, teacher_path, make_dataset, directory, settings, wanted, threads):
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        teacher = load_teacher(teacher_path)
        if teacher_print(teacher) != settings.teacher:
            raise DataError(f"On this machine '{teacher_path}' is another teacher.", "the same file on all machines")
        self.asker, self.shelf = TeacherQuery(teacher, wanted), ShardWriter(directory, settings)
        self.source = sources.as_source(_dataset_maker(make_dataset)())

    def pid(self):
        """Number of this process."""
        return os.getpid()

    def fill(self, index):
        """Writes one shard; returns it as a dict."""
        return self.shelf.fill(index, _blocks(self.source, self.shelf.settings, index), self.asker).to_dict()


class _WorkerPool:
    """Gives shards to workers until none is left, and starts a new worker for one that died."""

    def __init__(self, ray, jobs, workers, pids):
        self.ray, self.jobs, self.workers, self.pids = ray, jobs, workers, pids
        self.remote = ray.remote(max_restarts=0, num_cpus=jobs[-1])(Worker)

    def _start_worker(self):
        # A worker of Ray that is made without a word takes all threads it can get.
        worker = self.remote.options(runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.jobs[-1])}}).remote(*self.jobs)
        if self.pids:
            self.pids(self.ray.get(worker.pid.remote()))
        return worker

    def run(self, missing, advance):
        """Labels the missing shards; returns them as a dict of number to `Shard`."""
        queue, done, tries, busy = collections.deque(missing), {}, collections.Counter(), {}

        def give(worker):
            index = queue.popleft()
            tries[index] += 1
            busy[worker.fill.remote(index)] = worker, index

        cpus = int(self.ray.cluster_resources().get("CPU", 1)) // self.jobs[-1]
        for _ in range(min(self.workers or max(1, cpus), len(missing))):
            give(self._start_worker())
        while busy:
            (ready,), _ = self.ray.wait(list(busy), num_returns=1)
            worker, index = busy.pop(ready)
            try:
                done[index] = Shard.from_dict(self.ray.get(ready))
                advance()
            except self.ray.exceptions.RayActorError as error:
                if tries[index] >= TRIES:
                    raise DataError(
                        f"The workers that had shard {index} died {TRIES} times.", fix="look at the machine's memory"
                    ) from error
                queue.appendleft(index)
                worker = self._start_worker()
            except self.ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from error
            if queue:
                give(worker)
        return done
