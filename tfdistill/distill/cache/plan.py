"""What a cache will be, before the teacher is asked about more than one batch."""

import dataclasses
import shutil

import numpy as np

from tfdistill.distill.cache import fingerprint, manifest, query, sources
from tfdistill.distill.cache.format import AFTER, BEFORE
from tfdistill.distill.cache.manifest import Settings
from tfdistill.distill.cache.query import TeacherQuery
from tfdistill.distill.objective.compatibility import check_teacher_built
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.finite import check_finite_weights
from tfdistill.distill.teachers.remote import RemoteTeacher
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.records import Record

# A shard is what a killed run may lose: at most so many elements, and bytes. Answers of a black box cost money: there it is one call.
SHARD_ELEMENTS, SHARD_BYTES = 8192, 4 << 20
BATCH, REMOTE_BATCH = 256, 32


@dataclasses.dataclass(frozen=True)
class CachePlan(Record):
    """What a cache will hold.

    Attributes:
        settings: `Settings`.
        elements: Number of elements, or None where only reading the whole data set would tell.
        size_bytes: Size of all shards, or None.
    """

    settings: Settings
    elements: int | None
    size_bytes: int | None

    def __str__(self):
        layout = self.settings.layout
        lines = [f"{layout.row_bytes} bytes for each element, in {layout.views} view{'s' if layout.views > 1 else ''}:"]
        lines += [f"  {leaf.role} {leaf.name}: {leaf.dtype} {leaf.shape}, {leaf.size_bytes} bytes" for leaf in layout.leaves]
        if self.elements is not None:
            lines.append(f"{self.elements} elements, {self.size_bytes / 1e6:.1f} MB")
        return "\n".join(lines)


class CachePlanner:
    """A teacher, a data set and what is wanted, brought together.

    Args:
        teacher: Whatever `as_teacher` takes, or a `RemoteTeacher`.
        source: From `cache_sources.as_source`.
        wanted: `CacheOptions`.
        batch_size: Elements in a batch; None for 256, for a `RemoteTeacher` 32.
        shard_elements: Elements in a shard; None for what fits. Rounded up to whole batches.
        old: `Settings` of the cache that is in the folder already, or None.

    Raises:
        ConfigurationError: if a number is out of its range.
        DataError: if the data set comes in another order each time.
    """

    def __init__(self, teacher, source, wanted, batch_size=None, shard_elements=None, old=None):
        for name, value in (("batch_size", batch_size), ("shard_elements", shard_elements)):
            if value is not None and (isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1):
                raise ConfigurationError(f"{name} is {value!r}.", "a whole number of at least 1")
        remote = isinstance(teacher, RemoteTeacher)
        self.teacher = teacher if remote else as_teacher(teacher)
        if not remote:
            check_teacher_built(self.teacher)
            check_finite_weights(self.teacher)
        self.source, self.wanted = source, wanted
        known_by = fingerprint.teacher_print(self.teacher)
        self.asker = TeacherQuery(self.teacher, wanted)
        block = batch_size or (old.block if old else REMOTE_BATCH if remote else BATCH)
        self.known = None
        inputs = self._first_block(block)
        if wanted.augment:
            query.refuse_shaky_augmentation(self.asker, inputs)
        # A finished answer of a black box tells its shape; asking again would cost a call.
        form = old.format if old else manifest.FORMAT
        described = self._as_before(old) if old and remote else self._described(inputs, scaled=form > 1)
        if shard_elements is None:
            row_bytes = described["layout"].row_bytes
            fitting = 1 if remote else min(SHARD_ELEMENTS, SHARD_BYTES // row_bytes)
            shard_elements = old.shard_elements if old else fitting
        self.settings = Settings(
            teacher=known_by,
            inputs=fingerprint.input_parts(inputs),
            dtype=wanted.dtype,
            top_k=wanted.top_k,
            temperatures=wanted.temperatures,
            augmented=fingerprint.inputs_digest(self.asker.view(inputs, 0, 0)) if wanted.augment else None,
            block=block,
            shard_elements=-(-shard_elements // block) * block,
            format=form,
            **described,
        )

    def _first_block(self, block):
        first, again = (next(iter(self.source.blocks(block)), None) for _ in range(2))
        if first is None:
            raise DataError("The dataset is empty.", "at least one batch")
        if fingerprint.inputs_digest(first) != fingerprint.inputs_digest(again):
            raise DataError(
                "The dataset does not come in the same order every time: its first batch differs between two passes.",
                "a dataset of fixed order, as answers are kept by the elements' numbers",
                "take shuffle() and random augmentation out of it: shuffle after joining, and augment with augment=",
            )
        return first

    def _described(self, inputs, scaled):
        self.known = self.asker.ask(inputs, 0)
        self.asker.refuse_hidden_nan(inputs)
        return self.asker.describe(self.known, scaled)

    def _as_before(self, old):
        return {name: getattr(old, name) for name in ("layout", "structure", "output_names", "classes")}

    def plan(self):
        """Returns the `CachePlan`."""
        elements = None if isinstance(self.source, sources.Stream) else self.source.count()
        size = None
        if elements is not None:
            size = elements * self.settings.layout.row_bytes + -(-elements // self.settings.block) * (BEFORE + AFTER)
        return CachePlan(self.settings, elements, size)

    def check_room(self, directory):
        """Raises `ConfigurationError` if the disk has no room for the cache."""
        size, free = self.plan().size_bytes, shutil.disk_usage(directory).free
        if size is not None and size > free:
            raise ConfigurationError(
                f"The cache needs {size / 1e6:.1f} MB; the disk of '{directory}' has {free / 1e6:.1f} MB left.",
                fix="keep fewer layers or views, use top_k, or another disk",
            )

    def compare(self, old, directory):
        """Raises `DataError` if the cache in a folder was made by another teacher, of other data, or with other settings."""
        found = manifest.differences(old, self.settings)
        if found:
            raise DataError(
                f"The folder '{directory}' holds another cache: {'; '.join(found)}.",
                "the teacher, dataset and settings that it was begun with",
                "choose another folder",
            )
