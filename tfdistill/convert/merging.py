"""Joins .tflite files of one signature each to one file of several, in which equal weights stand once."""

import re

from tfdistill.convert.packing import content_of, pack
from tfdistill.convert.parsed_file import ParsedFile
from tfdistill.runtime.schema import schema

# Fields of operations that hold the index of a graph: the bodies of loops and branches.
_GRAPH_INDEX = re.compile(r"subgraph(Index)?$", re.IGNORECASE)
_RUNTIME = b"min_runtime_version"


def merged(contents):
    """Joins files.

    Args:
        contents: Dict of signature name -> file as bytes, each with one signature. The first one gets the main graph, which programs run that know no signatures.

    Returns:
        The file as bytes.
    """
    classes = schema()
    models = [classes.ModelT.InitFromObj(classes.Model.GetRootAs(content, 0)) for content in contents.values()]
    whole = models[0]
    parsed = ParsedFile(whole, classes)
    whole.metadata = [entry for entry in whole.metadata or [] if entry.name == _RUNTIME]
    for key, model in list(zip(contents, models, strict=True)):
        _name(model, key, first=model is whole)
        if model is not whole:
            _append(whole, model)
    for model in models[1:]:
        for entry in model.metadata or []:
            if entry.name == _RUNTIME:
                parsed.require_runtime(bytes(bytearray(model.buffers[entry.buffer].data)).rstrip(b"\0").decode("ascii"))
    _share_codes(whole)
    parsed.share_buffers()
    return pack(whole, classes)


def _name(model, key, first):
    """Gives a file's signature and graph a name, and its inputs and outputs names that no other signature's have."""
    (signature,) = model.signatureDefs
    signature.signatureKey = key.encode()
    graph = model.subgraphs[signature.subgraphIndex or 0]
    if first:
        return
    graph.name = key.encode()
    for entry in signature.inputs or []:
        graph.tensors[entry.tensorIndex].name = f"{key}_{entry.name.decode()}:0".encode()
    given = {int(entry.tensorIndex) for entry in signature.inputs or []}
    for place, index in enumerate(graph.outputs):
        if int(index) not in given:
            graph.tensors[index].name = f"{key}:{place}".encode()


def _append(whole, other):
    graphs, buffers, codes = len(whole.subgraphs), len(whole.buffers), len(whole.operatorCodes)
    for graph in other.subgraphs:
        for tensor in graph.tensors or []:
            tensor.buffer += buffers
        for operator in graph.operators or []:
            operator.opcodeIndex += codes
            for options in (operator.builtinOptions, operator.builtinOptions2):
                for name, value in vars(options).items() if options is not None else ():
                    if _GRAPH_INDEX.search(name) and isinstance(value, int) and value >= 0:
                        setattr(options, name, value + graphs)
    (signature,) = other.signatureDefs
    signature.subgraphIndex = (signature.subgraphIndex or 0) + graphs
    whole.subgraphs += other.subgraphs
    whole.operatorCodes += other.operatorCodes
    whole.signatureDefs.append(signature)
    whole.buffers += other.buffers


def _share_codes(model):
    """Lets equal codes of operations be one."""
    kept, places, places_of = [], {}, []
    for code in model.operatorCodes:
        key = content_of(code)
        if key not in places:
            places[key] = len(kept)
            kept.append(code)
        places_of.append(places[key])
    for graph in model.subgraphs:
        for operator in graph.operators or []:
            operator.opcodeIndex = places_of[operator.opcodeIndex]
    model.operatorCodes = kept
