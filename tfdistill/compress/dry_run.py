"""Tries the conversion of a model before a step trains it, so that what export would refuse is said before anyone pays for the training."""

import abc
import collections
import hashlib
import json
import typing
import warnings

import keras

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.adopt import AdoptedModel
from tfdistill.bridge.adopt.precision import in_float32
from tfdistill.bridge.adopt.rewire import replay
from tfdistill.bridge.integer.recognize import name_of
from tfdistill.bridge.parity.check import made_up_length
from tfdistill.bridge.wrappers.quantization import numbered
from tfdistill.compress import rebuild
from tfdistill.compress.plan import Plan
from tfdistill.compress.quantize.consumers import known_function, operation_of
from tfdistill.compress.quantize.layer_table import PLAIN_OPERATIONS, is_in_every_file
from tfdistill.compress.step import Step
from tfdistill.convert.dry_run import refusals
from tfdistill.convert.layer_operations import layer_operations, scope_of
from tfdistill.convert.variants import variant_named
from tfdistill.graph.layers import LOOKUPS

# Digest of a structure and of the decisions about it, and the classes of its layers -> what was found, for the last few hundred.
_FOUND: "collections.OrderedDict[tuple, tuple]" = collections.OrderedDict()
_MOST_FOUND = 500
WHOLE = ""


class Conversion(typing.NamedTuple):
    """What a conversion that was only tried has shown.

    Attributes:
        refusals: Dict of path to the list of the `Refusal`s of the layer. `WHOLE` stands for the model where the layer is not known.
        operations: Dict of path to the tuple of `LayerOperation`s that the layer became; `WHOLE` for those of no layer. None where there is no file.
    """

    refusals: dict
    operations: dict | None

    @property
    def reasons(self):
        """Dict of path to the reason why the layer cannot be exported."""
        return {path: "; ".join(dict.fromkeys(refusal.reason for refusal in found)) for path, found in self.refusals.items()}


NOT_TRIED = Conversion({}, None)


class DryRunStep(Step):
    """A step whose model may become any file: its plan says what stands against all of them, and its `apply` warns of that.

    A subclass has `_plan`, a function of `rebuild.Opened` and of whether to try the conversion; the first of what it returns is the `Plan`.
    """

    @abc.abstractmethod
    def _plan(self, opened, dry_run):
        """Returns the plan, and what else `apply` needs of it."""

    def plan(self, model: keras.Model, dry_run: bool = True) -> Plan:
        """Lists layer by layer what the step would do to `model`. The model is not changed.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.
            dry_run: Whether the plan's `findings` are to say what stands against every .tflite file of the model. If a layer is not known to be in TFLite, the
                conversion to float32 is tried for that, untrained, in a second or so. What integer files lack is in the plans of `QuantizeAware`.

        Returns:
            A `Plan`.
        """
        return self._plan(rebuild.open_model(model), dry_run)[0]

    @abc.abstractmethod
    def apply(self, model: keras.Model, dry_run: bool = True) -> AdoptedModel:
        """Returns a new model, ready to be trained under this step. `model` is not changed.

        A model class's own `train_step`, `compute_loss` and the like are not carried over; a `UserWarning` names them.

        Args:
            model: A built Keras 3 model, or an `AdoptedModel`.
            dry_run: As in `plan`. A `UserWarning` says what was found, as the model may be meant for Keras alone.

        Returns:
            An `AdoptedModel` with the same weights.

        Raises:
            ModelError: if there is nothing to do, or the step does not work on a layer that was named.
            BridgeError: if the model cannot be converted exactly, or `strip` could not convert it back.
        """


def unexportable(opened):
    """Lists what stands against any .tflite file of a model, whatever its weights: it converts the model to float32 if a layer is not known to be in TFLite.

    Args:
        opened: `rebuild.Opened` of the model.

    Returns:
        Tuple of at most one sentence, which names the layers: a finding of a plan.
    """
    layers = {path: introspection.unwrap(layer) for path, layer in opened.layers.items()}
    lookups = {path: "looks up a table" for path, layer in layers.items() if introspection.kind_of(layer) in LOOKUPS}
    if not lookups and all(map(_is_known, layers.values())):
        return ()
    reasons = lookups or try_floats(opened).reasons
    texts = [f"'{path}' ({reason})" if path != WHOLE else reason for path, reason in reasons.items()]
    return (f"export_tflite would refuse the model: {'; '.join(texts)}",) if texts else ()


def try_floats(opened, variant_name="float32"):
    """Converts a model to a file that computes in float, whatever its weights.

    Args:
        opened: `rebuild.Opened` of the model.
        variant_name: Name of the variant of the file.

    Returns:
        A `Conversion`.
    """

    def convert():
        by_id = {id(layer): introspection.unwrap(layer) for layer in opened.layers.values()}
        graph = Graph(opened, by_id, sized=True)
        trace = graph.trace
        if graph.free:
            try:
                concrete = graph.trace()
            except Exception:
                return (), ()  # a tf_keras model that cannot be of these sizes; which ones it can be of is not known
            trace = lambda: concrete  # noqa: E731

        return graph.tried(variant_name, trace)

    return remembered(opened, variant_name, convert)


def warn_of_findings(plan):
    """Warns of what a plan found to stand against every file. It points to the caller of `apply`."""
    if plan.findings:
        warnings.warn(
            f"'{plan.model}' is trained, but {'; '.join(plan.findings)}.\nFix: replace these layers, or export with allow_flex=True, for an interpreter that "
            "has TensorFlow's operations. apply(model, dry_run=False) does not look for this.",
            UserWarning,
            stacklevel=3,
        )


