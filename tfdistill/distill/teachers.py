"""Teachers: what may teach, and several as one."""

import os

import keras
import numpy as np
from keras import ops

from tfdistill.distill import models, teacher_files
from tfdistill.distill.teacher_black_box import CallableTeacher
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.legacy.adopt import adopt
from tfdistill.losses import spaces

AVERAGES = ("probabilities", "logits")


def as_teacher(teacher):
    """Makes a `keras.Model` of anything that can teach.

    Args:
        teacher: One of
            - a `keras.Model` (an `Ensemble` and an adopted tf_keras model are such): returned as it is;
            - a built tf_keras model: adopted;
            - a path of a .tflite file or a SavedModel folder: `TFLiteTeacher`, `SavedModelTeacher`;
            - a callable `f(x) -> array` of NumPy arrays: `CallableTeacher`.

    Returns:
        `keras.Model`.

    Raises:
        ModelError: if it is none of these, or cannot be read.
    """
    if isinstance(teacher, keras.Model):
        return teacher
    # Told by name: asking tf_keras itself would import it.
    if any(cls.__module__.partition(".")[0] == "tf_keras" for cls in type(teacher).__mro__):
        return adopt(teacher)
    if isinstance(teacher, (str, os.PathLike)):
        return teacher_files.from_path(teacher)
    if callable(teacher) and not isinstance(teacher, type):
        return CallableTeacher(teacher)
    raise ModelError(
        f"Teacher must be a keras.Model or something that becomes one, got {teacher if isinstance(teacher, type) else type(teacher)}.",
        "a Keras or tf_keras model, a path of a .tflite file or SavedModel folder, a callable of NumPy arrays, or an Ensemble of these",
    )


@keras.saving.register_keras_serializable(package="tfdistill")
class Ensemble(keras.Model):
    """Several teachers as one: their weighted average, for classes that exclude one another (Hinton et al. 2015, arXiv 1503.02531, section 5).

    What comes out depends on the average, and is what the loss must be told:

    | average | of each output | comes out | loss |
    |---|---|---|---|
    | "probabilities" | log(sum of weight * softmax) | log-probabilities | `SoftTargets(teacher_outputs="log_probabilities")`, or the default "logits" |
    | "logits" | sum of weight * logits | logits | `SoftTargets(teacher_outputs="logits")`, the default |

    Log-probabilities are logits too (a softmax gives the same distribution back), so losses of logits work with both. For anything but classes
    (regression, yes-no outputs), `average="logits"` with `outputs="logits"` is the plain weighted mean of the outputs. Losses can tap the layers of Keras
    and tf_keras members, as "member's name/layer" or "members/0/layer".

    Args:
        members: At least one teacher of any kind that `as_teacher` takes, all with the same outputs.
        weights: A number of at least 0 for each member, not all 0; they are divided by their sum. None weighs all alike.
        average: "probabilities" or "logits".
        outputs: The space of the members' outputs, `(batch, ..., classes)`: "logits", "log_probabilities" or "probabilities", or a list of one for each.
        name: Name of the model.

    Raises:
        ConfigurationError: if weights or choices are out of range or of another number than the members.
        ModelError: if a member cannot teach, is not built, or has other outputs than the first (at the first batch at the latest).
    """

    def __init__(self, members, weights=None, average="probabilities", outputs="logits", name="ensemble"):
        super().__init__(name=name, dtype="float32", autocast=False)
        if not isinstance(members, (list, tuple)) or not members:
            raise ConfigurationError(f"The members of the Ensemble are {members!r}.", "a list of at least one teacher")
        if average not in AVERAGES:
            raise ConfigurationError(f"Ensemble: average is {average!r}.", f"one of {AVERAGES}")
        given = [outputs] * len(members) if isinstance(outputs, str) else list(outputs)
        if len(given) != len(members) or set(given) - set(spaces.SPACES):
            raise ConfigurationError(
                f"Ensemble: outputs is {outputs!r}, for {len(members)} members.", f"one of {spaces.SPACES}, or a list of one each"
            )
        self._shares = _shares(weights, len(members))
        self.members = [as_teacher(member) for member in members]
        for member in self.members:
            models.check_teacher_built(member)
        self.average, self._spaces = average, tuple(given)
        self._check_alike([_single(getattr(member, "outputs", None)) for member in self.members])
        self.built = True

    @property
    def outputs(self):
        """The first member's outputs, whose shapes all share; None where they are not known without data."""
        return getattr(self.members[0], "outputs", None)

    def input_spec_structure(self):
        """Structure of the inputs, as `tf.TensorSpec`s, or None where a member does not say."""
        specs = [models.input_spec(member) for member in self.members]
        return None if any(spec is None for spec in specs) else specs[0]

    def call(self, inputs, training=None):
        answers = [member(inputs, training=training) for member in self.members]
        self._check_alike(answers)
        leaves = zip(*[keras.tree.flatten(answer) for answer in answers], strict=True)
        return keras.tree.pack_sequence_as(answers[0], [self._averaged(values) for values in leaves])

    def _averaged(self, values):
        counted = [(w, v, s) for w, v, s in zip(self._shares, values, self._spaces, strict=True) if w > 0]
        logits = [(w, spaces.as_logits(ops.cast(v, "float32"), s)) for w, v, s in counted]
        if self.average == "logits":
            return sum(w * z for w, z in logits)
        if values[0].shape[-1] == 1:
            raise ModelError(
                f"The members of '{self.name}' have one output each: the softmax over one class is always 1.",
                "outputs over at least two classes",
                "average='logits'",
            )
        return ops.logsumexp(ops.stack([float(np.log(w)) + ops.log_softmax(z) for w, z in logits]), axis=0)

    def _check_alike(self, answers):
        first, shapes = None, None
        for member, answer in zip(self.members, answers, strict=True):
            if answer is None:
                continue
            own = keras.tree.map_structure(lambda t: tuple(t.shape)[1:], answer)
            if first is None:
                first, shapes = member, own
            elif own != shapes:
                raise ModelError(
                    f"The members of '{self.name}' have different outputs: '{first.name}' {shapes}, '{member.name}' {own} (without the batch).",
                    "members that answer alike",
                )

    def get_build_config(self):
        return None

    def build_from_config(self, config):
        self.built = True

    def get_config(self):
        return {
            "name": self.name,
            "members": [keras.saving.serialize_keras_object(member) for member in self.members],
            "weights": list(self._shares),
            "average": self.average,
            "outputs": list(self._spaces),
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "members": [keras.saving.deserialize_keras_object(member) for member in config["members"]]})


def _single(outputs):
    return outputs[0] if outputs and len(outputs) == 1 else outputs


def _shares(weights, count):
    if weights is None:
        return (1.0 / count,) * count
    weights = list(weights) if isinstance(weights, (list, tuple, np.ndarray)) else [weights]
    if len(weights) != count:
        raise ConfigurationError(f"The Ensemble has {count} members, but {len(weights)} weights: {weights}.", "one for each member")
    numbers = all(isinstance(w, (int, float, np.number)) and not isinstance(w, bool) and 0 <= w < float("inf") for w in weights)
    if not numbers or sum(weights) == 0:
        raise ConfigurationError(f"The weights of the Ensemble are {weights}.", "finite numbers of at least 0, not all 0")
    return tuple(float(w) / float(sum(weights)) for w in weights)
