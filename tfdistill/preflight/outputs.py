"""Outputs whose int8 scale does not fit them: probabilities, and branches of several units that are joined."""

import dataclasses
import typing

import numpy as np

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.bridge.adopt.rewire import replay
from tfdistill.bridge.wrappers.quantization import numbered
from tfdistill.compress.quantize.calibration_data import packed_batches
from tfdistill.compress.quantize.consumers import activation_of, operation_of
from tfdistill.compress.quantize.layer_table import passes
from tfdistill.preflight.findings import Finding, quoted
from tfdistill.tflite.split import OTHER_UNIT

# Activations with numbers from 0 to 1, of which TFLite fixes the scale of the first two.
_FIXED = ("softmax", "sigmoid")
_SHARES = (*_FIXED, "hard_sigmoid", "Sigmoid", "Softmax", "HardSigmoid")
# Activations with numbers from -1 to 1 or so, which are no finer and no coarser than these.
_BOUNDED = (*_SHARES, "tanh", "softsign", "hard_tanh", "Tanh", "relu6")
_JOINING = ("Concatenate", "concat", "Concat")
# So many samples show the ranges of branches.
_SAMPLES = 128


@dataclasses.dataclass(frozen=True)
class Branch:
    """One of the tensors that an output is joined from.

    Attributes:
        path: Path of the layer that computes it; the name of an input where none does.
        activation: Name of its activation, as in `consumers.activation_of`.
    """

    path: str
    activation: str


@dataclasses.dataclass(frozen=True)
class Head:
    """How one output of a model comes about.

    Attributes:
        joined: Path of the layer that concatenates its branches; None where none does.
        branches: Tuple of `Branch`; one where nothing is concatenated.
        widths: Function of a tf_keras model's inputs: returns, for each branch, its smallest and its largest value.
    """

    joined: str | None
    branches: tuple[Branch, ...]
    widths: typing.Callable

    @property
    def last(self):
        """Path of the layer that computes the output, where nothing is concatenated; None elsewhere."""
        return self.branches[0].path if self.joined is None else None


def traced_heads(opened):
    """Finds how each output of a model comes about, by one run of its layers on symbolic tensors.

    Args:
        opened: `rebuild.Opened` of the model.

    Returns:
        List of `Head`, in the order of the outputs.
    """
    import tensorflow as tf

    makers, found = _Makers(opened), []

    def serve(*tensors):
        outputs = tf.nest.flatten(replay(opened.legacy, makers.call, list(tensors)))
        ends = [makers.behind(output) for output in outputs]
        found.extend((joined, tuple(branch for branch, _ in branches)) for joined, branches in ends)
        floats = [[tf.cast(tensor, tf.float32) for _, tensor in branches] for _, branches in ends]
        return [[(tf.reduce_min(tensor), tf.reduce_max(tensor)) for tensor in tensors] for tensors in floats]

    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=f"input_{i}") for i, tensor in enumerate(opened.legacy.inputs)]
    with in_float32(opened.adopted):
        concrete = tf.function(serve, input_signature=specs, autograph=False).get_concrete_function()

    def widths(position):
        return lambda inputs: concrete(*(tf.cast(x, spec.dtype) for x, spec in zip(inputs, specs, strict=True)))[position]

    return [Head(joined, branches, widths(position)) for position, (joined, branches) in enumerate(found)]


