"""The average of several teachers as one teacher."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Literal

import keras
import numpy as np
from keras import ops

from tfdistill.distill.objective import compatibility
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.distill.teachers.keras_file import KerasFile
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.graph.functional import last_activations
from tfdistill.losses import masking, spaces
from tfdistill.saveable import checks_config
from tfdistill.utils import validate
from tfdistill.utils.types import Config, Tensors

AVERAGES = ("probabilities", "logits")
NUMBERS = "numbers"
SPACES = (*spaces.SPACES, NUMBERS)


@keras.saving.register_keras_serializable(package="tfdistill")
class Ensemble(keras.Model):
    """The weighted average of several teachers, for classes that exclude one another (Hinton et al. 2015, arXiv 1503.02531, section 5).

    The space of the result depends on the average; the loss must take it:

    | average | of each output | result | loss |
    |---|---|---|---|
    | "probabilities" | log(sum of weight * softmax) | log-probabilities | `SoftTargets(teacher_outputs="log_probabilities")`, or the default "logits" |
    | "logits" | sum of weight * logits | logits | `SoftTargets(teacher_outputs="logits")`, the default |

    Log-probabilities are logits too (a softmax gives the same distribution back), so losses of logits work with both. For anything but
    classes, `average="logits"` with `outputs="numbers"` is the plain weighted mean of the outputs; yes-no outputs are always averaged as
    logits. `outputs` is compared with the members' outputs for the first batch of `fit` and `soft_targets`. Losses can tap the layers of
    Keras and tf_keras members, as "member's name/layer" or "members/0/layer".

    Args:
        members: At least one teacher of any kind that `as_teacher` takes, all with the same outputs.
        weights: A number of at least 0 for each member, not all 0; they are divided by their sum. None weighs all alike.
        average: "probabilities" or "logits".
        outputs: The space of the members' outputs, `(batch, ..., classes)`: "logits", "log_probabilities" or "probabilities", or a list of
            one for each. "numbers" for regression, with `average="logits"`.
        name: Name of the model.

    Raises:
        ConfigurationError: if weights or choices are out of range or of another number than the members; at a first batch, if a member's
            outputs are in another space than the one given as `outputs`.
        ModelError: if a member is no teacher, is not built, or has other outputs than the first (at the first batch at the latest).

    Example:
        >>> with_softmax = keras.Sequential([teacher, keras.layers.Softmax()])
        >>> ensemble = tfdistill.Ensemble([with_softmax, student], weights=[3, 1], outputs=["probabilities", "logits"])
        >>> bool(np.allclose(np.exp(ensemble(x)).sum(-1), 1.0, atol=1e-5))  # log-probabilities
        True
    """

    def __init__(
        self,
        members: Sequence,
        weights: Sequence[float] | None = None,
        average: Literal["probabilities", "logits"] = "probabilities",
        outputs: str | Sequence[str] = "logits",
        name: str = "ensemble",
    ):
        super().__init__(name=name, dtype="float32", autocast=False)
        if not isinstance(members, (list, tuple)) or not members:
            raise ConfigurationError(f"The members of the Ensemble are {members!r}.", "a list of at least one teacher")
        if average not in AVERAGES:
            raise ConfigurationError(f"Ensemble: average is {average!r}.", f"one of {AVERAGES}")
        given = [outputs] * len(members) if isinstance(outputs, str) else list(outputs)
        if len(given) != len(members) or set(given) - set(SPACES):
            raise ConfigurationError(
                f"Ensemble: outputs is {outputs!r}, for {len(members)} members.", f"one of {SPACES}, or a list of one each"
            )
        if NUMBERS in given and (average != "logits" or set(given) != {NUMBERS}):
            raise ConfigurationError(
                f"Ensemble: outputs is {outputs!r} and average is {average!r}.",
                "numbers of all members, averaged as they are",
                'Ensemble(members, average="logits", outputs="numbers")',
            )
        self._shares = _shares(weights, len(members))
        self._files = [KerasFile.of(member) for member in members]
        self.members = [as_teacher(file or member) for file, member in zip(self._files, members, strict=True)]
        for member in self.members:
            compatibility.check_teacher_built(member)
        self.average, self._spaces = average, tuple(given)
        self._check_alike([_single(getattr(member, "outputs", None)) for member in self.members])
        self.built = True

    @property
    def stored_members(self) -> list:
        """The members whose weights are in a checkpoint: those that were not given as the path of a Keras file."""
        return [member for member, file in zip(self.members, self._files, strict=True) if file is None]

    def __dir__(self):
        # Keras finds what to save by dir().
        hidden = ("members", "layers") if any(self.__dict__.get("_files", ())) else ()
        return [name for name in super().__dir__() if name not in hidden]

    @property
    def outputs(self) -> list | None:
        """The first member's outputs, whose shapes all members have; None where they are not known without data."""
        return getattr(self.members[0], "outputs", None)

    def input_spec_structure(self) -> typing.Any:
        """Returns the structure of the inputs, as `tf.TensorSpec`s, or None where that of a member is not known."""
        specs = [compatibility.input_spec(member) for member in self.members]
        return None if any(spec is None for spec in specs) else specs[0]

    def call(self, inputs: Tensors, training: bool | None = None) -> Tensors:
        """Returns the average of the members' outputs.

        Args:
            inputs: A batch of inputs, for all members.
            training: Whether the members run in training mode.
        """
        outputs = [member(inputs, training=training) for member in self.members]
        self._check_alike(outputs)
        leaves = zip(*[keras.tree.flatten(one) for one in outputs], strict=True)
        return keras.tree.pack_sequence_as(outputs[0], [self._averaged(values) for values in leaves])

    def _averaged(self, values):
        mask = masking.intersection(*(masking.mask_of(v) for v in values))
        return masking.with_mask(self._average_of(values), mask)

    def _average_of(self, values):
        counted = [(w, v, s) for w, v, s in zip(self._shares, values, self._spaces, strict=True) if w > 0]
        logits = [(w, _as_logits(ops.cast(v, "float32"), s)) for w, v, s in counted]
        if self.average == "logits":
            return sum(w * z for w, z in logits)
        if values[0].shape[-1] == 1:
            raise ModelError(
                f"The members of '{self.name}' have one output each: the softmax over one class is always 1.",
                "outputs over at least two classes",
                "average='logits'",
            )
        return ops.logsumexp(ops.stack([float(np.log(w)) + ops.log_softmax(z) for w, z in logits]), axis=0)

    def check_members(self, inputs: Tensors) -> None:
        """Compares the space of each member's outputs for a first batch with the one given as `outputs`.

        Args:
            inputs: Structure of arrays `(batch, ...)`.

        Raises:
            ConfigurationError: if the outputs of a member with a weight are in another space; the message has the `outputs` that is right
                for all.
        """
        found, wrong = list(self._spaces), None
        for index, (member, share) in enumerate(zip(self.members, self._shares, strict=True)):
            if isinstance(member, Ensemble):
                member.check_members(inputs)
            answers = keras.tree.flatten(member(inputs, training=False)) if share > 0 else ()
            activations = last_activations(member) or [None] * len(answers)
            for values, activation in zip(answers, activations, strict=False):
                space = self._space_of(ops.convert_to_numpy(values), self._spaces[index], activation)
                if space != self._spaces[index]:
                    found[index] = space
                    wrong = wrong or (index, member, ops.convert_to_numpy(values))
        if wrong is None:
            return
        (index, member, values), given = wrong, self._spaces[wrong[0]]
        if NUMBERS in found:
            fix = "Ensemble(members, average='logits', outputs='numbers') averages yes-no probabilities as they are"
        else:
            fix = f"Ensemble(members, average={self.average!r}, outputs={(found[0] if len(set(found)) == 1 else found)!r})"
            fix += "; outputs='numbers' where the outputs are no classes" if self.average == "logits" else ""
        what = {NUMBERS: "probabilities of yes-no answers"}.get(found[index], found[index].replace("_", "-"))
        raise ConfigurationError(
            f"The member {index} ('{member.name}') of the Ensemble '{self.name}' is said to answer {given.replace('_', '-')}, but its answers to the first batch are "
            f"{what}: from {values.min():.4g} to {values.max():.4g}, with rows that sum to {values.sum(-1).min():.4g} ... {values.sum(-1).max():.4g}.",
            "the space that each member answers in, as `outputs`",
            fix,
        )

    def _space_of(self, values, given, activation=None):
        """Returns the space of values: the one that is given for them where that is possible."""
        if given == "logits" and activation == "linear":
            return given  # whatever the values of one batch look like
        if given == NUMBERS or values.ndim < 2 or values.shape[-1] == 1:
            # Any number can be a logit, also one between 0 and 1.
            p = np.exp(values) if given == "log_probabilities" else values
            return given if given in ("logits", NUMBERS) or np.all((p >= 0) & (p <= 1)) else "logits"
        found = spaces.class_space(values)
        if found == "logits" and self.average == "probabilities" and spaces.looks_binary(values):
            return NUMBERS
        # Log-probabilities are logits as well.
        return given if found == "log_probabilities" and given == "logits" else found

    def _check_alike(self, outputs):
        first, shapes = None, None
        for member, one in zip(self.members, outputs, strict=True):
            if one is None:
                continue
            own = keras.tree.map_structure(lambda t: tuple(t.shape)[1:], one)
            if first is None:
                first, shapes = member, own
            elif own != shapes:
                raise ModelError(
                    f"The members of '{self.name}' have different outputs: '{first.name}' {shapes}, '{member.name}' {own} (without the batch).",
                    "members with equal shapes of outputs",
                )

    def get_build_config(self) -> None:
        """Returns None: the members are built."""

    def build_from_config(self, config: typing.Any) -> None:
        """Marks the model as built; Keras calls it on a loaded model.

        Args:
            config: None.
        """
        self.built = True

    def get_config(self) -> Config:
        """Returns what `from_config` takes: the members, their weights and spaces."""
        return {
            "name": self.name,
            "members": [keras.saving.serialize_keras_object(f or m) for f, m in zip(self._files, self.members, strict=True)],
            "weights": list(self._shares),
            "average": self.average,
            "outputs": list(self._spaces),
        }

    @classmethod
    @checks_config
    def from_config(cls, config: Config) -> Ensemble:
        """Makes the ensemble of what `get_config` returned.

        Args:
            config: The dict.
        """
        return cls(**{**config, "members": [keras.saving.deserialize_keras_object(member) for member in config["members"]]})


def _as_logits(values, space):
    if space == NUMBERS:
        return values
    if values.shape[-1] != 1 or space == "logits":
        return spaces.as_logits(values, space)
    # The logit of a yes-no probability is log(p / (1 - p)); that of one class among several is log(p).
    return spaces.as_binary_logits(ops.exp(values) if space == "log_probabilities" else values, "probabilities")


def _single(outputs):
    return outputs[0] if outputs and len(outputs) == 1 else outputs


def _shares(weights, count):
    if weights is None:
        return (1.0 / count,) * count
    weights = list(weights) if isinstance(weights, (list, tuple, np.ndarray)) else [weights]
    if len(weights) != count:
        raise ConfigurationError(f"The Ensemble has {count} members, but {len(weights)} weights: {weights}.", "one for each member")
    numbers = all(validate.is_number(w) and 0 <= w < float("inf") for w in weights)
    if not numbers or sum(weights) == 0:
        raise ConfigurationError(f"The weights of the Ensemble are {weights}.", "finite numbers of at least 0, not all 0")
    return tuple(float(w) / float(sum(weights)) for w in weights)