def _is_known(layer):
    """Whether a tf_keras layer is one of which it is known that every .tflite file can hold it; of others the conversion is tried."""
    kind = introspection.kind_of(layer)
    if operation_of(layer) is not None:
        return operation_of(layer) in PLAIN_OPERATIONS or known_function(layer) is not None
    standard = getattr(layer, "data_format", "channels_last") == "channels_last" and name_of(getattr(layer, "activation", None)) is not None
    return standard and is_in_every_file(kind)


def remembered(opened, settings, convert):
    """Returns what `convert` finds, by layer; what was tried once is not tried again for a model of the same structure, whatever its names and weights.

    Args:
        opened: `rebuild.Opened` of the model.
        settings: What decides about the conversion beside the structure, as JSON values.
        convert: Function that returns a tuple of `Refusal`s, and a tuple of the `LayerOperation`s of the file, which is empty where there is none.

    Returns:
        A `Conversion`.
    """
    paths = list(opened.layers)
    kinds = tuple(type(introspection.computing_layer(layer)) for layer in opened.layers.values())
    key = (_digest(opened, settings), kinds)
    if key not in _FOUND:
        _FOUND[key] = convert()
        while len(_FOUND) > _MOST_FOUND:
            _FOUND.popitem(last=False)
    found, made = _FOUND[key]
    refused, operations = collections.defaultdict(list), collections.defaultdict(list)
    for refusal in found:
        for path in [paths[index] for index in refusal.layers] or [WHOLE]:
            refused[path].append(refusal)
    for operation in made:
        operations[WHOLE if operation.layer is None else paths[operation.layer]].append(operation)
    return Conversion(
        dict(refused),
        {path: tuple(several) for path, several in operations.items()} if made else None,
    )


class Graph:
    """The graph of a model in inference, whose layers are called under names by which `refusals` finds them again.

    Args:
        opened: `rebuild.Opened` of the model.
        called: Dict of id of each of its layers to what is called in its place. Quantizers of inputs that are not in it are left out.
        enter: Dict of the position of an input to a function that its tensor goes through first.
        sized: Whether axes of any length get one, as they do when the model is made again for a file. Otherwise they and the batch stay free.
    """

    def __init__(self, opened, called, enter=None, sized=False):
        import tensorflow as tf

        self._opened, self._called, self._enter = opened, called, enter or {}
        self._indices = {id(layer): index for index, layer in enumerate(opened.layers.values())}
        inputs = opened.legacy.inputs
        self.free = any(None in tensor.shape[1:] for tensor in inputs)
        open_ended = self.free and not sized
        lengths = [made_up_length(x.shape.rank) if sized else None for x in inputs]
        shapes = [
            (x.shape[0] or (None if open_ended else 1), *(length if n is None else n for n in x.shape[1:]))
            for x, length in zip(inputs, lengths, strict=True)
        ]
        self.specs = [tf.TensorSpec(shape, x.dtype, name=f"input_{i}") for i, (shape, x) in enumerate(zip(shapes, inputs, strict=True))]
        self.batch_size = None if open_ended else shapes[0][0]

    def trace(self):
        """Returns the concrete function, in which all layers compute in float32."""
        import tensorflow as tf

        with in_float32(self._opened.adopted):
            return tf.function(self._serve, input_signature=self.specs, autograph=False).get_concrete_function()

    def tried(self, variant_name, trace, calibrated=frozenset(), floats=frozenset()):
        """Tries the conversion.

        Args:
            variant_name: Name of the variant of the file.
            trace: Function that returns the concrete function: `trace`, or one that calls it.
            calibrated: As in `refusals`.
            floats: As in `refusals`.

        Returns:
            Tuple of `Refusal`s, and the tuple of the `LayerOperation`s of the file, which is empty where there is none.
        """
        made, variant = [], variant_named(variant_name)

        def look(content):
            made.extend(layer_operations(content))

        found = refusals(trace, self.specs, self._opened.adopted.name, variant, self.batch_size, calibrated, look=look, floats=floats)
        return found, tuple(made)

    def _serve(self, *tensors):
        import tensorflow as tf

        entered = [self._enter[i](tensor) if i in self._enter else tensor for i, tensor in enumerate(tensors)]
        outputs = replay(self._opened.legacy, self._call, entered)
        return {f"output_{i}": output for i, output in enumerate(tf.nest.flatten(outputs))}

    def _call(self, layer, args, kwargs, number):
        import tensorflow as tf

        if introspection.is_input_quantizer(layer):
            return self._called[id(layer)](*args) if id(layer) in self._called else args[0]
        called = self._called[id(layer)]
        with tf.name_scope(scope_of(self._indices[id(layer)])):
            return called(*args, **numbered(called, kwargs, number))


def _digest(opened, settings):
    """Returns a digest of what decides about the file: the structure without its names, and the settings; not the weights."""
    names = {}

    def known(name):
        return f"#{names.setdefault(name, len(names))}"

    def plain(value, key=None):
        if isinstance(value, dict):
            return {name: plain(item, name) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            refers = len(value) > 2 and isinstance(value[0], str) and all(isinstance(n, int) for n in value[1:3])
            return [known(value[0]), *plain(value[1:])] if refers else [plain(item) for item in value]
        return known(value) if key == "name" and isinstance(value, str) else value

    config = plain(json.loads(opened.legacy.to_json()))
    return hashlib.sha256(json.dumps([config, settings], default=str).encode()).hexdigest()
