"""Finds the inputs of a traced model that are indices, of which a model that is no graph keeps no record."""

import keras

from tfdistill.errors import BridgeError
from tfdistill.graph.carriers import HeldConstant, HeldWeight
from tfdistill.graph.functional import as_functional, calls, input_operation, is_functional, is_sequential, own_arguments
from tfdistill.graph.inlining import inlined
from tfdistill.graph.opening import look_inside

_LOOKUPS = (keras.layers.Embedding, keras.layers.CategoryEncoding, keras.layers.IntegerLookup, keras.layers.Hashing)
# What only moves elements about: the class names of operations.
_MOVING = ("GetItem", "Reshape", "ExpandDims", "Squeeze", "Transpose", "Slice", "Split", "Flatten")
# What tells indices from others, as the mask of a lookup does, and what has an input only to have a place in the graph.
_ASIDE = ("Equal", "NotEqual", HeldConstant.__name__, HeldWeight.__name__)


def index_inputs(model):
    """Lists the names of the float inputs of a functional model that lookups alone read, at once or after their elements were moved about.

    Nested models and layers that others wrote are looked into, where they can be opened.

    Args:
        model: Functional Keras 3 model.
    """
    known = _Readers()
    known.add(model)
    return [input_operation(x).name for x in model.inputs if keras.backend.is_float_dtype(x.dtype) and known.looked_up(x)]


def _inside(layer, signature, path):
    try:
        return look_inside(layer, signature, path)
    except BridgeError:
        return None


class _Readers:
    """The calls that read each tensor of a model and of the models nested in it."""

    def __init__(self):
        self.calls, self.models = {}, {}

    def add(self, model):
        """Adds a functional model."""
        for call in calls(inlined(model, _inside, set())):
            for tensor in call.tensors():
                self.calls.setdefault(id(tensor), []).append(call)
            nested = call.operation
            if (is_functional(nested) or is_sequential(nested)) and id(nested) not in self.models:
                self.models[id(nested)] = as_functional(nested)
                self.add(self.models[id(nested)])

    def looked_up(self, tensor):
        """Whether a tensor ends in lookups, and nothing computes with it."""
        ends = self._ends(tensor)
        return None not in ends and bool(ends)

    def _ends(self, tensor):
        """Returns the set of the lookups that a tensor ends in, with None in it where something computes with it."""
        ends = set()
        for call in self.calls.get(id(tensor), ()):
            kind = type(call.operation).__name__
            if isinstance(call.operation, _LOOKUPS):
                ends.add(call.operation)
            elif id(call.operation) in self.models:
                inputs = self.models[id(call.operation)].inputs
                given = [x for x in keras.tree.flatten((call.args, own_arguments(call))) if isinstance(x, keras.KerasTensor)]
                if len(inputs) == len(given):
                    ends.update(*(self._ends(own) for own, x in zip(inputs, given, strict=True) if x is tensor))
                else:
                    ends.add(None)
            elif kind in _MOVING:
                ends.update(*(self._ends(output) or {None} for output in call.outputs))
            elif kind not in _ASIDE:
                ends.add(None)
        return ends
