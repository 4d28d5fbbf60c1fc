"""Makes a small .tflite file, to try whether a runtime or an accelerator works at all."""

from tfdistill.runtime.schema import schema


def addition(size=64):
    """Returns a .tflite file as bytes: `a + b` in float32, with one signature.

    Args:
        size: Number of values of each tensor.
    """
    import flatbuffers

    made = schema()

    def tensor(name):
        found = made.TensorT()
        found.name, found.shape, found.type, found.buffer = name, [1, size], made.TensorType.FLOAT32, 0
        return found

    code, operator, graph, model = made.OperatorCodeT(), made.OperatorT(), made.SubGraphT(), made.ModelT()
    code.builtinCode, code.deprecatedBuiltinCode, code.version = made.BuiltinOperator.ADD, made.BuiltinOperator.ADD, 1
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0, 1], [2]
    operator.builtinOptionsType, operator.builtinOptions = made.BuiltinOptions.AddOptions, made.AddOptionsT()
    graph.tensors = [tensor(name) for name in ("a", "b", "sum")]
    graph.inputs, graph.outputs, graph.operators = [0, 1], [2], [operator]
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [code], [graph], [made.BufferT()]
    model.signatureDefs = [_signature(made, graph)]
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def _signature(made, graph):
    def entries(tensors):
        found = []
        for index in tensors:
            entry = made.TensorMapT()
            entry.name, entry.tensorIndex = graph.tensors[index].name, index
            found.append(entry)
        return found

    signature = made.SignatureDefT()
    signature.signatureKey, signature.subgraphIndex = "serving_default", 0
    signature.inputs, signature.outputs = entries(graph.inputs), entries(graph.outputs)
    return signature
