"""The plan of a cache: its settings and its size, known after the teacher ran on one batch."""

import dataclasses
import shutil

from tfdistill.distill.cache import augmentation, fingerprint, manifest, sources
from tfdistill.distill.cache.format import AFTER, BEFORE
from tfdistill.distill.cache.manifest import Settings
from tfdistill.distill.cache.query import TeacherQuery
from tfdistill.distill.objective.compatibility import check_teacher_built
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.finite import check_finite_weights
from tfdistill.distill.teachers.remote import RemoteTeacher
from tfdistill.errors import ConfigurationError, DataError
from tfdistill.records import Record

# A killed run repeats at most one shard, of so many elements and bytes. Calls of a remote teacher cost money: there a shard is one call.
SHARD_ELEMENTS, SHARD_BYTES = 8192, 4 << 20
BATCH, REMOTE_BATCH = 256, 32


@dataclasses.dataclass(frozen=True)
class CachePlan(Record):
    """What a cache will hold.

    Attributes:
        settings: `Settings`.
        elements: Number of elements, or None where only a pass over the whole data set could count them.
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
    """Plans the cache of a teacher's outputs on a data set.

    Args:
        teacher: Whatever `as_teacher` takes, or a `RemoteTeacher`.
        source: From `sources.as_source`.
        options: `CacheOptions`.
        old: `Settings` of the cache that is in the folder already, or None.

    Attributes:
        settings: `Settings` of the cache.
        query: `TeacherQuery`.
        first_outputs: The teacher's outputs for the first block, or None if they were not computed.

    Raises:
        DataError: if the data set comes in another order each time.
    """

    def __init__(self, teacher, source, options, old=None):
        remote = isinstance(teacher, RemoteTeacher)
        self.teacher = teacher if remote else as_teacher(teacher)
        if not remote:
            check_teacher_built(self.teacher)
            check_finite_weights(self.teacher)
        self.source = source
        teacher_fingerprint = fingerprint.fingerprint_teacher(self.teacher)
        self.query = TeacherQuery(self.teacher, options)
        block = options.batch_size or (old.block if old else REMOTE_BATCH if remote else BATCH)
        self.first_outputs = None
        inputs = self._first_block(block)
        if options.augment:
            augmentation.check_repeatable(lambda batch: self.query.view(batch, 0, 0), inputs)
        format_version = old.format if old else manifest.FORMAT
        # Of a remote teacher the outputs are not computed again where the cache describes them already: a call costs money.
        described = _description(old) if old and remote else self._describe(inputs, scaled=format_version > 1)
        shard_elements = options.shard_elements
        if shard_elements is None:
            row_bytes = described["layout"].row_bytes
            fitting = 1 if remote else min(SHARD_ELEMENTS, SHARD_BYTES // row_bytes)
            shard_elements = old.shard_elements if old else fitting
        self.settings = Settings(
            teacher=teacher_fingerprint,
            inputs=fingerprint.input_parts(inputs),
            dtype=options.dtype,
            top_k=options.top_k,
            temperatures=options.temperatures if options.top_k else (),
            augmented=fingerprint.inputs_digest(self.query.view(inputs, 0, 0)) if options.augment else None,
            block=block,
            shard_elements=-(-shard_elements // block) * block,
            format=format_version,
            **described,
        )

    def _first_block(self, block):
        first, again = (next(iter(self.source.blocks(block)), None) for _ in range(2))
        if first is None:
            raise DataError("The dataset is empty.", "at least one batch")
        if fingerprint.inputs_digest(first) != fingerprint.inputs_digest(again):
            raise DataError(
                "The dataset does not come in the same order every time: its first batch differs between two passes.",
                "a dataset of fixed order: outputs are stored by the elements' numbers",
                "take shuffle() and random augmentation out of it: shuffle after joining, and augment with augment=",
            )
        return first

    def _describe(self, inputs, scaled):
        self.first_outputs = self.query.outputs(inputs, 0)
        self.query.refuse_hidden_nan(inputs)
        return self.query.describe(self.first_outputs, scaled)

    def plan(self):
        """Returns the `CachePlan`."""
        elements = None if isinstance(self.source, sources.Stream) else self.source.count()
        size = None
        if elements is not None:
            size = elements * self.settings.layout.row_bytes + -(-elements // self.settings.block) * (BEFORE + AFTER)
        return CachePlan(self.settings, elements, size)

    def check_disk_space(self, directory):
        """Raises `ConfigurationError` if the disk is too small for the cache."""
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


def _description(settings):
    """What `TeacherQuery.describe` returned when the settings were made."""
    return {name: getattr(settings, name) for name in ("layout", "structure", "output_names", "classes")}
