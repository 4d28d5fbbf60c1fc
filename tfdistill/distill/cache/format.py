"""The file format of stored teacher outputs: rows of fixed size, many rows to a record, many records to a shard.

A shard is a TFRecord file. Each record is one batch of elements; each element is one row of bytes; in a row the views of the element follow
one another, and in a view the leaves (outputs, layers) do, little-endian, without padding. So the position of a row in its file is known
without reading the file.

float16 has a small range: 1e-6 keeps three of its eleven significant bits, 1e-8 none. So each float16 tensor of each element is followed by
a scale of one byte, by which it was divided: a power of two in the form E8M0 of the OCP Microscaling Formats (MX) specification, v1.0
(2023).
"""

import dataclasses
import functools
import math
import os

import numpy as np
import tensorflow as tf

from tfdistill.errors import DataError
from tfdistill.graph.datasets import record_reader
from tfdistill.records import Record
from tfdistill.utils.files import open_regular

FLOATS = ("float16", "bfloat16", "float32")
# Bytes that TFRecord puts before and after the content of a record: length and its checksum, and the checksum of the content.
BEFORE, AFTER = 12, 4
_LABEL_AGAIN = "delete the folder and label again, or bring a copy back"


@dataclasses.dataclass(frozen=True)
class Leaf(Record):
    """One tensor of a teacher's outputs.

    Attributes:
        role: "output", "layer", or for a final output of which only the largest logits are stored "values", "indices" and "rest"; "scale"
            for the scale of the leaf before it; "mask" for the padding mask of an output or layer, 1 where a position counts and 0 where it
            is padding.
        name: Number of the output, counted from 0 as text; or the layer's name or path; of a scale, role and name of its leaf with a slash
            between them; of a mask, "output" or "layer" and the name, likewise.
        shape: Shape without the batch axis.
        dtype: Name of the type in the file.
    """

    role: str
    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def numpy_dtype(self):
        """The type as a `numpy.dtype`."""
        return np.dtype(tf.as_dtype(self.dtype).as_numpy_dtype)

    @property
    def size_bytes(self):
        """Bytes of the tensor for one element."""
        return self.numpy_dtype.itemsize * math.prod(self.shape)


@dataclasses.dataclass(frozen=True)
class Layout(Record):
    """The row of one element.

    Attributes:
        leaves: The tensors of one view, in their order.
        views: Number of views of each element.
    """

    leaves: tuple[Leaf, ...]
    views: int

    @functools.cached_property
    def view_bytes(self):
        """Bytes of one view of an element."""
        return sum(leaf.size_bytes for leaf in self.leaves)

    @functools.cached_property
    def row_bytes(self):
        """Bytes of one element."""
        return self.views * self.view_bytes

    def pack(self, views, first=0, output_names=()):
        """Packs the teacher's outputs for a batch into rows.

        Args:
            views: For each view a list of arrays `(rows, *shape)`, one for each leaf that is not a scale.
            first: Number of the first row's element, for errors.
            output_names: Names of the final outputs, for errors.

        Returns:
            uint8, of shape (rows, row_bytes).

        Raises:
            DataError: if a value is NaN or infinite, or becomes so in the leaf's type.
        """
        rows = len(views[0][0])
        parts = []
        scaled = {leaf.name for leaf in self.leaves if leaf.role == "scale"}
        stored_leaves = [leaf for leaf in self.leaves if leaf.role != "scale"]
        for view, outputs in enumerate(views):
            for leaf, values in zip(stored_leaves, outputs, strict=True):
                values = np.asarray(values)
                if values.shape != (rows, *leaf.shape):
                    raise DataError(
                        f"The teacher's {_described(leaf, output_names)} has the shape {values.shape} for a batch of {rows}.",
                        f"{(rows, *leaf.shape)}, as for the batches before",
                    )
                divided, scales = _scale(values) if f"{leaf.role}/{leaf.name}" in scaled else (values, None)
                with np.errstate(over="ignore"):
                    stored = np.ascontiguousarray(divided, leaf.numpy_dtype)
                if leaf.role != "indices":
                    where = f" in view {view}" if self.views > 1 else ""
                    _refuse_nonfinite(leaf, values, stored, first, _described(leaf, output_names), where)
                parts.append(stored.reshape(rows, -1).view(np.uint8))
                if scales is not None:
                    parts.append(scales[:, None])
        return np.concatenate(parts, axis=1)

    def unpack(self, rows, view=None):
        """Unpacks rows into tensors.

        Args:
            rows: uint8 tensor of shape (n, row_bytes).
            view: int tensor of shape (n,), the view to take of each element; None where there is only one.

        Returns:
            Tuple of tensors `(n, *shape)`, one for each leaf, in the types of the file.
        """
        if self.views > 1:
            rows = tf.gather(tf.reshape(rows, [-1, self.views, self.view_bytes]), view, batch_dims=1)
        found = []
        for leaf, place in self._places():
            size = leaf.numpy_dtype.itemsize
            # A type of one byte is the bytes themselves.
            own = tf.reshape(rows[:, place], [-1, *leaf.shape, size] if size > 1 else [-1, *leaf.shape])
            found.append(tf.bitcast(own, tf.as_dtype(leaf.dtype)))
        return tuple(found)

    def unpack_arrays(self, rows, view=None):
        """`unpack` in NumPy, for worker processes, which must not use TensorFlow."""
        if self.views > 1:
            rows = rows.reshape(-1, self.views, self.view_bytes)[np.arange(len(rows)), view]
        return tuple(np.ascontiguousarray(rows[:, place]).view(leaf.numpy_dtype).reshape(-1, *leaf.shape) for leaf, place in self._places())

    def _places(self):
        at = 0
        for leaf in self.leaves:
            yield leaf, slice(at, at + leaf.size_bytes)
            at += leaf.size_bytes

    def from_records(self, records):
        """Turns a string tensor of whole records into rows, uint8 of shape (n, row_bytes)."""
        return tf.reshape(tf.io.decode_raw(tf.strings.reduce_join(records), tf.uint8), [-1, self.row_bytes])

    def read_rows(self, path, first, count, block):
        """Reads some rows of a shard: the records that hold them, each compared with its checksum.

        Args:
            path: The shard.
            first: Number of the first row within the shard.
            count: Number of rows.
            block: Rows in each record but the last.

        Returns:
            uint8 array of shape (count, row_bytes).

        Raises:
            DataError: if a record is damaged, or the file ends before.
        """
        # A plain file reader in C++: unlike tf.data it may be used in worker processes.
        try:
            os.close(open_regular(path))
            reader = record_reader(os.fsencode(path))
        except (FileNotFoundError, tf.errors.NotFoundError) as error:
            raise DataError(f"'{path}' is gone.", "the shard that was there when the cache was joined", _LABEL_AGAIN) from error
        parts = []
        while count:
            record, row = divmod(first, block)
            here = min(count, block - row)
            try:
                data, _ = reader.read(record * (BEFORE + block * self.row_bytes + AFTER))
            except IndexError as error:
                raise DataError(f"'{path}' ends before row {first + here}.", fix=_LABEL_AGAIN) from error
            except tf.errors.DataLossError as error:
                raise DataError(
                    f"'{path}' is damaged: its record {record} (rows {record * block} to {(record + 1) * block - 1}) does not have the "
                    "checksum that it carries.",
                    fix=_LABEL_AGAIN,
                ) from error
            rows = np.frombuffer(data, np.uint8)
            if rows.size < (row + here) * self.row_bytes or rows.size % self.row_bytes:
                raise DataError(f"'{path}' ends before row {first + here}.", fix=_LABEL_AGAIN)
            parts.append(rows.reshape(-1, self.row_bytes)[row : row + here])
            first, count = first + here, count - here
        return np.concatenate(parts)


