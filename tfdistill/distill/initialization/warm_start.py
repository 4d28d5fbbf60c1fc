"""Warm start: a student's weights are initialized from its teacher's."""

import collections.abc
import dataclasses
import os
from collections.abc import Mapping
from typing import Literal

import keras
import numpy as np

from tfdistill.distill.initialization.pairing import Pairing, pair_alternate, pair_composites
from tfdistill.distill.initialization.projection import Narrower, is_a_chain
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.graph.names import find_layer, named_layers
from tfdistill.graph.traversal import own_weights, units
from tfdistill.records import Record
from tfdistill.utils.types import PathLike

COPIED, NARROWED, LEFT = "copied", "narrowed", "left"


@dataclasses.dataclass(frozen=True)
class LayerStart(Record):
    """How one layer of a student was initialized.

    Attributes:
        student: Path of the student's layer.
        teacher: Path of the teacher's layer, or None.
        how: "copied", "narrowed", or "left" unchanged.
        reason: Why it was left unchanged, or None.
        parameters: Number of the student's weights in this layer.
        kept_energy: Of a narrowed layer, the share (0 to 1) of the sum of squares of the teacher's largest weight that the student's holds.
    """

    student: str
    teacher: str | None
    how: str
    reason: str | None
    parameters: int
    kept_energy: float | None = None


@dataclasses.dataclass(frozen=True)
class WarmStartRecord(Record):
    """The result of a warm start, layer by layer in the student's order.

    Attributes:
        student: Name of the student.
        teacher: Name of the teacher.
        layers: One `LayerStart` for each layer of the student that has weights of its own.
    """

    student: str
    teacher: str
    layers: tuple[LayerStart, ...]

    @property
    def copied(self) -> tuple[LayerStart, ...]:
        """The layers that now equal the teacher's."""
        return tuple(layer for layer in self.layers if layer.how == COPIED)

    @property
    def narrowed(self) -> tuple[LayerStart, ...]:
        """The layers that were made from the teacher's wider ones."""
        return tuple(layer for layer in self.layers if layer.how == NARROWED)

    @property
    def left(self) -> tuple[LayerStart, ...]:
        """The layers that were left unchanged, each with its reason."""
        return tuple(layer for layer in self.layers if layer.how == LEFT)

    def __str__(self) -> str:
        lines = [f"Warm start of '{self.student}' from '{self.teacher}':"]
        for layer in self.layers:
            source = f" from {layer.teacher}" if layer.teacher else ""
            note = f" ({layer.reason})" if layer.reason else f" ({layer.kept_energy:.0%} kept)" if layer.kept_energy is not None else ""
            lines.append(f"  {layer.student}: {layer.how}{source}{note}")
        return "\n".join(lines)


def warm_start(
    student: keras.Model, teacher: keras.Model | PathLike, layers: Literal["alternate"] | Mapping[str, str] = "alternate"
) -> WarmStartRecord:
    """Initializes a student from its teacher's weights: equal layers are copied, narrower ones get the weights in fewer channels.

    Copying every other block is from Sanh et al. 2019, "DistilBERT", arXiv 1910.01108.

    **"alternate"** finds the blocks that repeat in the teacher. A block is a sequence of neighbouring layers with weights that occurs at
    least twice in a row, with the same layers and shapes; the longest run of blocks is used. Neighbours are the layers of a functional or
    Sequential model, of a nested model, or of a custom layer or model, in the order in which they were made. Layers that contain other
    layers (a nested model, a block's class) are never split. The student must have blocks of the same layers, of any width, and at most as
    many: block i of its n blocks gets the weights of the teacher's block floor(i * N / n) of N, so a student of half the depth gets blocks
    0, 2, 4, ... The layers before and after the blocks are paired in the same way (they may contain further runs, as the stages of a
    convolutional net do). Where nothing repeats, layers are paired by order if both models have equally many. Otherwise the longest common
    subsequence of layers of equal kinds and shapes is paired, and between two of its pairs the layers that are equally many in both models.
    So models of equal layers become equal, and a student with one more layer keeps that layer unchanged. If the only blocks that repeat are
    more in the student than in the teacher, `layers` must name the pairs. Names of layers only decide between pairings that are equally
    good: where a run begins, for example.

    **Narrower layers** (dense, convolutions, transposed, depthwise and separable ones, EinsumDense, Embedding, batch, layer and RMS
    normalization) get the teacher's weights projected onto a basis of fewer channels. For a space of n channels in the teacher and m in the
    student, P are the m leading right singular vectors of the matrix W of the layer that writes it. That layer becomes W P (its truncated
    SVD; biases b P), and the layer that reads the space becomes transpose(P) W. Of all projections onto m channels this one approximates W
    best. In models with branches all spaces of the same two widths share one P, computed from all layers that write into them, as a
    residual stream requires. Weights with one number per channel (depthwise kernels, gamma, variances) become the diagonal of their form in
    that basis. With an activation function between two layers the result is only an initialization: train afterwards. Axes of attention
    heads are not narrowed, as a softmax follows them; an attention layer whose heads are equal is narrowed in the width that it reads and
    writes. Recurrent layers are only copied.

    Args:
        student: A built Keras 3 model. Its weights are changed, all at once at the end; after an error they are as they were.
        teacher: A built Keras 3 model, or the path of a .keras or .h5 file. It is only read.
        layers: "alternate", or a dict of student's layer to teacher's layer, by names or paths. Layers that contain others are paired with
            all layers inside.

    Returns:
        `WarmStartRecord`.

    Raises:
        ModelError: if a model is not built, a layer does not exist (with the nearest names), two layers are not of the same kind, or
            no layer of the student could be initialized.
        ConfigurationError: if `layers` is neither.

    Example:
        >>> record = tfdistill.warm_start(student, teacher)
        >>> print(record)
        Warm start of 'student' from 'teacher':
          conv: narrowed from conv (...% kept)
          norm: narrowed from norm (...% kept)
          logits: narrowed from logits (...% kept)
        >>> record.left
        ()
    """
    if isinstance(teacher, (str, os.PathLike)):
        teacher = as_teacher(teacher)
    for role, model in (("student", student), ("teacher", teacher)):
        _check_model(model, role)
    if student is teacher:
        raise ModelError("Teacher and student are one and the same model.", "two models")
    if isinstance(layers, collections.abc.Mapping) and layers:
        pairings = _pair_by_name(student, teacher, layers)
    elif layers == "alternate":
        pairings = pair_alternate(student, teacher)
    else:
        raise ConfigurationError(f"layers is {layers!r}.", '"alternate", or a dict of student layer to teacher layer')
    names = [_paths(model) for model in (student, teacher)]
    rows, values = _decide(pairings, is_a_chain(student) and is_a_chain(teacher), *names)
    if not values:
        raise ModelError(
            f"Nothing of the teacher '{teacher.name}' fits the student '{student.name}': {'; '.join(f'{r.student}: {r.reason}' for r in rows[:5])}.",
            "at least one layer of equal shapes, or a narrower one",
        )
    _assign(values)
    return WarmStartRecord(student.name, teacher.name, tuple(rows))


