"""Writes a cache shard by shard, each whole or not at all, so that a killed run can be continued."""

import itertools
import os
import pathlib

from tfdistill.distill.cache import folder, manifest
from tfdistill.distill.cache.fingerprint import inputs_digest
from tfdistill.distill.cache.format import write_shard
from tfdistill.distill.cache.manifest import MANIFEST, Manifest, Shard, shard_name, shard_record_name
from tfdistill.errors import DataError
from tfdistill.utils.arrays import rows_of
from tfdistill.utils.files import write_whole


class ShardWriter:
    """Writes the shards of one folder. The caller holds the folder's lock.

    A shard is finished when its record, a small JSON file beside it, exists; the record is written last. When all shards are finished,
    their records become one manifest.

    Args:
        directory: The folder.
        settings: `Settings` of the cache.
    """

    def __init__(self, directory, settings):
        self.directory, self.settings = pathlib.Path(directory), settings

    def record_path(self, index):
        """Path of the record of a shard."""
        return self.directory / shard_record_name(index)

    def finished(self, index):
        """Returns the `Shard` of a finished shard, whose file is verified; None if it is not finished.

        Raises:
            DataError: if its record or its file is damaged.
        """
        if not os.path.lexists(self.record_path(index)):
            return None
        shard, _ = manifest.load_signed(Shard, self.record_path(index))
        manifest.check_shard_name(self.record_path(index), shard, index)
        manifest.verify_shard(self.directory, shard)
        return shard

    def write(self, index, blocks, query, first_outputs=None, advance=None):
        """Writes one shard.

        Args:
            index: Its number.
            blocks: Iterable of the inputs of its records.
            query: `TeacherQuery`.
            first_outputs: The teacher's outputs for the first block, if they were computed already.
            advance: Function that is called after each record, or None.

        Returns:
            `Shard`.
        """
        first, digests, elements = index * self.settings.shard_elements, [], 0
        path = self.directory / shard_name(index)

        def rows():
            nonlocal elements
            for number, inputs in enumerate(blocks):
                reuse = number == 0 and first_outputs is not None
                outputs = first_outputs if reuse else query.outputs(inputs, first + elements)
                digests.append(inputs_digest(inputs))
                elements += rows_of(inputs)
                yield self.settings.layout.pack(outputs, first + elements - rows_of(inputs), self.settings.output_names)
                if advance:
                    advance()

        with write_whole(path, follow_links=False) as temporary:
            write_shard(temporary, rows())
            shard = Shard(path.name, elements, temporary.stat().st_size, manifest.sha256_of(temporary), tuple(digests))
        manifest.save_signed(shard, self.record_path(index))
        return shard

    def write_all(self, source, query, first_outputs=None, advance=None):
        """Writes all shards that are missing, and compares the data with the input digests of those that are finished.

        Returns:
            List of `Shard`s.

        Raises:
            DataError: if the data is not that of the finished shards, or one of these is damaged.
        """
        blocks, shards = iter(source.blocks(self.settings.block)), []
        for first in blocks:
            own = itertools.chain([first], itertools.islice(blocks, self.settings.shard_elements // self.settings.block - 1))
            shard = self.finished(len(shards))
            if shard is None:
                shard = self.write(len(shards), own, query, first_outputs if not shards else None, advance)
            else:
                self.check_inputs(shard, own, advance)
            shards.append(shard)
        return shards

    def check_inputs(self, shard, blocks, advance=None):
        """Raises `DataError` unless a finished shard was made from these inputs."""
        digests = []
        for inputs in blocks:
            digests.append(inputs_digest(inputs))
            if advance:
                advance()
        check_digests(self.directory / shard.file, dict(enumerate(digests)), shard.inputs, 0, self.settings.block, whole=True)

    def finish(self, shards):
        """Writes the manifest, and removes what only an unfinished cache needs.

        Raises:
            DataError: if there are more shards than the data fills.
        """
        if self.record_path(len(shards)).is_file():
            raise DataError(
                f"The folder '{self.directory}' holds '{shard_name(len(shards))}', but the dataset ended before it: it is another dataset.",
                fix="choose another folder, or give the dataset that the labelling began with",
            )
        manifest.save_signed(Manifest(self.settings, sum(shard.elements for shard in shards), tuple(shards)), self.directory / MANIFEST)
        folder.tidy(self.directory)


def check_digests(where, found, expected, first, block, whole=False):
    """Raises `DataError` unless digests of inputs are the expected ones.

    Args:
        where: File that has the expected digests, for the error.
        found: Dict of the block's number to its digest.
        expected: Sequence of the digests of all blocks.
        first: Number of the first block's first element.
        block: Elements in a block.
        whole: Whether all blocks were read.
    """
    for number, digest in sorted(found.items()):
        if number >= len(expected) or digest != expected[number]:
            start = first + number * block
            raise DataError(
                f"Another dataset: its elements {start} to {start + block - 1} are not those that '{where}' has the teacher's outputs for.",
                "the dataset that was labelled, in the same order",
                "shuffle after joining, not before; or label this dataset into another folder",
            )
    if whole and len(found) != len(expected):
        raise DataError(f"Another dataset: it ends {len(expected) - len(found)} batches of {block} before the outputs in '{where}' do.")
