"""Several teachers as one."""

import keras
import numpy as np
from keras import ops

from tfdistill.distill.objective import compatibility
from tfdistill.distill.teachers.convert import as_teacher
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.losses import masking, spaces
from tfdistill.saveable import checks_config

AVERAGES = ("probabilities", "logits")


NUMBERS = "numbers"


SPACES = (*spaces.SPACES, NUMBERS)


@keras.saving.register_keras_serializable(package="tfdistill")
class Ensemble(keras.Model):
    """Several teachers as one: their weighted average, for classes that exclude one another (Hinton et al. 2015, arXiv 1503.02531, section 5).

    What comes out depends on the average, and is what the loss must be told:

    | average | of each output | comes out | loss |
    |---|---|---|---|
    | "probabilities" | log(sum of weight * softmax) | log-probabilities | `SoftTargets(teacher_outputs="log_probabilities")`, or the default "logits" |
    | "logits" | sum of weight * logits | logits | `SoftTargets(teacher_outputs="logits")`, the default |

    Log-probabilities are logits too (a softmax gives the same distribution back), so losses of logits work with both. For anything but classes,
    `average="logits"` with `outputs="numbers"` is the plain weighted mean of the outputs; yes-no outputs are averaged as their logits, whatever they are said
    to be. What the members are said to answer is held against their answers to the first batch of `fit` and `soft_targets`. Losses can tap the layers of Keras and tf_keras members, as "member's name/layer" or "members/0/layer".

    Example:

    ```python
    teacher = Ensemble([net_with_softmax, net_without], outputs=["probabilities", "logits"])
    distiller = Distiller(teacher, student, SoftTargets(4.0))
    ```

    Args:
        members: At least one teacher of any kind that `as_teacher` takes, all with the same outputs.
        weights: A number of at least 0 for each member, not all 0; they are divided by their sum. None weighs all alike.
        average: "probabilities" or "logits".
        outputs: The space of the members' outputs, `(batch, ..., classes)`: "logits", "log_probabilities" or "probabilities", or a list of one for each. "numbers"
            for regression, with `average="logits"`.
        name: Name of the model.

    Raises:
        ConfigurationError: if weights or choices are out of range or of another number than the members; at a first batch, if a member's answers are in
            another space than the one that `outputs` says.
        ModelError: if a member cannot teach, is not built, or has other outputs than the first (at the first batch at the latest).
    """

    def __init__(self, members, weights=None, average="probabilities", outputs="logits", name="ensemble"):
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
        self.members = [as_teacher(member) for member in members]
        for member in self.members:
            compatibility.check_teacher_built(member)
        self.average, self._spaces = average, tuple(given)
        self._check_alike([_single(getattr(member, "outputs", None)) for member in self.members])
        self.built = True

    @property
    def outputs(self):
        """The first member's outputs, whose shapes all share; None where they are not known without data."""
        return getattr(self.members[0], "outputs", None)

    def input_spec_structure(self):
        """Structure of the inputs, as `tf.TensorSpec`s, or None where a member does not say."""
        specs = [compatibility.input_spec(member) for member in self.members]
        return None if any(spec is None for spec in specs) else specs[0]

    def call(self, inputs, training=None):
        answers = [member(inputs, training=training) for member in self.members]
        self._check_alike(answers)
        leaves = zip(*[keras.tree.flatten(answer) for answer in answers], strict=True)
        return keras.tree.pack_sequence_as(answers[0], [self._averaged(values) for values in leaves])

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

    def check_answers(self, inputs):
        """Holds the members' answers to a first batch against the spaces that they are said to be in.

        Args:
            inputs: Structure of arrays `(batch, ...)`.

        Raises:
            ConfigurationError: if a member that counts answers in another space, with the `outputs` that is right for all.
        """
        found, wrong = list(self._spaces), None
        for index, (member, share) in enumerate(zip(self.members, self._shares, strict=True)):
            if isinstance(member, Ensemble):
                member.check_answers(inputs)
            for values in keras.tree.flatten(member(inputs, training=False)) if share > 0 else ():
                space = self._space_of(ops.convert_to_numpy(values), self._spaces[index])
                if space != self._spaces[index]:
                    found[index] = space
                    wrong = wrong or (index, member, ops.convert_to_numpy(values))
        if wrong is None:
            return
        (index, member, values), said = wrong, self._spaces[wrong[0]]
        if NUMBERS in found:
            mend = "Ensemble(members, average='logits', outputs='numbers') averages yes-no probabilities as they are"
        else:
            mend = f"Ensemble(members, average={self.average!r}, outputs={(found[0] if len(set(found)) == 1 else found)!r})"
            mend += "; outputs='numbers' where the outputs are no classes" if self.average == "logits" else ""
        what = {NUMBERS: "probabilities of yes-no answers"}.get(found[index], found[index].replace("_", "-"))
        raise ConfigurationError(
            f"The member {index} ('{member.name}') of the Ensemble '{self.name}' is said to answer {said.replace('_', '-')}, but its answers to the first batch are "
            f"{what}: from {values.min():.4g} to {values.max():.4g}, with rows that sum to {values.sum(-1).min():.4g} ... {values.sum(-1).max():.4g}.",
            "the space that each member answers in, as `outputs`",
            mend,
        )

    def _space_of(self, values, said):
        """The space that values are in: what is said of them where that can be."""
        if said == NUMBERS or values.ndim < 2 or values.shape[-1] == 1:
            # Any number is a logit; log-odds between 0 and 1 are no sign of anything.
            p = np.exp(values) if said == "log_probabilities" else values
            return said if said in ("logits", NUMBERS) or np.all((p >= 0) & (p <= 1)) else "logits"
        found = spaces.class_space(values)
        if found == "logits" and self.average == "probabilities" and spaces.looks_binary(values):
            return NUMBERS
        # Log-probabilities are logits as well.
        return said if found == "log_probabilities" and said == "logits" else found

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
    @checks_config
    def from_config(cls, config):
        return cls(**{**config, "members": [keras.saving.deserialize_keras_object(member) for member in config["members"]]})


def _as_logits(values, space):
    if space == NUMBERS:
        return values
    if values.shape[-1] != 1 or space == "logits":
        return spaces.as_logits(values, space)
    # The probability of one yes-no answer has another logit than that of one class among several.
    return spaces.as_binary_logits(ops.exp(values) if space == "log_probabilities" else values, "probabilities")


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
