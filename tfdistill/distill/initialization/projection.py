"""Narrower copies of layers: the weights of a wide layer, projected onto a basis of fewer channels."""

import keras
import numpy as np

from tfdistill.graph.axes import axes_of
from tfdistill.graph.functional import is_reused, merges
from tfdistill.graph.traversal import own_weights, sublayers


def is_a_chain(model):
    """Whether each layer's output goes to the next layer alone: Sequential, or functional with one output and no layer merged or reused."""
    if isinstance(model, keras.Sequential):
        parts = model.layers
    elif isinstance(model, keras.Model) and hasattr(model, "operations"):
        parts = model.operations
        if len(model.outputs) > 1 or any(is_reused(op) or merges(op) for op in parts):
            return False
    else:
        return False
    return all(is_a_chain(part) for part in parts if isinstance(part, keras.Layer) and sublayers(part))


class Narrower:
    """Computes a student's weights from a teacher's, layer by layer in the student's order.

    Between two layers lies a space of channels. Going from n channels to m, it gets an orthonormal basis P of shape (n, m): the m leading
    right singular vectors of the matrix W that writes into it. The writing layer becomes W P, a truncated SVD, and the layer that reads
    becomes transpose(P) W, so that both together compute W1 P transpose(P) W2, of all rank-m projections of W1 the closest to it.

    Args:
        shared: False for a chain of layers: then each space has its own basis, and a layer's is found after its input was narrowed. True
            for models with branches: all spaces of the same two widths share one basis, from all matrices that write into them, because a
            residual stream is one space.
        pairs: List of (student layer, teacher layer), for the shared bases.
    """

    def __init__(self, shared, pairs):
        self._shared, self._last = shared, None
        self._bases = self._shared_bases(pairs) if shared else {}

    def _shared_bases(self, pairs):
        grams = {}
        for student, teacher in pairs:
            for name, axes, ours, theirs in _weights(student, teacher):
                if axes is None or axes.writes is None or name == "bias":
                    continue
                n, m = theirs.shape[axes.writes], ours.shape[axes.writes]
                if n > m:
                    grams[n, m] = grams.get((n, m), 0.0) + _gram(np.asarray(theirs, "float64"), axes.writes)
        return {(n, m): leading(gram, m) for (n, m), gram in grams.items()}

    def forget(self):
        """Forgets the last basis: the next layer reads a layer that was not made from the teacher's."""
        self._last = None

    def narrow(self, student, teacher):
        """Computes the new weights of one layer.

        Returns:
            Dict of weight name to array, and the share of the squares of the teacher's largest weight that was kept; or a string with the
            reason why the layer cannot be narrowed.
        """
        rows = _weights(student, teacher)
        for name, axes, ours, theirs in rows:
            why = _obstacle(student, name, axes, ours.shape, theirs.shape)
            if why:
                self._last = None
                return why
        made, kept, writes = {}, (0, 1.0), None
        reads = {}
        for name, axes, ours, theirs in rows:
            value = np.asarray(theirs, "float64")
            if axes is None:
                made[name] = value
                continue
            for axis, squared in ((axes.reads, False), (axes.diagonal, True)):
                if axis is not None:
                    sizes = (theirs.shape[axis], ours.shape[axis])
                    if sizes not in reads:
                        reads[sizes] = self._reading(sizes, value, axis, squared or value.ndim == 1)
                    if reads[sizes] is None:
                        self._last = None
                        return f"the {sizes[0]} channels that pass through it are not known from a narrower layer before it"
                    # The part of diag(g) in the basis that is itself diagonal: each channel of the student gets a weighted mean.
                    value = _along(value, reads[sizes] ** 2 if squared else reads[sizes], axis)
            if axes.writes is not None:
                n, m = theirs.shape[axes.writes], ours.shape[axes.writes]
                if writes is None:
                    writes = self._writing(n, m, value, axes.writes)
                value = _along(value, writes, axes.writes)
            if theirs.size > kept[0]:
                kept = (theirs.size, float((value**2).sum() / max((np.asarray(theirs, "float64") ** 2).sum(), 1e-30)))
            made[name] = value
        if writes is not None:
            self._last = writes
        return made, kept[1]

    def _reading(self, sizes, value, axis, per_channel):
        n, m = sizes
        if n == m:
            return np.eye(n)
        known = self._bases.values() if self._shared else [self._last] if self._last is not None else []
        for basis in known:
            if basis.shape == (n, m):
                return basis
        for basis in known:
            # Flattened maps: each position has the same channels.
            positions = n // basis.shape[0]
            if basis.shape[1] < basis.shape[0] and (n, m) == (positions * basis.shape[0], positions * basis.shape[1]):
                return np.kron(np.eye(positions), basis)
        return None if per_channel else leading(_gram(value, axis), m)

    def _writing(self, n, m, value, axis):
        if n == m:
            return np.eye(n)
        return self._bases[n, m] if self._shared else leading(_gram(value, axis), m)


def leading(gram, count):
    """The `count` leading eigenvectors of a Gram matrix, as columns: the right singular vectors of the matrix that it is the Gram of.

    Their signs are arbitrary; each is chosen so that the sum of the entries is not negative, because a ReLU after the layer keeps positive
    values.
    """
    vectors = np.linalg.eigh(gram)[1][:, ::-1][:, :count]
    return vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)


def _gram(value, axis):
    matrix = np.moveaxis(value, axis, -1).reshape(-1, value.shape[axis])
    return matrix.T @ matrix


def _along(value, matrix, axis):
    """Applies transpose(matrix) to one axis of an array."""
    return np.moveaxis(np.tensordot(value, matrix, axes=(axis, 0)), -1, axis)


def _weights(student, teacher):
    """(name, axes, student's weight, teacher's values) for each weight of two layers of the same kind, kernels before biases."""
    table = axes_of(student) or {}
    return [(w.name, table.get(w.name), w, np.asarray(t)) for w, t in zip(own_weights(student), own_weights(teacher), strict=True)]


def _obstacle(layer, name, axes, ours, theirs):
    """Returns the reason why a weight cannot be narrowed, or None."""
    ours, theirs = tuple(ours), tuple(theirs)
    if ours == theirs:
        return None
    what = f"{name} is {ours} in the student and {theirs} in the teacher"
    if axes_of(layer) is None or axes is None:
        return f"{what}, and a {type(layer).__name__} of this form has no narrower copy"
    if any(s > t for s, t in zip(ours, theirs, strict=True)):
        return f"{what}: the student's is wider"
    free = {axis % len(ours) for axis in axes if axis is not None}
    if any(s != t and axis not in free for axis, (s, t) in enumerate(zip(ours, theirs, strict=True))):
        return f"{what}: they differ in more than channels"
    return None
