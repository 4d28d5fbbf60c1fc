"""Writing a cache: shard by shard, each whole or not at all, so that a run which was killed goes on where it was."""

import itertools
import os
import pathlib

from tfdistill.distill.cache import folder, manifest
from tfdistill.distill.cache.fingerprint import inputs_digest
from tfdistill.distill.cache.format import write_shard
from tfdistill.distill.cache.manifest import MANIFEST, Manifest, Shard, note_name, shard_name
from tfdistill.distill.cache.sources import rows_of
from tfdistill.errors import DataError
from tfdistill.utils.files import write_whole


class ShardWriter:
    """A folder that a cache is written into. Only for who holds its lock.

    A shard counts as done when its note, a small JSON file beside it, is there; the note is written last. When all are done their notes become one
    manifest.

    Args:
        directory: The folder.
        settings: `Settings` of the cache.
    """

    def __init__(self, directory, settings):
        self.directory, self.settings = pathlib.Path(directory), settings

    def note(self, index):
        return self.directory / note_name(index)

    def done(self, index):
        """Returns the `Shard` that is done already, its file verified; None if it is not done.

        Raises:
            DataError: if its note or its file is damaged.
        """
        if not os.path.lexists(self.note(index)):
            return None
        shard, _ = manifest.load_signed(Shard, self.note(index))
        manifest.check_shard_name(self.note(index), shard, index)
        manifest.verify_shard(self.directory, shard)
        return shard

    def fill(self, index, blocks, asker, known=None, advance=None):
        """Writes one shard.

        Args:
            index: Its number.
            blocks: Iterable of the inputs of its records.
            asker: `TeacherQuery`.
            known: Answers to the first block, where they were asked for already.
            advance: Function that is called after each record, or None.

        Returns:
            `Shard`.
        """
        first, digests, elements = index * self.settings.shard_elements, [], 0
        path = self.directory / shard_name(index)

        def rows():
            nonlocal elements
            for number, inputs in enumerate(blocks):
                answers = known if known is not None and number == 0 else asker.ask(inputs, first + elements)
                digests.append(inputs_digest(inputs))
                elements += rows_of(inputs)
                yield self.settings.layout.pack(answers, first + elements - rows_of(inputs), self.settings.output_names)
                if advance:
                    advance()

        with write_whole(path, follow_links=False) as beside:
            write_shard(beside, rows())
            shard = Shard(path.name, elements, beside.stat().st_size, manifest.sha256_of(beside), tuple(digests))
        manifest.save_signed(shard, self.note(index))
        return shard

    def fill_all(self, source, asker, known=None, advance=None):
        """Writes all shards that are not there yet, and compares the data with what those that are there were asked about.

        Returns:
            List of `Shard`s.

        Raises:
            DataError: if the data is not that of the finished shards, or one of these is damaged.
        """
        blocks, shards = iter(source.blocks(self.settings.block)), []
        for first in blocks:
            own = itertools.chain([first], itertools.islice(blocks, self.settings.shard_elements // self.settings.block - 1))
            shard = self.done(len(shards))
            if shard is None:
                shard = self.fill(len(shards), own, asker, known if not shards else None, advance)
            else:
                self.compare(shard, own, advance)
            shards.append(shard)
        return shards

    def compare(self, shard, blocks, advance=None):
        """Raises `DataError` unless a finished shard was asked about these inputs."""
        digests = []
        for inputs in blocks:
            digests.append(inputs_digest(inputs))
            if advance:
                advance()
        refuse_other_data(self.directory / shard.file, dict(enumerate(digests)), shard.inputs, 0, self.settings.block, whole=True)

    def finish(self, shards):
        """Writes the manifest, and takes away what only an unfinished cache needs.

        Raises:
            DataError: if more shards are there than the data has.
        """
        if self.note(len(shards)).is_file():
            raise DataError(
                f"The folder '{self.directory}' holds '{shard_name(len(shards))}', but the dataset ended before it: it is another dataset.",
                fix="choose another folder, or give the dataset that the labelling began with",
            )
        manifest.save_signed(Manifest(self.settings, sum(shard.elements for shard in shards), tuple(shards)), self.directory / MANIFEST)
        folder.tidy(self.directory)


def refuse_other_data(where, found, expected, first, block, whole=False):
    """Raises `DataError` unless digests of inputs are those that are expected.

    Args:
        where: File, for the error.
        found: Dict of the block's number to its digest.
        expected: Sequence of the digests of all blocks.
        first: Number of the first block's first element.
        block: Elements in a block.
        whole: Whether all blocks were looked at.
    """
    for number, digest in sorted(found.items()):
        if number >= len(expected) or digest != expected[number]:
            start = first + number * block
            raise DataError(
                f"Another dataset: its elements {start} to {start + block - 1} are not those that '{where}' has the answers to.",
                "the dataset that was labelled, in the same order",
                "shuffle after joining, not before; or label this dataset into another folder",
            )
    if whole and len(found) != len(expected):
        raise DataError(f"Another dataset: it ends {len(expected) - len(found)} batches of {block} before the answers in '{where}' do.")
