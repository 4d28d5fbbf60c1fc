"""Black-box teachers: outputs alone, without weights, layers or a graph."""

import collections.abc
import contextlib
import threading
import types
import typing

import keras
import numpy as np
import tensorflow as tf

from tfdistill.distill.teachers.waiting import only_one_thread, run_watched
from tfdistill.errors import ConfigurationError, DataError, ModelError, TfdistillError
from tfdistill.graph.layers import all_layers
from tfdistill.utils.arrays import rows_of
from tfdistill.utils.finite import non_finite
from tfdistill.utils.types import Tensors


class BlackBox(keras.Model):
    """Base of the teachers that compute NumPy arrays in the middle of a training step.

    A subclass has a method `run(inputs)`: it takes the inputs of the Distiller as arrays `(batch, ...)`, and returns an array `(batch,
    ...)` or a dict of them. The outputs are checked: one row for each sample, the same shape every time, finite numbers. They are converted
    to float32. The model has no weights, so there is nothing to freeze, and XLA cannot compile it.

    Args:
        kind: What it is, for error messages: "callable", ".tflite file".
        name: Name of the model.
        output_shapes: Shape of the output without its batch axis, `(classes,)`, or a dict of output name to shape; None inside a shape
            stands for any size. None where it is not known yet: the first batch shows it.
    """

    def __init__(self, kind: str, name: str, output_shapes: typing.Any = None):
        super().__init__(name=name, dtype="float32", autocast=False)
        self.supports_jit = False
        self.kind = kind
        # In a namespace, as Keras would wrap dicts and track variables in them.
        self._box = types.SimpleNamespace(shapes=output_shapes, batches=0, failure=None, within=0, lock=threading.Lock())
        self.built = True

    @property
    def outputs(self) -> list | None:
        """List of a `keras.KerasTensor` for each output, or None while the shapes are not known."""
        shapes = self._flat_shapes()
        return shapes and [keras.KerasTensor((None, *shape), dtype="float32") for shape in shapes.values()]

    def call(self, inputs: Tensors, training: bool | None = None) -> Tensors:
        """Returns the outputs for a batch; `training` changes nothing."""
        leaves = keras.tree.flatten(inputs)
        if tf.executing_eagerly():
            flat = [tf.convert_to_tensor(value) for value in self._run_checked(inputs, leaves)]
            return self._packed(flat)
        shapes = self._flat_shapes()
        if shapes is None:
            raise ModelError(
                f"The teacher '{self.name}' ({self.kind}) has not run yet, so the shape of its outputs is not known while the step is traced.",
                fix="give the shape: CallableTeacher(function, output_shape=(classes,)); fit with arrays or a tf.data.Dataset finds it by itself",
            )
        # A stateful function runs in order. Batches run one at a time (see the lock), as neither an interpreter nor a user's function need
        # be thread-safe.
        flat = tf.numpy_function(lambda *arrays: self._run_in_step(inputs, arrays), leaves, [tf.float32] * len(shapes), stateful=True)
        for value, shape in zip(flat, shapes.values(), strict=True):
            value.set_shape((leaves[0].shape[0], *shape))
        return self._packed(flat)

    def _run_in_step(self, structure, leaves):
        if not only_one_thread():
            return self._run_checked(structure, leaves)
        try:
            return run_watched(lambda arrays: self._run_checked(structure, arrays), leaves, f"The teacher '{self.name}' ({self.kind})")
        except TfdistillError as error:
            self._box.failure = error
            raise

    def _run_checked(self, structure, leaves):
        """Runs one batch and checks the outputs; returns the flat list of float32 arrays."""
        box = self._box
        with box.lock:
            index, box.batches = box.batches, box.batches + 1
            try:
                arrays = keras.tree.pack_sequence_as(structure, [np.asarray(keras.ops.convert_to_numpy(leaf)) for leaf in leaves])
                return self._checked(self._run_or_explain(arrays, index), rows_of(arrays), index)
            except TfdistillError as error:
                box.failure = error
                raise

    def _run_or_explain(self, arrays, index):
        try:
            return self.run(arrays)
        except TfdistillError:
            raise
        except Exception as error:
            raise ModelError(f"{self._at(index)} raised {type(error).__name__}: {error}", "an array of outputs") from error

    def _at(self, index):
        return f"The teacher '{self.name}' ({self.kind}), on batch {index} (from 0, validation batches counted too),"

    def _checked(self, outputs, rows, index):
        named = isinstance(outputs, collections.abc.Mapping)
        values = {name: np.asarray(value) for name, value in sorted(outputs.items())} if named else {None: np.asarray(outputs)}
        for name, value in values.items():
            if value.dtype.kind not in "fiub" and "float" not in value.dtype.name:
                raise DataError(f"{self._at(index)} gave a {type(outputs).__name__} of dtype {value.dtype}.", "an array of numbers")
            if value.ndim == 0 or value.shape[0] != rows:
                raise DataError(
                    f"{self._at(index)} gave the shape {value.shape}{_called(name)} for {rows} samples.", f"one row for each: ({rows}, ...)"
                )
        if self._box.shapes is None:
            self._box.shapes = {n: v.shape[1:] for n, v in values.items()} if named else values[None].shape[1:]
        shapes = self._flat_shapes()
        if set(values) != set(shapes):
            raise DataError(f"{self._at(index)} gave the outputs {list(values)}.", f"{list(shapes)}")
        for name, value in values.items():
            if not _fits(value.shape[1:], shapes[name]):
                expected = ", ".join(str(size) for size in (rows, *shapes[name]))
                raise DataError(f"{self._at(index)} gave the shape {value.shape}{_called(name)}.", f"({expected}), as given or as before")
        flat = [np.ascontiguousarray(values[name], dtype="float32") for name in shapes]
        for name, value in zip(shapes, flat, strict=True):
            if (found := non_finite(value)) is not None:
                amount = f"{found.number} of {value.size} values; the first at index {list(found.first)}"
                raise DataError(f"{self._at(index)} gave {found.kind}{_called(name)}: {amount}.", "finite numbers")
        return flat

    def _flat_shapes(self):
        shapes = self._box.shapes
        if shapes is None or isinstance(shapes, dict):
            return shapes
        return {None: tuple(shapes)}

    def _packed(self, flat):
        return dict(zip(self._box.shapes, flat, strict=True)) if isinstance(self._box.shapes, dict) else flat[0]

    def get_build_config(self) -> None:
        """Returns None: there is nothing to build."""

    def build_from_config(self, config: typing.Any) -> None:
        """Marks the model as built; Keras calls it on a loaded model."""
        self.built = True


