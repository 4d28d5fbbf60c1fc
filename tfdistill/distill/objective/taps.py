"""Taps: the outputs of layers inside a model, read in one forward pass.

While a tapped model runs, the `call` of each tapped layer *instance* is replaced by one that also records what it returned; afterwards the
instance is as it was. Classes are not changed, so two models of one class do not disturb each other, and functional, Sequential, nested,
subclassed and adopted tf_keras models are all tapped in the same way. The replacing happens in Python, so in a `tf.function` it costs
nothing after tracing.
"""

import collections
import contextlib
import functools
import threading
import typing
from collections.abc import Iterable

import keras
import tensorflow as tf

from tfdistill.errors import ModelError
from tfdistill.graph.functional import activation_of_layer
from tfdistill.graph.layers import has_attention_scores
from tfdistill.graph.names import find_layer
from tfdistill.losses import masking
from tfdistill.utils.types import Tensor, Tensors

FINAL_OUTPUT = "final_output"

# Kinds of taps: a layer's output, or the scores of an attention layer, of shape (batch, heads, queries, keys).
OUTPUT, ATTENTION_SCORES = "output", "attention_scores"


class Tap(typing.NamedTuple):
    """One place in a model that `Taps` reads.

    Attributes:
        path: Path of the layer, or the end of it where only one layer has it (see `named_layers`). It may end in "@0", "@1", ... to choose
            one call of a layer that is called several times.
        kind: "output", or "attention_scores" for the scores of an attention layer, of shape (batch, heads, queries, keys).

    Example:
        >>> tap = tfdistill.distill.Tap("conv")
        >>> tap.kind
        'output'
        >>> _, features = tfdistill.distill.Taps(student, [tap])(x)
        >>> features[tap].shape
        TensorShape([64, 8, 8, 8])
    """

    path: str
    kind: str = OUTPUT


_Scores = collections.namedtuple("_Scores", ["scores", "output"])

# Replicas of a MirroredStrategy trace in threads of their own: each thread records its own calls.
_records = threading.local()
# id of a hooked layer -> [number of holders, the `call` that the instance had before, if any]
_hooked: dict[int, list] = {}
_hooked_lock = threading.Lock()


def _call_number(path):
    """Splits "block@1" (the second call of a layer that is called several times) into its name and number."""
    name, mark, number = path.rpartition("@")
    if mark and number.isdigit():
        return name, int(number)
    return path, None