def write_shard(path, batches):
    """Writes one record for each array of rows. The path is one that no other process reads yet."""
    with tf.io.TFRecordWriter(os.fsencode(path)) as writer:
        for rows in batches:
            writer.write(rows.tobytes())


def with_scales(leaves):
    """Inserts a scale after every leaf of float16; returns a tuple."""
    found = []
    for leaf in leaves:
        found += [leaf, Leaf("scale", f"{leaf.role}/{leaf.name}", (), "uint8")] if leaf.dtype == "float16" else [leaf]
    return tuple(found)


def from_scales(scales):
    """Turns a tensor of scales as they are in the file into float32 powers of two."""
    return tf.bitcast(tf.bitwise.left_shift(tf.cast(scales, tf.int32), 23), tf.float32)


def _scale(values):
    """Divides each row by a power of two of at most 1, after which its largest magnitude lies in [2**14, 2**15), or above if it did.

    Returns:
        The rows, and their scales as uint8: the exponent plus 127.
    """
    if values.dtype not in (np.float32, np.float64):
        values = values.astype("float64")
    flat = np.abs(values.reshape(len(values), -1))
    largest = np.max(flat, axis=1, initial=0.0, where=np.isfinite(flat))
    exponents = np.clip(np.frexp(largest)[1] - 15, -126, 0)
    exponents[largest == 0] = 0
    return np.ldexp(values, -exponents.reshape(-1, *[1] * (values.ndim - 1))), (exponents + 127).astype("uint8")


def _described(leaf, output_names):
    number = int(leaf.name) if leaf.role != "layer" and leaf.name.isdigit() else None
    return f"{leaf.role} '{leaf.name if number is None or number >= len(output_names) else output_names[number]}'"


def _refuse_nonfinite(leaf, values, stored, first, described, view):
    finite = np.isfinite(stored.astype("float32"))
    if finite.all():
        return
    row, *place = (int(i) for i in np.argwhere(~finite)[0])
    value = float(values[(row, *place)])
    where = f"The teacher's {described} is {value:g} at {place} of element {first + row}{view}"
    if math.isfinite(value):
        raise DataError(f"{where}, which {leaf.dtype} cannot hold.", fix="store the outputs with dtype='bfloat16' or 'float32'")
    count = int((~finite).reshape(len(finite), -1).any(axis=1).sum())
    raise DataError(
        f"{where}; {count} of {len(finite)} elements in this batch have such values.",
        "finite numbers",
        "look at the teacher's weights and inputs",
    )