def _fits(shape, expected):
    return len(shape) == len(expected) and all(e is None or s == e for s, e in zip(shape, expected, strict=True))


def _called(name):
    return "" if name is None else f" as '{name}'"


def black_boxes(model):
    """Lists the black boxes in a teacher: itself, or the members of an ensemble."""
    return [layer for layer in all_layers(model) if isinstance(layer, BlackBox)]


def refuse_taps(teacher, terms):
    """Refuses losses that tap a layer of a black box.

    Raises:
        ModelError: naming the layer and the teacher.
    """
    for term in terms:
        if term.teacher_tap and isinstance(teacher, BlackBox):
            raise ModelError(
                f"A loss compares the layer '{term.teacher_tap.path}' of the teacher '{teacher.name}', but that is a {teacher.kind}: it has its final output "
                "only.",
                "a Keras or tf_keras model as the teacher of a loss on layers",
                "use losses on the final outputs, such as tfdistill.losses.SoftTargets",
            )


def refuse_jit(teacher):
    """Refuses XLA for a teacher that is a black box, or contains one.

    Raises:
        ConfigurationError: naming the teacher.
    """
    boxes = black_boxes(teacher)
    if boxes:
        raise ConfigurationError(
            f"jit_compile=True is impossible: the teacher '{boxes[0].name}' is a {boxes[0].kind}, which XLA cannot compile.",
            "jit_compile=False or 'auto' with such a teacher",
        )


@contextlib.contextmanager
def own_errors(teacher):
    """While the block runs, counts the batches of a teacher's black boxes from 0, and raises their own errors.

    TensorFlow wraps what a Python function raises in an error of its own; this raises the original one. A block inside another (an
    evaluation inside `fit`) continues the count.
    """
    boxes = [box._box for box in black_boxes(teacher)]
    for box in boxes:
        if not box.within:
            box.batches, box.failure = 0, None
        box.within += 1
    try:
        yield
    except tf.errors.OpError as error:
        failure = next((box.failure for box in boxes if box.failure is not None), None)
        # An inner block leaves it to the outer one, as Keras drops the cause between them.
        if failure is None or any(box.within > 1 for box in boxes):
            raise
        raise failure from failure.__cause__ or error
    finally:
        for box in boxes:
            box.within -= 1
            if not box.within:
                box.batches, box.failure = 0, None
