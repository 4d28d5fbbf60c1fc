"""A traced function as a graph that holds the values of its variables as constants."""

import dataclasses
import typing

from tfdistill.bridge.unread_parts import without_unread_parts

# Beyond that, the graph would come near to the 2 GB that it may have.
_MOST_BYTES = 500_000_000


@dataclasses.dataclass(frozen=True)
class FrozenGraph:
    """A graph without variables and without functions.

    Attributes:
        definition: Its `GraphDef`.
        inputs: Dict of input name to its tensor in the traced graph; it is a placeholder of that name.
        outputs: Dict of output name to its tensor in the traced graph, which has the same name in the definition.
    """

    definition: typing.Any
    inputs: dict
    outputs: dict


def frozen(concrete):
    """Returns the `FrozenGraph` of a concrete function with named inputs and a dict of outputs. It is saved and converted several times as fast as a function.

    None is returned for what has to be converted as a function: one that holds others, as the converter knows an LSTM by its function, which would be written
    out; one that assigns to a variable or reads a table; and one with many weights.
    """
    graph, definition = concrete.graph, concrete.graph.as_graph_def()
    assigns = any(node.op.startswith("Assign") for node in definition.node)
    if assigns or definition.library.function or sum(v.shape.num_elements() * v.dtype.size for v in graph.variables) > _MOST_BYTES:
        return None
    inputs = concrete.inputs[: len(concrete.inputs) - len(concrete.captured_inputs)]
    names = [spec.name for spec in concrete.structured_input_signature[0]]
    if names != [tensor.op.name for tensor in inputs]:
        return None  # TensorFlow renamed a placeholder
    constants = _with_constants(concrete)
    if {node.name for node in constants.node if node.op == "Placeholder"} != set(names):
        return None
    outputs = dict(zip(sorted(concrete.structured_outputs), concrete.outputs, strict=True))
    without_unread_parts(constants, graph, [tensor.name for tensor in outputs.values()])
    return FrozenGraph(constants, dict(zip(names, inputs, strict=True)), outputs)


def _with_constants(concrete):
    from tensorflow.python.framework import convert_to_constants

    # What `convert_variables_to_constants_v2` does before it makes a function of the graph again.
    data = convert_to_constants._FunctionConverterDataInEager(func=concrete, lower_control_flow=False, aggressive_inlining=False)
    return convert_to_constants._replace_variables_by_constants(converter_data=data)[0]
