"""Finds normalizations some of whose rows are far smaller than the others, such as a class token among patches: one range for the squares of all rows leaves
them less than a step, so that they come out too small."""

from tfdistill.bridge.adopt import introspection
from tfdistill.bridge.adopt.layers import named_layers
from tfdistill.bridge.integer.measuring import Histograms
from tfdistill.bridge.integer.normalizations import ROWWISE, TWICE
from tfdistill.bridge.wrappers.quantization import is_quantized_layer
from tfdistill.compress.quantize.clipping import STEPS
from tfdistill.compress.quantize.measure import Runner

# A row is quiet if its variance is at most so many steps of the largest one: its deviation is then off by an eighth or more.
_QUIET = 2
# A normalization with an epsilon above this share of a step keeps quiet rows small by itself, as it should.
_LARGEST_EPSILON = 0.1


def normalized_twice(decided, model, signature, samples):
    """Returns the decisions by which normalizations with quiet rows normalize twice; the same ones if there are none.

    A layer counts that has as many quiet rows as there are samples: one by chance is not worth the operations.

    Args:
        decided: Dict of path to `LayerQuantization`.
        model: `AdoptedModel` of them with measured ranges.
        signature: `ModelSignature` of the samples.
        samples: Calibration `Samples`.
    """
    found = {}  # id of a range's minimum -> path, the inverse deviation above which a row is quiet, and the largest one
    for path, layer in named_layers(model.legacy).items():
        if is_quantized_layer(layer) and path in decided and decided[path].done and _may_change(layer.quantization):
            found |= {key: (path, *rest) for key, *rest in _ranges_with_quiet_rows(layer)}
    counts = Runner(model, signature, samples).run(Histograms(found)) if found else {}
    quiet = set()
    for key, (path, least, largest) in found.items():
        bins = len(counts[key])
        if counts[key][min(int(bins * least / largest), bins - 2) :].sum() >= samples.count:
            quiet.add(path)
    return {path: _twice(decision) if path in quiet else decision for path, decision in decided.items()} if quiet else decided


def _may_change(quantization):
    return quantization.form in ROWWISE and quantization.form not in dict(quantization.replaced)


def _twice(decision):
    quantization = decision.quantization
    return decision._replace(quantization=quantization._replace(replaced=(*quantization.replaced, (quantization.form, TWICE))))


def _ranges_with_quiet_rows(layer):
    """Yields, for each call of a normalization that has quiet rows, the id of the minimum of the inverse deviation's range, from which value on rows are quiet, and
    the largest value."""
    epsilon = getattr(introspection.computing_layer(layer), "epsilon", 0.0)
    for what, (low, high, _) in layer.ranges.items():
        if what.startswith("inverse_deviation"):
            step = float(layer.ranges[what.replace("inverse_deviation", "variance_and_epsilon")][1]) / STEPS
            largest = float(high)
            if largest**2 * step * _QUIET > 1.0 and epsilon < _LARGEST_EPSILON * step:
                yield id(low), (_QUIET * step) ** -0.5, largest
