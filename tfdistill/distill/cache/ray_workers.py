"""Writes the shards of one cache on many processes or machines: Ray workers each load the teacher once."""

import collections
import contextlib
import dataclasses
import itertools
import os
import pathlib
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfdistill.distill.cache import sources
from tfdistill.distill.cache.build import begin, open_cache
from tfdistill.distill.cache.fingerprint import fingerprint_teacher
from tfdistill.distill.cache.folder import folder_to_write
from tfdistill.distill.cache.manifest import Shard
from tfdistill.distill.cache.options import CacheOptions, checked_options
from tfdistill.distill.cache.query import TeacherQuery
from tfdistill.distill.cache.ray_cluster import local_cluster
from tfdistill.distill.cache.reader import SoftTargetCache
from tfdistill.distill.cache.writer import ShardWriter
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.utils import validate
from tfdistill.utils.named import function_named
from tfdistill.utils.optional import require
from tfdistill.utils.progress import progress
from tfdistill.utils.types import Data, PathLike

# Number of workers that may die on one shard.
TRIES = 5


def label_with_ray(
    teacher_path: PathLike,
    make_dataset: Callable[[], Data] | str,
    directory: PathLike,
    num_shards: int,
    address: str | None = None,
    *,
    options: CacheOptions | None = None,
    workers: int | None = None,
    threads: int = 1,
    on_worker_start: Callable[[int], Any] | None = None,
) -> SoftTargetCache:
    """Does what `soft_targets` does, on many processes or machines, with Ray. The files are the same.

    Each worker loads the teacher and makes the data set once, then writes shard after shard. The shard of a worker that dies is written by
    a new one. A second run writes only what is missing. On several machines the teacher's path and the directory must be on a shared file
    system.

    Args:
        teacher_path: A .keras file, .tflite file or SavedModel folder.
        make_dataset: Function without arguments that makes the data set (see `soft_targets`), or its name as "module:function". A
            `tf.data.Dataset` is read from its beginning by every worker; arrays and PyDatasets only where they are needed.
        directory: Folder of the cache.
        num_shards: Number of files, at least 1; fewer where whole batches fill fewer.
        address: Address of a Ray cluster ("auto", "ray://host:10001"). None starts one on this machine, which listens on the loopback
            interface alone and ends with this process.
        options: `CacheOptions` without `shard_elements`, which follows from `num_shards`. None stands for `CacheOptions()`.
        workers: Number of workers. Defaults to one for each CPU that Ray has, at most one for each shard.
        threads: CPU threads of each worker.
        on_worker_start: Function that gets the process number of each worker that starts, or None.

    Returns:
        `SoftTargetCache`.

    Raises:
        MissingPackageError: if Ray is not installed.
        ConfigurationError: if a value is out of its range, or another process writes the folder.
        DataError: as for `soft_targets`; or if the workers of one shard died five times.

    Example:
        >>> saved = keras.saving.load_model("teacher.keras")
        >>> _ = tfdistill.soft_targets(saved, x, "cache", tfdistill.CacheOptions(batch_size=32, shard_elements=32))
        >>> cache = tfdistill.label_with_ray("teacher.keras", lambda: x, "cache", num_shards=2)  # finished already, so no worker starts
        >>> len(cache.manifest.shards)
        2
    """
    for name, value in (("num_shards", num_shards), ("threads", threads), ("workers", 1 if workers is None else workers)):
        validate.whole_number(name, value)
    options = checked_options(options)
    if options.shard_elements is not None:
        raise ConfigurationError(
            f"shard_elements is {options.shard_elements}, but label_with_ray has {num_shards} shards.",
            "shard_elements=None",
            "leave shard_elements out of options, or use soft_targets",
        )
    ray = require("ray", "label on many machines")
    teacher_path = str(teacher_path if "://" in str(teacher_path) else pathlib.Path(teacher_path).absolute())
    source = sources.as_source(_dataset_maker(make_dataset)())
    with folder_to_write(pathlib.Path(directory).absolute()) as directory:
        planned = dataclasses.replace(options, shard_elements=_per_shard(source.count(), num_shards))
        writer, _, finished = begin(directory, as_teacher(teacher_path), source, planned)
        if not finished:
            count = -(-source.count() // writer.settings.shard_elements)
            shards = {index: shard for index in range(count) if (shard := writer.finished(index))}
            for index, shard in shards.items():
                writer.check_inputs(shard, _blocks(source, writer.settings, index))
            missing = [index for index in range(count) if index not in shards]
            with progress("Labelling", count) as advance:
                advance(len(shards))
                arguments = (teacher_path, make_dataset, str(directory), writer.settings, options, threads)
                with _cluster(ray, address, workers, threads):
                    shards |= _WorkerPool(ray, arguments, workers, on_worker_start).run(missing, advance)
            writer.finish([shards[index] for index in range(count)])
    return open_cache(directory, source, options.augment, check=finished)


def _per_shard(elements, num_shards):
    if not elements:
        raise DataError("The dataset is empty.", "at least one element")
    return -(-elements // num_shards)


def _dataset_maker(make_dataset):
    if callable(make_dataset):
        return make_dataset
    return function_named(make_dataset)


def _blocks(source, settings, index):
    per = settings.shard_elements // settings.block
    return itertools.islice(source.blocks(settings.block, index * per), per)


@contextlib.contextmanager
def _cluster(ray, address, workers, threads):
    """Connects to Ray while the block runs: to the session that is running already, to the cluster at `address`, or to a new local one."""
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
    """The Ray actor that writes shards: it holds one teacher and one data set.

    Args:
        teacher_path: See `label_with_ray`.
        make_dataset: See `label_with_ray`.
        directory: See `label_with_ray`.
        settings: `Settings` of the cache.
        options: `CacheOptions`.
        threads: CPU threads of TensorFlow in this process, or None to leave them as they are.

    Raises:
        DataError: if the teacher's file on this machine is another one.
    """

    def __init__(self, teacher_path, make_dataset, directory, settings, options, threads):
        if threads:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
        teacher = as_teacher(teacher_path)
        if fingerprint_teacher(teacher) != settings.teacher:
            raise DataError(f"On this machine '{teacher_path}' is another teacher.", "the same file on all machines")
        self.query, self.writer = TeacherQuery(teacher, options), ShardWriter(directory, settings)
        self.source = sources.as_source(_dataset_maker(make_dataset)())

    def pid(self):
        """Number of this process."""
        return os.getpid()

    def write(self, index):
        """Writes one shard; returns the `Shard` as a dict."""
        return self.writer.write(index, _blocks(self.source, self.writer.settings, index), self.query).to_dict()


class _WorkerPool:
    """Gives shards to workers until none is left, and starts a new worker for each that dies.

    Args:
        ray: The module.
        arguments: Those of `Worker`.
        workers: Number of workers; None for one for each CPU that Ray has.
        on_worker_start: See `label_with_ray`.
    """

    def __init__(self, ray, arguments, workers, on_worker_start):
        self.ray, self.arguments, self.workers, self.on_worker_start = ray, arguments, workers, on_worker_start
        self.threads = arguments[-1]
        self.remote = ray.remote(max_restarts=0, num_cpus=self.threads)(Worker)

    def _start_worker(self):
        # Without a limit the libraries in a worker take a thread for each CPU.
        worker = self.remote.options(runtime_env={"env_vars": {"OMP_NUM_THREADS": str(self.threads)}}).remote(*self.arguments)
        if self.on_worker_start:
            self.on_worker_start(self.ray.get(worker.pid.remote()))
        return worker

    def run(self, missing, advance):
        """Has the missing shards written; returns them as a dict of number to `Shard`."""
        queue, done, tries, busy = collections.deque(missing), {}, collections.Counter(), {}

        def give(worker):
            index = queue.popleft()
            tries[index] += 1
            busy[worker.write.remote(index)] = worker, index

        cpus = int(self.ray.cluster_resources().get("CPU", 1)) // self.threads
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
                        f"The workers that wrote shard {index} died {TRIES} times.",
                        fix="check that the machine's memory suffices, or use fewer workers",
                    ) from error
                queue.appendleft(index)
                worker = self._start_worker()
            except self.ray.exceptions.RayTaskError as error:
                raise error.as_instanceof_cause() from error
            if queue:
                give(worker)
        return done
