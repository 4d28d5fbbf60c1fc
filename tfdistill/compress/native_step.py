"""What steps share that take plain Keras 3 models and return smaller ones, without wrappers."""

import math

import keras

from tfdistill.compress import rebuild
from tfdistill.compress.step import Step
from tfdistill.errors import InvariantError
from tfdistill.graph.names import named_layers


class NativeStep(Step):
    """A step whose result is a plain Keras 3 model at once."""

    def strip(self, model: keras.Model) -> keras.Model:
        """Returns the model as it is: the step leaves no wrappers.

        Args:
            model: The model that `apply` returned, after training.
        """
        rebuild.require_native(model, type(self).__name__)
        return model


def require_parameters(model, wanted):
    """Refuses a model whose layers have not the numbers of parameters that a plan says.

    Args:
        model: Keras 3 model.
        wanted: Dict of the path of each layer to the number of its parameters.

    Raises:
        InvariantError: naming the layers and their figures.
    """
    found = {path: sum(math.prod(w.shape) for w in getattr(layer, "weights", ())) for path, layer in named_layers(model).items()}
    wrong = [path for path, count in wanted.items() if found.get(path) != count]
    if wrong:
        have, want = (", ".join(f"'{path}': {numbers.get(path)}" for path in wrong[:5]) for numbers in (found, wanted))
        raise InvariantError(f"'{model.name}' is not the model of the plan; parameters of {have}.", want)
