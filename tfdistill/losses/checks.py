"""Checks that are particular to losses: layer names, batch sizes, and weights that leave nothing."""

from tfdistill.errors import ConfigurationError


def layer_name(owner, name, value):
    """Checks a layer's name or path; None stands for the model's final output.

    Raises:
        ConfigurationError: if it is neither None nor a non-empty string.
    """
    if value is not None and (not isinstance(value, str) or not value):
        raise ConfigurationError(
            f"{owner}: {name}={value!r} is not a layer's name.",
            "a name, a path such as 'encoder/block_2/attention', or None for the final output",
        )
    return value


def enough_samples(owner, count, fewest, fix=None):
    """Checks that a batch has as many samples as a loss between samples needs to depend on the student at all.

    Raises:
        ConfigurationError: if it has fewer.
    """
    if count < fewest:
        raise ConfigurationError(
            f"{owner}: the first batch has {count} sample{'' if count == 1 else 's'}.",
            f"at least {fewest}: with fewer, relations between samples are the same whatever the student does",
            f"give `fit` a batch_size of at least {fewest} (relations of fewer than about 32 say little)" + (f", or {fix}" if fix else ""),
        )


def some_weight(owner, **weights):
    """Checks that not all weights of a loss's parts are the constant 0.

    Raises:
        ConfigurationError: if they are: the loss would be 0.
    """
    if all(isinstance(w, float) and w == 0.0 for w in weights.values()):
        raise ConfigurationError(
            f"{owner}: " + " and ".join(f"{name}=0.0" for name in weights) + ", so the loss is always 0.", "a positive weight"
        )