def _check_model(model, role):
    if not isinstance(model, keras.Model) or callable(getattr(model, "named_layers", None)):
        raise ModelError(
            f"The {role} is a {type(model).__name__}.",
            "a Keras 3 model of Keras 3 layers",
            "warm start before a compression step wraps the model",
        )
    if not model.built or not model.weights:
        raise ModelError(
            f"The {role} '{model.name}' is not built: it has no weights yet.", "a built model", "call it once on a batch of inputs"
        )


def _paths(model):
    paths = {id(model): model.name}
    for path, layer in named_layers(model).items():
        paths.setdefault(id(layer), path)
    return paths


def _pair_by_name(student, teacher, layers):
    paired = {}
    for student_path, teacher_path in layers.items():
        student_layer, teacher_layer = find_layer(student, student_path, "student"), find_layer(teacher, teacher_path, "teacher")
        pairs = (
            pair_composites(student_layer, teacher_layer)
            if isinstance(student_layer, keras.Layer) and isinstance(teacher_layer, keras.Layer)
            else None
        )
        if pairs is None:
            raise ModelError(
                f"The student's layer '{student_path}' ({_structure(student_layer)}) cannot get the weights of the teacher's '{teacher_path}' "
                f"({_structure(teacher_layer)}).",
                "layers of the same kind, with the same layers inside",
            )
        for pair in pairs:
            if id(pair.student) in paired:
                raise ConfigurationError(
                    f"The student's layer '{pair.student.name}' is given twice, the second time in '{student_path}'.", "each layer once"
                )
            paired[id(pair.student)] = pair
    return [paired.get(id(unit), Pairing(unit, None, "not asked for")) for unit in units(student)]


def _structure(layer):
    inside = [type(unit).__name__ for unit in units(layer)] if isinstance(layer, keras.Layer) else []
    return (
        f"{type(layer).__name__} of {', '.join(inside[:6])}{', ...' if len(inside) > 6 else ''}"
        if len(inside) > 1
        else type(layer).__name__
    )


def _decide(pairings, chain, student_paths, teacher_paths):
    """Computes the values to assign, and the `LayerStart` of each layer."""
    narrower = Narrower(not chain, [(p.student, p.teacher) for p in pairings if p.teacher is not None])
    rows, values = [], []
    for student_layer, teacher_layer, reason in pairings:
        weights = own_weights(student_layer)
        how, kept = LEFT, None
        if teacher_layer is not None:
            sources = own_weights(teacher_layer)
            if [tuple(w.shape) for w in weights] == [tuple(w.shape) for w in sources]:
                how, found = COPIED, [np.asarray(w) for w in sources]
                narrower.forget()
            else:
                made = narrower.narrow(student_layer, teacher_layer)
                if isinstance(made, str):
                    reason = made
                else:
                    how, kept, found = NARROWED, made[1], [made[0][w.name] for w in weights]
            if how != LEFT:
                values += zip(weights, found, strict=True)
        else:
            narrower.forget()
        rows.append(
            LayerStart(
                student=student_paths[id(student_layer)],
                teacher=None if teacher_layer is None else teacher_paths[id(teacher_layer)],
                how=how,
                reason=reason,
                parameters=int(sum(np.prod(w.shape) for w in weights)),
                kept_energy=kept,
            )
        )
    return rows, values


def _assign(values):
    before = [(weight, np.array(weight)) for weight, _ in values]
    try:
        for weight, value in values:
            weight.assign(value.astype(_assignable_type(weight)))
    except BaseException:
        for weight, value in before:
            weight.assign(value)
        raise


def _assignable_type(weight):
    """The NumPy type of a value that is assigned to a weight: float32 for bfloat16, which NumPy lacks; the weight converts it."""
    return "float32" if weight.dtype == "bfloat16" else weight.dtype
