"""A finished cache: whole or refused, joined with its data, and a teacher to a `Distiller`."""

import pathlib
import types

import keras
import tensorflow as tf

from tfdistill.distill.cache import fingerprint, query, sources
from tfdistill.distill.cache import manifest as cache_manifest
from tfdistill.distill.cache.format import from_scales
from tfdistill.distill.cache.join import Joining, Order
from tfdistill.distill.cache.manifest import MANIFEST, PLAN
from tfdistill.distill.cache.writer import refuse_other_data
from tfdistill.distill.objective.batch import BatchWithTargets
from tfdistill.errors import ConfigurationError, DataError, ModelError
from tfdistill.losses.top_k import TopK
from tfdistill.saveable import checks_config


@keras.saving.register_keras_serializable(package="tfdistill")
class SoftTargetCache(keras.Model):
    """A teacher's kept answers, in the place of the teacher: `Distiller(cache, student, ...).fit(cache.join(data))`.

    It has no weights. It is saved as the folder's path and the manifest's checksum, both of which must be right when it is loaded.

    Args:
        directory: Folder that `soft_targets` or `label` wrote.
        sha256: The checksum that its manifest must have, or None for whatever it has.
        augment: The function that its views were made with; needed to join it if there are such.
        name: Name of the model.

    Raises:
        DataError: if the cache is unfinished or its manifest is damaged, or another one.
    """

    def __init__(self, directory, sha256=None, augment=None, name="soft_targets"):
        super().__init__(name=name, dtype="float32", autocast=False)
        directory = pathlib.Path(directory).absolute()
        if (directory / PLAN).is_file() and not (directory / MANIFEST).is_file():
            done = len(list(directory.glob("shard-*.json")))
            raise DataError(f"The cache in '{directory}' is unfinished: {done} shards are done.", fix="run what began it again: it goes on")
        manifest, found = cache_manifest.load_manifest(directory)
        if sha256 is not None and found != sha256:
            raise DataError(
                f"The cache in '{directory}' is not the one that was saved: its manifest is {found[:16]}...", f"{sha256[:16]}..."
            )
        # In a namespace: Keras would track and wrap what is set as an attribute.
        self._cache = types.SimpleNamespace(directory=directory, manifest=manifest, sha256=found, augment=augment, verified={})
        self.recorded = [keras.layers.Identity(dtype="float32", name=f"recorded_{i}") for i, _ in enumerate(manifest.settings.layers)]
        self.built = True

    @property
    def directory(self):
        """`pathlib.Path` of the folder."""
        return self._cache.directory

    @property
    def manifest(self):
        """The `Manifest`."""
        return self._cache.manifest

    @property
    def elements(self):
        """Number of elements that it has answers for."""
        return self.manifest.elements

    @property
    def size_bytes(self):
        """Size of its shards."""
        return self.manifest.size_bytes

    # As a teacher

    @property
    def outputs(self):
        """List of a `keras.KerasTensor` for each final output."""
        settings = self.manifest.settings
        leaves = [leaf for leaf in settings.layout.leaves if leaf.role in ("output", "values")]
        shapes = [leaf.shape if settings.classes is None else (*leaf.shape[:-1], settings.classes[i]) for i, leaf in enumerate(leaves)]
        return [keras.KerasTensor((None, *shape), dtype="float32") for shape in shapes]

    @property
    def output_names(self):
        """Names of the final outputs."""
        return list(self.manifest.settings.output_names)

    def named_layers(self):
        """Dict of the paths of kept layers to what gives their outputs."""
        return dict(zip(self.manifest.settings.layers, self.recorded, strict=True))

    def input_spec_structure(self):
        """A joined batch, as `tf.TensorSpec`s; its inputs are not looked at."""
        leaves = self.manifest.settings.layout.leaves
        return BatchWithTargets(
            tf.TensorSpec([None]), tuple(tf.TensorSpec((None, *leaf.shape), tf.as_dtype(leaf.dtype)) for leaf in leaves)
        )

    def __call__(self, inputs, *args, **kwargs):
        # Here and not in `call`, where Keras would wrap the error's words in its own.
        if not isinstance(inputs, BatchWithTargets):
            raise ModelError(
                f"The teacher is a cache of soft targets ('{self.directory}'), and this batch does not bring its answers along.",
                "data joined with a cache",
                "distiller.fit(cache.join((x, y), batch_size=32)); validation data is joined with a cache of its own, or given to student.evaluate",
            )
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training=None):
        settings, outputs, recorded = self.manifest.settings, [], iter(self.recorded)
        told = dict(zip([(leaf.role, leaf.name) for leaf in settings.layout.leaves], inputs.teacher_outputs, strict=True))

        def number(role, name):
            value, scale = keras.ops.cast(told[role, name], "float32"), told.get(("scale", f"{role}/{name}"))
            return value if scale is None else value * keras.ops.reshape(from_scales(scale), (-1, *[1] * (len(value.shape) - 1)))

        for role, name in told:
            if role == "output":
                outputs.append(number(role, name))
            elif role == "values":
                indices = keras.ops.cast(told["indices", name], "int32")
                outputs.append(TopK(number(role, name), indices, number("rest", name), settings.temperatures))
            elif role == "layer":
                next(recorded)(number(role, name))
        if settings.structure == "single":
            return outputs[0]
        return outputs if settings.structure == "list" else dict(zip(settings.output_names, outputs, strict=True))

    # As files

    def verify(self, advance=None):
        """Compares every shard with its checksum, whether it was compared before or not.

        Args:
            advance: Function that is called after each shard, or None.

        Raises:
            DataError: naming the file and what is wrong with it.
        """
        self._cache.verified.clear()
        self._verify_changed(advance)

    def _verify_changed(self, advance=None):
        """Compares the shards with their checksums that were never compared, or whose files changed since."""
        for shard in self.manifest.shards:
            before = _file_state(self.directory / shard.file)
            if before is None or self._cache.verified.get(shard.file) != before:
                cache_manifest.verify_shard(self.directory, shard)
                self._cache.verified[shard.file] = before
            if advance:
                advance()

    def check_dataset(self, dataset, check="quick"):
        """Compares a data set with the one that the cache has answers to.

        Args:
            dataset: See `soft_targets`.
            check: "quick" or "all". All elements of arrays are compared either way. Of a PyDataset "quick" compares the first, two middle and the last
                batches of the cache, of a `tf.data.Dataset` its number of batches and the first four (all, where it does not know its number).

        Raises:
            DataError: if it is another data set, saying where.
            ConfigurationError: for an unknown check.
        """
        if check not in ("quick", "all"):
            raise ConfigurationError(f"check is {check!r}.", "'quick' or 'all'")
        source, settings = sources.as_source(dataset), self.manifest.settings
        expected = [digest for shard in self.manifest.shards for digest in shard.inputs]
        where, block = self.directory / MANIFEST, settings.block
        self._check_length(source)
        wanted = range(len(expected)) if check == "all" else source.samples(len(expected))
        whole = len(wanted) == len(expected)
        found = {}
        for number, inputs in _numbered(source, block, wanted, whole):
            if number == 0 and fingerprint.input_parts(inputs) != settings.inputs:
                raise DataError(
                    f"Another dataset: its inputs are {cache_manifest.inputs_text(fingerprint.input_parts(inputs))}.",
                    f"{cache_manifest.inputs_text(settings.inputs)}, as in '{where}'",
                )
            found[number] = fingerprint.inputs_digest(inputs)
        refuse_other_data(where, found, expected, 0, block, whole)

    def _check_length(self, source):
        if isinstance(source, sources.Stream):
            if source.cardinality < 0:
                return
            batch = sources.rows_of(next(source.blocks_as_they_come()))
            right, count = -(-self.elements // batch) == source.cardinality, f"{source.cardinality} batches of {batch}"
        else:
            right, count = source.count() == self.elements, f"{source.count()}"
        if not right:
            raise DataError(f"Another dataset: it has {count} elements.", f"{self.elements} elements, as in '{self.directory / MANIFEST}'")

    def join(self, dataset, batch_size=None, shuffle=True, seed=None, check="quick"):
        """Joins the answers with the data that they are about.

        Answers and elements are matched by number and shuffled together afterwards: arrays completely where the answers take at most 16 MiB, else
        within as many randomly drawn shards as fit in that; a `tf.data.Dataset` within a window of `shuffle` elements; a PyDataset as
        `fit(shuffle=...)` says. The answers are streamed from the files, at most one shard in memory for each reader. (To a `tf.data.Dataset` Keras
        warns that `fit`'s own shuffling has no effect; `fit(..., shuffle=False)` says that this is known.)

        Training from answers of dtype float32 equals training with the teacher itself as far as the teacher equals itself: most models' outputs
        depend in their last bits on the other elements of the batch. They are equal to the bit if the teacher was asked in the batches of the
        training (`soft_targets(batch_size=...)` the same, `shuffle=False`).

        Args:
            dataset: See `soft_targets`. Labels and sample weights are passed on.
            batch_size: Elements in a batch. Defaults to 32 for arrays, to that of the `tf.data.Dataset`'s first batch.
            shuffle: True, False, or the window of a `tf.data.Dataset` in elements; its default is 8192, or less where that is more than 64 MiB.
            seed: Whole number. In the `fit` of a `Distiller` the order and the views of an epoch follow from it and the number of the epoch; outside, from
                it and the number of passes so far. None draws one.
            check: How the data set is compared with the cache, see `check_dataset`.

        Returns:
            `tf.data.Dataset`, or for a PyDataset a `keras.utils.PyDataset`, for the `fit` and `evaluate` of a `Distiller` that has a cache as its teacher.

        Raises:
            DataError: if a file is damaged or missing, or it is another data set.
            ConfigurationError: if a value is out of its range, or the cache has views and `augment` was not given.
        """
        order = Order(batch_size, shuffle, seed)
        source, settings = sources.as_source(dataset), self.manifest.settings
        if settings.augmented is not None and self._cache.augment is None:
            raise ConfigurationError(
                f"The cache in '{self.directory}' has answers to augmented elements.",
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
        rows = sources.rows_of(inputs)
        augmented = tf.function(query.augmented_by(self._cache.augment))
        seen = augmented(inputs, query.seeds(tf.range(rows, dtype=tf.int64), 0))
        if fingerprint.inputs_digest(keras.tree.map_structure(lambda t: t.numpy(), seen)) != self.manifest.settings.augmented:
            raise DataError(
                f"The function augment is not the one whose results the teacher saw in '{self.directory}': the first batch comes out otherwise.",
                "the function that was given to soft_targets",
            )

    def get_config(self):
        return {"name": self.name, "directory": str(self.directory), "sha256": self._cache.sha256}

    @classmethod
    @checks_config
    def from_config(cls, config):
        return cls(**config)

    def get_build_config(self):
        return None

    def build_from_config(self, config):
        self.built = True


def _file_state(path):
    """What changes when a file is written or replaced; None if it is not there."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _numbered(source, block, wanted, whole):
    """Yields (number, inputs) of the wanted blocks of a source, and of one block more where it should have ended."""
    if whole or isinstance(source, sources.Stream):
        for number, inputs in enumerate(source.blocks(block)):
            if not whole and number >= len(wanted):
                return
            yield number, inputs
    else:
        for number in wanted:
            yield number, next(iter(source.blocks(block, number)))
