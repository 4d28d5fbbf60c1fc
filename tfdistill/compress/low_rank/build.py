"""Builds a model with factorized layers, and compares it with the original that has the products of the factors for kernels."""

import dataclasses
from typing import Any

import keras

from tfdistill.bridge.parity.run import difference
from tfdistill.compress.low_rank.forms import Form, kernel_of
from tfdistill.compress.remake import Remade
from tfdistill.compress.replay import random_inputs, require_outputs, run_calls, tolerance_of
from tfdistill.errors import InvariantError
from tfdistill.graph.functional import calls, input_operation
from tfdistill.graph.names import unique_name


@dataclasses.dataclass(frozen=True, eq=False)
class Factors:
    """What a layer becomes.

    Attributes:
        form: Its `Form`.
        rank: Rank of the form.
        kernels: Kernels of the parts.
        lost: Share of the energy that is lost, from 0 to 1.
        names: Names of the parts.
    """

    form: Form
    rank: Any
    kernels: list
    lost: float
    names: list


def names_of_parts(graph, forms):
    """Returns a dict of id of each layer to the names of its parts, which no other layer, input or nested model has.

    Args:
        graph: `FlatGraph`.
        forms: List of `Form`s, one for each layer.
    """
    around = {call.operation.name for view in graph.views.values() for call in calls(view)}
    taken, found = {*around, *(input_operation(x).name for view in graph.views.values() for x in view.inputs)}, {}

    def free(name):
        taken.add(unique := unique_name(name, taken))
        return unique

    for form in forms:
        found[id(form.layer)] = form.names(form.layer.name, free)
    return found


class Factored(Remade):
    """A model made anew with factorized layers.

    Args:
        model: The original, which is not changed.
        graph: Its `FlatGraph`.
        factors: Dict of id of a layer to its `Factors`.

    Attributes:
        parts: Dict of id of each of these layers to the list of the layers that take its place.
    """

    def __init__(self, model, graph, factors):
        self._factors, self.parts = factors, {}
        super().__init__(model, graph)
        for key, layers in self.parts.items():
            found = factors[key]
            for layer, kernel in zip(layers, found.kernels, strict=True):
                kernel_of(layer).assign(kernel)
            found.form.begin(layers)
            if getattr(found.form.layer, "bias", None) is not None:
                layers[-1].bias.assign(found.form.layer.bias)

    def _parts(self, operation, name, taken):
        if id(operation) not in self._factors:
            return super()._parts(operation, name, taken)
        if id(operation) not in self.parts:
            found = self._factors[id(operation)]
            self.parts[id(operation)] = found.form.parts(found.rank, [*found.names[:-1], name or found.names[-1]])
        return self.parts[id(operation)]


def require_equal(model, graph, factors, factored):
    """Compares each factorized layer with the layer whose kernel is the product of its factors, on what that layer gets for random input; then the outputs.

    Returns:
        The largest difference of the outputs, as a share of the largest value.

    Raises:
        InvariantError: if they differ.
    """
    tolerance = tolerance_of(graph)

    def compute(call, args, kwargs):
        found = factors.get(id(call.operation))
        if found is None:
            with keras.StatelessScope():
                return keras.tree.flatten(call.operation(*args, **kwargs))
        variable = kernel_of(call.operation)
        product = keras.ops.cast(keras.ops.convert_to_tensor(found.form.product(found.kernels)), variable.dtype)
        with keras.StatelessScope(state_mapping=[(variable, product)]):
            expected = call.operation(*args, **kwargs)
        first, *rest = factored.parts[id(call.operation)]
        got = first(*args, **kwargs)
        for part in rest:
            got = part(got)
        far, largest = difference(*(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")) for x in (expected, got)))
        if not far <= tolerance * max(largest, 1e-6):
            raise InvariantError(
                f"The factors of '{call.path}' give what differs by {far:.3g} from the layer with their product (largest value {largest:.3g}).",
                f"a difference of at most {tolerance:g} of it",
            )
        return [expected]

    inputs = random_inputs(graph, graph.views[id(model)], made=factored.model)
    expected = run_calls(graph, inputs, compute)
    return require_outputs(
        model,
        graph,
        inputs,
        expected,
        factored.model,
        "With factorized layers,",
        "the model's with the products of the factors",
        None,
    )
