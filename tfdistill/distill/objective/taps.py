"""Taps: the outputs of layers inside a model, read in its one forward pass.

While a tapped model runs, the `call` of each tapped layer *instance* is replaced by one that also notes down what it returned; afterwards the
instance is as it was. Classes are never touched, so two models of one class do not disturb each other, and functional, Sequential, nested,
subclassed and adopted tf_keras models all work alike. The replacing happens in Python, so in a `tf.function` it costs nothing after tracing.
"""

import collections
import contextlib
import functools
import threading

import keras
import tensorflow as tf

from tfdistill.errors import ModelError
from tfdistill.graph.names import find_layer
from tfdistill.losses import masking

FINAL_OUTPUT = "final_output"

# What of a layer is tapped: its output, or the scores of an attention layer, of shape (batch, heads, queries, keys).
OUTPUT, ATTENTION_SCORES = "output", "attention_scores"

Tap = collections.namedtuple("Tap", ["path", "kind"], defaults=[OUTPUT])

_Scores = collections.namedtuple("_Scores", ["scores", "output"])

# Replicas of a MirroredStrategy trace in threads of their own: each thread notes down what it saw itself.
_notes = threading.local()
_hooked = {}
_hooked_lock = threading.Lock()


def _call_number(path):
    """Splits "block@1" (the second call of a layer that is called several times) into its name and number."""
    name, mark, number = path.rpartition("@")
    if mark and number.isdigit():
        return name, int(number)
    return path, None


class Taps:
    """A model together with the layers whose outputs are wanted, run in one forward pass.

    Args:
        model: See `named_layers`.
        taps: Iterable of `Tap`s (or plain paths). A path may end in "@0", "@1", ... to choose one call of a layer that is called several times.
        role: What the model is, for errors: "teacher" or "student".

    Raises:
        ModelError: if a layer is not there, or its attention scores are asked for and it has none.
    """

    def __init__(self, model, taps=(), role="model"):
        self.model, self.role = model, role
        self._layers = {}
        for tap in taps:
            tap = tap if isinstance(tap, Tap) else Tap(tap)
            path, number = _call_number(tap.path)
            layer = find_layer(model, path, role)
            if tap.kind == ATTENTION_SCORES and not hasattr(layer, "_compute_attention"):
                raise ModelError(
                    f"The layer '{tap.path}' of the {role} '{model.name}' is a {type(layer).__name__}, which has no attention scores.",
                    "a MultiHeadAttention or GroupQueryAttention layer",
                )
            self._layers[tap] = (layer, number)

    @property
    def outputs(self):
        """Names of what a pass gives: the final output, then each tapped path."""
        return [FINAL_OUTPUT, *(tap.path for tap in self._layers)]

    def __call__(self, inputs, training=False):
        """Runs the model once.

        Returns:
            The model's outputs, and a dict of `Tap` to the tapped tensor.

        Raises:
            ModelError: if a tapped layer did not run, ran inside a loop, or ran several times without saying which one is meant.
        """
        layers = {id(layer): layer for layer, _ in self._layers.values()}.values()
        with _listening(layers, {(id(layer), tap.kind) for tap, (layer, _) in self._layers.items()}) as heard:
            outputs = self.model(inputs, training=training)
        return outputs, {tap: self._pick(tap, layer, number, heard) for tap, (layer, number) in self._layers.items()}

    def _pick(self, tap, layer, number, heard):
        notes = heard[id(layer), tap.kind]
        where = f"The layer '{tap.path}' of the {self.role} '{self.model.name}'"
        if not notes:
            raise ModelError(
                f"{where} did not run in the model's forward pass, so it has no output to distil.",
                fix="tap a layer that the model calls; a layer whose functions another layer uses without calling it cannot be tapped",
            )
        if _in_another_graph(notes):
            raise ModelError(f"{where} runs inside a loop (a recurrent or time-distributed layer).", fix="tap the layer around it")
        if number is None and len(notes) > 1:
            raise ModelError(
                f"{where} is called {len(notes)} times in one forward pass.",
                fix=f"say which call is meant: '{tap.path}@0' to '{tap.path}@{len(notes) - 1}'",
            )
        if number is not None and number >= len(notes):
            raise ModelError(f"{where} is called {len(notes)} times in one forward pass.", f"a call number below {len(notes)}")
        note = notes[number or 0]
        # Keras masks a layer's output when the layer is done; the rows of its scores are the same positions.
        return masking.with_mask(note.scores, masking.mask_of(note.output)) if isinstance(note, _Scores) else note


def _in_another_graph(tensors):
    """Whether a tensor belongs to the graph of a loop's body, from which nothing can be read outside."""
    here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
    return any(getattr(t, "graph", here) is not here for t in keras.tree.flatten(tensors) if not hasattr(t, "numpy"))


@contextlib.contextmanager
def _listening(layers, kinds):
    """While the block runs, notes down what the given layer instances return in this thread."""
    heard = {key: [] for key in kinds}
    stack = _notes.__dict__.setdefault("stack", [])
    stack.append(heard)
    for layer in layers:
        _hook(layer)
    try:
        yield heard
    finally:
        for layer in layers:
            _unhook(layer)
        stack.pop()


def _hook(layer):
    with _hooked_lock:
        if id(layer) not in _hooked:
            # Written into __dict__: Keras's own attribute setter would try to track it. What a caller put there himself comes back.
            _hooked[id(layer)] = [0, layer.__dict__.get("call")]
            layer.__dict__["call"] = _listener(layer, layer.call)
        _hooked[id(layer)][0] += 1


def _unhook(layer):
    with _hooked_lock:
        _hooked[id(layer)][0] -= 1
        count, before = _hooked[id(layer)]
        if count == 0:
            del _hooked[id(layer)], layer.__dict__["call"]
            if before is not None:
                layer.__dict__["call"] = before


def _listener(layer, call):
    @tf.autograph.experimental.do_not_convert
    @functools.wraps(call)
    def listening_call(*args, **kwargs):
        passes = _notes.__dict__.get("stack", [])
        wants_scores = any((id(layer), ATTENTION_SCORES) in heard for heard in passes)
        if wants_scores and not kwargs.get("return_attention_scores"):
            output, scores = call(*args, **{**kwargs, "return_attention_scores": True})
            result = output
        else:
            result = call(*args, **kwargs)
            output, scores = result if wants_scores else (result, None)
        for heard in passes:
            if (id(layer), OUTPUT) in heard:
                heard[id(layer), OUTPUT].append(output)
            if (id(layer), ATTENTION_SCORES) in heard:
                heard[id(layer), ATTENTION_SCORES].append(_Scores(scores, output))
        return result

    return listening_call
