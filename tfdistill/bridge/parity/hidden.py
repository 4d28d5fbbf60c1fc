"""Follows what masks hide through a tf_keras model: where the two Keras differ there, nothing that counts may read it.

Where all scores of an attention are masked, Keras 3 averages all positions; tf_keras adds -1e9 to the scores, which leaves of each what float32 still has at
that size. Both are meaningless, and hidden by the mask.
"""

import numpy as np

from tfdistill.bridge.parity.graphs import constant, flat, has_graph, unmasked
from tfdistill.bridge.parity.run import arrays, difference

# Share of the scale up to which the outputs of a nested model, whose layers are not compared one by one here, agree.
_TOLERANCE = 1e-4


def has_mask(tensors):
    """Whether any of a tf_keras layer's outputs has a mask."""
    return any(getattr(tensor, "_keras_mask", None) is not None for tensor in tensors)


class Hidden:
    """The tensors of one model that differ where a mask hides it.

    Args:
        walk: The comparison, whose `_run` calls a tf_keras layer, and whose `_compared` compares its outputs.
    """

    def __init__(self, walk):
        self._walk = walk
        self._tensors = {}  # id of a symbolic tensor -> the tensor with what tf_keras computes where it is hidden
        self._first = None

    def begin(self, node, found, ours, outputs):
        """Notes a call whose outputs differ only where they are hidden; `found` is the difference there."""
        self._first = self._first or found
        self._note(node, ours, outputs)

    def follow(self, node, values, path, call, ours):
        """Runs a call on what is hidden.

        Args:
            node: The tf_keras call.
            values: Dict of id of symbolic tensor to the tensor that the comparison goes on with.
            path: Where the model is.
            call: The Keras 3 call of the same name; falsy where there is none.
            ours: Its outputs as arrays.

        Returns:
            The `LayerDifference` of the call that everything began with, if what counts of this one's outputs depends on what is hidden; else None.
        """
        if not any(id(tensor) in self._tensors for tensor in node.keras_inputs) or any(id(t) in self._tensors for t in flat(node.outputs)):
            return None
        fed = {**values, **self._tensors}
        outputs = self._walk._run(node, fed)
        if not call:
            self._tensors.update(zip(map(id, flat(node.outputs)), outputs, strict=True))
            return None
        if has_graph(node.layer):
            error, scale = max(difference(*pair) for pair in zip(_visible(ours, outputs), ours, strict=True))
            misread = error > _TOLERANCE * max(scale, 0.1)
        else:
            misread = self._walk._compared(node, fed, outputs, call, ours, path, masked=True).excess > 1
        if not misread and has_mask(outputs):
            self._note(node, ours, outputs)
        return self._first if misread else None

    def reaching(self, tensors):
        """Returns the `LayerDifference` that everything began with, if any of these symbolic tensors differs where it is hidden."""
        return self._first if any(id(tensor) in self._tensors for tensor in tensors) else None

    def _note(self, node, ours, outputs):
        for symbolic, one, tensor in zip(flat(node.outputs), ours, outputs, strict=True):
            if has_mask([tensor]):
                self._tensors[id(symbolic)] = constant(_mixed(one, tensor), mask_of=tensor)


def _mixed(ours, tensor):
    """Returns an array with Keras 3's values where they count, and those of tf_keras where its mask hides them."""
    (theirs,), mask = arrays([tensor]), np.asarray(tensor._keras_mask)
    return np.where(mask.reshape(*mask.shape, *[1] * (theirs.ndim - mask.ndim)), ours, theirs)


def _visible(ours, outputs):
    """Returns the arrays of a tf_keras layer with Keras 3's values where a mask hides them."""
    return arrays(unmasked(ours, outputs))
