"""A finished cache: checked, joined with its data, and used as the teacher of a `Distiller`."""

import pathlib
import types
from collections.abc import Callable
from typing import Any, Literal

import keras
import tensorflow as tf

from tfdistill.distill.cache import augmentation, fingerprint, sources
from tfdistill.distill.cache import manifest as cache_manifest
from tfdistill.distill.cache.format import from_scales
from tfdistill.distill.cache.join import Joining, Order
from tfdistill.distill.cache.manifest import MANIFEST, PLAN, Manifest
from tfdistill.distill.cache.writer import check_digests
from tfdistill.distill.objective.batch import BatchWithTargets
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses import masking
from tfdistill.losses.top_k import TopK
from tfdistill.saveable import checks_config
from tfdistill.utils.arrays import rows_of
from tfdistill.utils.types import Config, Data, PathLike, Tensors


@keras.saving.register_keras_serializable(package="tfdistill")
class SoftTargetCache(keras.Model):
    """The stored outputs of a teacher, used in place of the teacher: `Distiller(cache, student, ...).fit(cache.join(data))`.

    It is a `keras.Model` without weights. It is saved as the folder's path and the manifest's checksum; loading it needs the same files in
    the same folder.

    Args:
        directory: Folder that `soft_targets` or `label_with_ray` wrote.
        sha256: The checksum that its manifest must have, or None for any.
        augment: The function that made its views (see `CacheOptions`); `join` needs it if there are views.
        name: Name of the model.

    Raises:
        DataError: if the cache is unfinished, or its manifest is damaged or has another checksum.

    Example:
        >>> _ = tfdistill.soft_targets(teacher, x, "cache")
        >>> cache = tfdistill.SoftTargetCache("cache")
        >>> cache.elements, cache.output_names, cache.outputs[0].shape
        (64, ['output'], (None, 10))
        >>> cache.verify()
        >>> batches = cache.join((x, y), batch_size=16, seed=0)
        >>> len(batches)
        4
    """

    def __init__(
        self, directory: PathLike, sha256: str | None = None, augment: Callable[[Any, Any], Any] | None = None, name: str = "soft_targets"
    ) -> None:
        super().__init__(name=name, dtype="float32", autocast=False)
        directory = pathlib.Path(directory).absolute()
        if (directory / PLAN).is_file() and not (directory / MANIFEST).is_file():
            done = len(list(directory.glob("shard-*.json")))
            raise DataError(
                f"The cache in '{directory}' is unfinished: {done} shards are finished.",
                fix="run the call that began it again: it continues",
            )
        manifest, found = cache_manifest.load_manifest(directory)
        if sha256 is not None and found != sha256:
            raise DataError(
                f"The cache in '{directory}' is not the one that was saved: its manifest is {found[:16]}...", f"{sha256[:16]}..."
            )
        # In a namespace, as Keras wraps lists and dicts that are attributes of a model.
        self._cache = types.SimpleNamespace(directory=directory, manifest=manifest, sha256=found, augment=augment, verified={})
        self.recorded = [keras.layers.Identity(dtype="float32", name=f"recorded_{i}") for i, _ in enumerate(manifest.settings.layers)]
        self.built = True

    @property
    def directory(self) -> pathlib.Path:
        """`pathlib.Path` of the folder."""
        return self._cache.directory

    @property
    def manifest(self) -> Manifest:
        """The `Manifest`: settings, and the shards with their checksums."""
        return self._cache.manifest

    @property
    def elements(self) -> int:
        """Number of elements that it has outputs for."""
        return self.manifest.elements

    @property
    def size_bytes(self) -> int:
        """Size of its shards."""
        return self.manifest.size_bytes

    # As a teacher

    @property
    def outputs(self) -> list[keras.KerasTensor]:
        """List of a `keras.KerasTensor` for each final output."""
        settings = self.manifest.settings
        leaves = [leaf for leaf in settings.layout.leaves if leaf.role in ("output", "values")]
        shapes = [leaf.shape if settings.classes is None else (*leaf.shape[:-1], settings.classes[i]) for i, leaf in enumerate(leaves)]
        return [keras.KerasTensor((None, *shape), dtype="float32") for shape in shapes]

    @property
    def output_names(self) -> list[str]:
        """Names of the final outputs."""
        return list(self.manifest.settings.output_names)

    def named_layers(self) -> dict[str, keras.layers.Layer]:
        """Dict of the paths of stored layers to layers that return their outputs."""
        return dict(zip(self.manifest.settings.layers, self.recorded, strict=True))

    def input_spec_structure(self) -> BatchWithTargets:
        """A joined batch as `tf.TensorSpec`s. The spec of its inputs is a placeholder: they are not used."""
        leaves = self.manifest.settings.layout.leaves
        return BatchWithTargets(
            tf.TensorSpec([None]), tuple(tf.TensorSpec((None, *leaf.shape), tf.as_dtype(leaf.dtype)) for leaf in leaves)
        )

    def __call__(self, inputs, *args, **kwargs):
        # Not in `call`, as Keras adds text of its own to errors raised there.
        if not isinstance(inputs, BatchWithTargets):
            raise ModelError(
                f"The teacher is a cache of soft targets ('{self.directory}'), and this batch comes without them.",
                "data joined with a cache",
                "distiller.fit(cache.join((x, y), batch_size=32)); validation data is joined with a cache of its own, or given to student.evaluate",
            )
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs: BatchWithTargets, training: bool | None = None) -> Tensors:
        """Returns the stored outputs of a joined batch, in the structure of the teacher's outputs."""
        settings, outputs, recorded = self.manifest.settings, [], iter(self.recorded)
        stored = dict(zip([(leaf.role, leaf.name) for leaf in settings.layout.leaves], inputs.teacher_outputs, strict=True))

        def number(role, name):
            value, scale = keras.ops.cast(stored[role, name], "float32"), stored.get(("scale", f"{role}/{name}"))
            return value if scale is None else value * keras.ops.reshape(from_scales(scale), (-1, *[1] * (len(value.shape) - 1)))

        def masked(tensor, name):
            mask = stored.get(("mask", name))
            return tensor if mask is None else masking.with_mask(tensor, keras.ops.cast(mask, "bool"))

        for role, name in stored:
            if role == "output":
                outputs.append(masked(number(role, name), f"output/{name}"))
            elif role == "values":
                indices = keras.ops.cast(stored["indices", name], "int32")
                values = masked(number(role, name), f"output/{name}")
                outputs.append(TopK(values, indices, number("rest", name), settings.temperatures))
            elif role == "layer":
                next(recorded)(masked(number(role, name), f"layer/{name}"))
        if settings.structure == "single":
            return outputs[0]
        return outputs if settings.structure == "list" else dict(zip(settings.output_names, outputs, strict=True))

    # As files

    def verify(self, advance: Callable[[], Any] | None = None) -> None:
        """Compares every shard with its checksum, also those that were compared before.

        Args:
            advance: Function that is called after each shard, or None.

        Raises:
            DataError: naming the file and what is wrong with it.
        """
        self._cache.verified.clear()
        self._verify_changed(advance)

    def _verify_changed(self, advance=None):
        """Compares shards with their checksums: those that were not compared yet, or whose files changed since."""
        for shard in self.manifest.shards:
            before = _file_state(self.directory / shard.file)
            if before is None or self._cache.verified.get(shard.file) != before:
                cache_manifest.verify_shard(self.directory, shard)
                self._cache.verified[shard.file] = before
            if advance:
                advance()

    def check_dataset(self, dataset: Data, check: Literal["quick", "all"] = "quick") -> None:
        """Compares a data set with the one that the cache was made from.

        Args:
            dataset: See `soft_targets`.
            check: "quick" or "all". All elements of arrays are compared either way. Of a PyDataset "quick" compares the first, two middle
                and the last batches of the cache, of a `tf.data.Dataset` its number of batches and the first four (all, if its number of
                batches is unknown).

        Raises:
            DataError: if it is another data set, with the first difference.
            ConfigurationError: for an unknown check.
        """
        if check not in ("quick", "all"):
            raise ConfigurationError(f"check is {check!r}.", "'quick' or 'all'")
        source, settings = sources.as_source(dataset), self.manifest.settings
        expected = [digest for shard in self.manifest.shards for digest in shard.inputs]
        where, block = self.directory / MANIFEST, settings.block
        self._check_length(source)
        numbers = range(len(expected)) if check == "all" else source.samples(len(expected))
        whole = len(numbers) == len(expected)
        found = {}
        for number, inputs in sources.numbered_blocks(source, block, numbers, whole):
            if number == 0 and fingerprint.input_parts(inputs) != settings.inputs:
                raise DataError(
                    f"Another dataset: its inputs are {cache_manifest.inputs_text(fingerprint.input_parts(inputs))}.",
                    f"{cache_manifest.inputs_text(settings.inputs)}, as in '{where}'",
                )
            found[number] = fingerprint.inputs_digest(inputs)
        check_digests(where, found, expected, 0, block, whole)

    def _check_length(self, source):
        if isinstance(source, sources.Stream):
            if source.batches is None:
                return
            batch = rows_of(next(source.blocks_as_they_come()))
            equal, count = -(-self.elements // batch) == source.batches, f"{source.batches} batches of {batch}"
        else:
            equal, count = source.count() == self.elements, f"{source.count()}"
        if not equal:
            raise DataError(f"Another dataset: it has {count} elements.", f"{self.elements} elements, as in '{self.directory / MANIFEST}'")

    def join(
        self,
        dataset: Data,
        batch_size: int | None = None,
        shuffle: bool | int = True,
        seed: int | None = None,
        check: Literal["quick", "all"] = "quick",
    ) -> tf.data.Dataset | keras.utils.PyDataset:
        """Joins the stored outputs with the data that they belong to.

        Outputs and elements are matched by number and then shuffled together: arrays completely where the outputs take at most 16 MiB, else
        within as many randomly drawn shards as fit in 16 MiB; a `tf.data.Dataset` within a window of `shuffle` elements; a PyDataset as
        `fit(shuffle=...)` decides. The outputs are streamed from the files, at most one shard in memory for each reader. (`fit` warns that
        its own shuffling has no effect on a `tf.data.Dataset`; `fit(..., shuffle=False)` avoids the warning.)

        Training from outputs of dtype float32 equals training with the teacher itself, but for the last bits: the outputs of most models
        depend in their last bits on the other elements of the batch. They are equal to the bit if the teacher ran on the batches of the
        training (`CacheOptions(batch_size=...)` the same, `shuffle=False`).

        Args:
            dataset: See `soft_targets`. Labels and sample weights are passed on.
            batch_size: Elements in a batch. Defaults to 32 for arrays, to that of the `tf.data.Dataset`'s first batch.
            shuffle: True, False, or the window of a `tf.data.Dataset` in elements; its default is 8192, or less where that is more than 64
                MiB.
            seed: Whole number. In the `fit` of a `Distiller` the order and the views of an epoch follow from it and the number of the
                epoch; outside, from it and the number of passes so far. None draws a seed.
            check: How the data set is compared with the cache, see `check_dataset`.

        Returns:
            `tf.data.Dataset`, or for a PyDataset a `keras.utils.PyDataset`, for the `fit` and `evaluate` of a `Distiller` that has a cache
            as its teacher.

        Raises:
            DataError: if a file is damaged or missing, or it is another data set.
            ConfigurationError: if a value is out of its range, or the cache has views and `augment` was not given.
        """
        order = Order(batch_size, shuffle, seed)
        source, settings = sources.as_source(dataset), self.manifest.settings
        if settings.augmented is not None and self._cache.augment is None:
            raise ConfigurationError(
                f"The cache in '{self.directory}' has outputs for augmented elements.",
                "the function that augmented them",
                "SoftTargetCache(directory, augment=the_function).join(...)",
            )
        self._verify_changed()
        self.check_dataset(source, check)
        if settings.augmented is not None:
            self._check_augmentation(source)
        return Joining(self.directory, self.manifest, order, self._cache.augment).join(source)

    def _check_augmentation(self, source):
        inputs = next(iter(source.blocks(self.manifest.settings.block)))
        rows = rows_of(inputs)
        augment_batch = tf.function(augmentation.on_batches(self._cache.augment))
        seen = augment_batch(inputs, augmentation.element_seeds(tf.range(rows, dtype=tf.int64), 0))
        if fingerprint.inputs_digest(keras.tree.map_structure(lambda t: t.numpy(), seen)) != self.manifest.settings.augmented:
            raise DataError(
                f"The function augment is not the one whose results the teacher saw in '{self.directory}': its result for the first batch differs.",
                "the function that was given to soft_targets",
            )

    def get_config(self) -> Config:
        return {"name": self.name, "directory": str(self.directory), "sha256": self._cache.sha256}

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> "SoftTargetCache":
        return cls(**config)

    def get_build_config(self) -> None:
        return None

    def build_from_config(self, config: Config | None) -> None:
        self.built = True


def _file_state(path):
    """Inode, size and times of a file, which change when it is written or replaced; None if it does not exist."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