class Taps:
    """Runs a model and returns the outputs of layers inside it, in one forward pass.

    Args:
        model: A `keras.Model`, subclassed ones and an `AdoptedModel` included.
        taps: `Tap`s, or plain paths of layers whose output is read.
        role: What the model is, for errors: "teacher" or "student".

    Raises:
        ModelError: if there is no such layer, or attention scores are tapped of a layer that has none.

    Example:
        >>> taps = tfdistill.distill.Taps(teacher, ["relu", "pool"])
        >>> taps.outputs
        ['final_output', 'relu', 'pool']
        >>> outputs, features = taps(x)
        >>> {tap.path: tuple(feature.shape) for tap, feature in features.items()}
        {'relu': (64, 8, 8, 16), 'pool': (64, 16)}
    """

    def __init__(self, model: typing.Any, taps: Iterable[Tap | str] = (), role: str = "model"):
        self.model, self.role = model, role
        self._layers: dict[Tap, tuple] = {}
        for tap in taps:
            tap = tap if isinstance(tap, Tap) else Tap(tap)
            path, number = _call_number(tap.path)
            layer = find_layer(model, path, role)
            if tap.kind == ATTENTION_SCORES and not has_attention_scores(layer):
                raise ModelError(
                    f"The layer '{tap.path}' of the {role} '{model.name}' is a {type(layer).__name__}, which has no attention scores.",
                    "a MultiHeadAttention or GroupQueryAttention layer",
                )
            self._layers[tap] = (layer, number)

    @property
    def outputs(self) -> list[str]:
        """Names of what a forward pass returns: "final_output", then each tapped path."""
        return [FINAL_OUTPUT, *(tap.path for tap in self._layers)]

    def activation_of(self, tap: Tap) -> str | None:
        """Returns the name of the activation of a tapped layer, such as "softmax"; None where it has none, or its scores are tapped."""
        return activation_of_layer(self._layers[tap][0]) if tap.kind == OUTPUT else None

    def __call__(self, inputs: Tensors, training: bool = False) -> tuple[Tensors, dict[Tap, Tensor]]:
        """Runs the model once.

        Args:
            inputs: A batch of inputs, in the structure that the model takes.
            training: Whether the model runs in training mode.

        Returns:
            The model's outputs, and a dict of `Tap` to the tapped tensor.

        Raises:
            ModelError: if a tapped layer did not run, ran inside a loop, or ran several times without saying which one is meant.
        """
        layers = {id(layer): layer for layer, _ in self._layers.values()}.values()
        with _recording(layers, {(id(layer), tap.kind) for tap, (layer, _) in self._layers.items()}) as recorded:
            outputs = self.model(inputs, training=training)
        return outputs, {tap: self._pick(tap, layer, number, recorded) for tap, (layer, number) in self._layers.items()}

    def _pick(self, tap, layer, number, recorded):
        outputs = recorded[id(layer), tap.kind]
        where = f"The layer '{tap.path}' of the {self.role} '{self.model.name}'"
        if not outputs:
            raise ModelError(
                f"{where} did not run in the model's forward pass, so it has no output to distil.",
                fix="tap a layer that the model calls; a layer whose functions another layer uses without calling it cannot be tapped",
            )
        if _in_another_graph(outputs):
            raise ModelError(f"{where} runs inside a loop (a recurrent or time-distributed layer).", fix="tap the layer around it")
        if number is None and len(outputs) > 1:
            raise ModelError(
                f"{where} is called {len(outputs)} times in one forward pass.",
                fix=f"say which call is meant: '{tap.path}@0' to '{tap.path}@{len(outputs) - 1}'",
            )
        if number is not None and number >= len(outputs):
            raise ModelError(f"{where} is called {len(outputs)} times in one forward pass.", f"a call number below {len(outputs)}")
        output = outputs[number or 0]
        # Keras sets the mask of a layer's output after its call; the rows of its scores are the same positions.
        return masking.with_mask(output.scores, masking.mask_of(output.output)) if isinstance(output, _Scores) else output


def _in_another_graph(tensors):
    """Tells whether a tensor belongs to the graph of a loop's body, from which nothing can be read outside."""
    here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return any(getattr(t, "graph", here) is not here for t in keras.tree.flatten(tensors) if not hasattr(t, "numpy"))


@contextlib.contextmanager
def _recording(layers, kinds):
    """While the block runs, records what the given layer instances return in this thread."""
    recorded = {key: [] for key in kinds}
    stack = _records.__dict__.setdefault("stack", [])
    stack.append(recorded)
    for layer in layers:
        _hook(layer)
    try:
        yield recorded
    finally:
        for layer in layers:
            _unhook(layer)
        stack.pop()


def _hook(layer):
    with _hooked_lock:
        if id(layer) not in _hooked:
            # Written into __dict__, as Keras's attribute setter would try to track it. A `call` that the user set on the instance is put
            # back later.
            _hooked[id(layer)] = [0, layer.__dict__.get("call")]
            layer.__dict__["call"] = _recorder(layer, layer.call)
        _hooked[id(layer)][0] += 1


def _unhook(layer):
    with _hooked_lock:
        _hooked[id(layer)][0] -= 1
        count, before = _hooked[id(layer)]
        if count == 0:
            del _hooked[id(layer)], layer.__dict__["call"]
            if before is not None:
                layer.__dict__["call"] = before


def _recorder(layer, call):
    @tf.autograph.experimental.do_not_convert
    @functools.wraps(call)
    def recording_call(*args, **kwargs):
        passes = _records.__dict__.get("stack", [])
        wants_scores = any((id(layer), ATTENTION_SCORES) in recorded for recorded in passes)
        if wants_scores and not kwargs.get("return_attention_scores"):
            output, scores = call(*args, **{**kwargs, "return_attention_scores": True})
            result = output
        else:
            result = call(*args, **kwargs)
            output, scores = result if wants_scores else (result, None)
        for recorded in passes:
            if (id(layer), OUTPUT) in recorded:
                recorded[id(layer), OUTPUT].append(output)
            if (id(layer), ATTENTION_SCORES) in recorded:
                recorded[id(layer), ATTENTION_SCORES].append(_Scores(scores, output))
        return result

    return recording_call
