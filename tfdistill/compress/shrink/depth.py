"""Leaves out some of the blocks that repeat in a model."""

from tfdistill.compress.remake import Remade
from tfdistill.compress.selection import layers_of_graph, select
from tfdistill.compress.shrink.blocks import chains_of
from tfdistill.errors import ModelError
from tfdistill.graph.flat import flat_graph
from tfdistill.graph.functional import calls


class Shallower(Remade):
    """A model made anew with some of the blocks of each of its chains, evenly spread.

    Args:
        model: The original, which is not changed.
        depth: Share of the blocks that stays, of each chain at least one.
        exclude: What `selectors` returns: layers whose chains stay whole.

    Raises:
        ModelError: if no block can be left out.
    """

    def __init__(self, model, depth, exclude=None):
        graph = flat_graph(model)
        layers = layers_of_graph(model, graph)
        chosen = select(layers, None, exclude)[0]
        excluded = {id(layer) for path, layer in layers.items() if path not in chosen}

        def stays(operation):
            inside = calls(graph.views[id(operation)]) if id(operation) in graph.views else ()
            return id(operation) in excluded or any(stays(call.operation) for call in inside)

        self._gone = {key: _left_out(view, depth, stays) for key, view in graph.views.items()}
        if not any(self._gone.values()):
            raise ModelError(
                f"depth={depth:g} leaves out no block of '{model.name}': no chain of it has enough equal blocks, one behind the other, that exclude= does not name.",
                "blocks of equal layers of equal sizes, each of which reads what the one before it returns",
                "leave out depth= and give width=",
            )
        super().__init__(model, graph)

    def _left_out(self, view):
        return self._gone[next(key for key, own in self._graph.views.items() if own is view)]


def _left_out(view, depth, stays):
    found = {}
    for blocks in chains_of(view):
        if any(stays(call.operation) for block in blocks for call in block.calls):
            continue
        count = max(1, int(depth * len(blocks) + 0.5))
        kept = {i * len(blocks) // count for i in range(count)}
        for number, block in enumerate(blocks):
            if number not in kept:
                found.update((id(call.outputs[0]), None) for call in block.calls)
                found[id(block.result)] = block.source
    return found