class _Makers:
    """Which layer makes each tensor of a graph.

    Args:
        opened: `rebuild.Opened` of the model.
    """

    def __init__(self, opened):
        self._paths = {id(layer): path for path, layer in opened.layers.items()}
        self._made = {}

    def call(self, layer, args, kwargs, number):
        """Calls a layer, as `replay` asks for, and notes what it reads and makes."""
        import tensorflow as tf

        outputs = layer(*args, **numbered(layer, kwargs, number))
        given = [x for x in tf.nest.flatten((args, kwargs)) if tf.is_tensor(x)]
        for tensor in tf.nest.flatten(outputs):
            if not any(tensor is x for x in given):
                self._made[id(tensor)] = layer, given, tensor  # which keeps the tensor, and with it its id
        return outputs

    def behind(self, tensor):
        """Returns the path of the layer that joins a tensor of others, or None, and the list of the pairs of `Branch` and tensor that it is joined of."""
        layer, given, _ = self._made.get(id(tensor), (None, [], None))
        if layer is None:
            return None, [(Branch("", "linear"), tensor)]
        inner, kind = introspection.unwrap(layer), introspection.kind_of(layer)
        path = self._paths.get(id(layer), layer.name)
        if kind in _JOINING or operation_of(inner) in _JOINING:
            return path, [branch for x in given for branch in self.behind(x)[1]]
        if len(given) == 1 and (introspection.is_input_quantizer(layer) or passes(inner, kind)):
            return self.behind(given[0])
        return None, [(Branch(path, activation_of(inner)), tensor)]


def found_in_outputs(heads, signature, samples):
    """Lists the findings about the outputs of an int8 file.

    Args:
        heads: List of `Head`.
        signature: `ModelSignature`.
        samples: `Samples`, or None.
    """
    fixed, findings = [], []
    for head in heads:
        if all(branch.activation in _FIXED for branch in head.branches):
            fixed += [branch.path for branch in head.branches]
        elif head.joined is not None:
            findings += _mixed(head) if samples is None else _measured(head, signature, samples)
    return [*([_fixed_scale(tuple(dict.fromkeys(fixed)))] if fixed else []), *findings]


def _fixed_scale(paths):
    return Finding(
        "inexact",
        "fixed_scale",
        paths,
        f"An int8 file has the output of {quoted(paths)} in steps of 1/256, whatever the data: probabilities below 0.002 become 0, and small ones equal",
        "end in logits: leave the softmax or sigmoid out, and train with from_logits=True; the largest logit is the largest probability",
    )


def _mixed(head):
    """Lists what the structure alone shows."""
    shares = [branch for branch in head.branches if branch.activation in _SHARES]
    others = [branch for branch in head.branches if branch.activation not in _BOUNDED]
    if not shares or not others:
        return []
    first, second = (quoted(list(dict.fromkeys(branch.path for branch in several))) for several in (shares, others))
    return [_mixed_units(head, f"{first} from 0 to 1, and {second} without bounds; with data= their ranges are measured")]


def _measured(head, signature, samples):
    """Lists what the samples show."""
    import tensorflow as tf

    low, high = np.full(len(head.branches), np.inf), np.full(len(head.branches), -np.inf)
    kept = np.linspace(0, samples.count - 1, min(samples.count, _SAMPLES)).round().astype(int)
    some = dataclasses.replace(samples, inputs={name: array[kept] for name, array in samples.inputs.items()}, count=len(kept))
    for batch in packed_batches(signature, some):
        found = np.asarray([[float(value) for value in pair] for pair in head.widths(tf.nest.flatten(batch))])
        low, high = np.minimum(low, found[:, 0]), np.maximum(high, found[:, 1])
    widths = np.maximum(high, 0) - np.minimum(low, 0)
    widest, narrowest = int(widths.argmax()), int(np.where(widths > 0, widths, np.inf).argmin())
    if not widths[narrowest] or widths[widest] < OTHER_UNIT * widths[narrowest]:
        return []
    shown = [f"'{head.branches[i].path}' from {low[i]:.4g} to {high[i]:.4g}" for i in (widest, narrowest)]
    steps = 255 * widths[narrowest] / widths[widest]
    return [_mixed_units(head, f"{shown[0]}, and {shown[1]}, which gets {steps:.2g} of 255 steps")]


def _mixed_units(head, what):
    return Finding(
        "inexact",
        "mixed_units",
        (head.joined,),
        f"'{head.joined}' joins outputs of several units, for which int8 has one scale: {what}",
        "export with outputs='split', which gives each branch an output, a scale and a name of its own; or bring the branches to one scale: divide the larger "
        "by a constant",
    )
