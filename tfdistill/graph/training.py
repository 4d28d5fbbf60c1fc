"""What Keras keeps private about training: each is read behind one function here."""


def loss_on_labels(model, y, y_pred, sample_weight=None):
    """Computes the loss that a model was compiled with, without `add_loss` and regularizers.

    The public `Model.compute_loss` returns the sum with these penalties. Reads `Model._compile_loss`; if Keras renames it, every training
    step fails here with an AttributeError.

    Args:
        model: A compiled `keras.Model`.
        y: Labels, in the structure of the outputs.
        y_pred: Outputs of the model.
        sample_weight: `(batch,)`, a structure of them for the outputs, or None.

    Returns:
        Scalar, under a distribution strategy this replica's share of it; None if the model was compiled without a loss.
    """
    compiled = model._compile_loss
    return None if compiled is None else compiled(y, y_pred, sample_weight)


def loss_tracker(model):
    """Returns the metric in which Keras logs a compiled model's whole loss.

    Finds it by its public name, "loss", which is that of the logs. If Keras renames it, or no longer lists it in `metrics`, this raises
    StopIteration.

    Args:
        model: A compiled `keras.Model`.
    """
    return next(metric for metric in model.metrics if metric.name == "loss")


def metrics_of_labels(model):
    """Returns the metric that holds those of `compile`, which compare predictions with labels; None where there are none.

    Reads `Model._compile_metrics`; if Keras renames it, the first batch without labels fails here with an AttributeError.

    Args:
        model: A compiled `keras.Model`.
    """
    return model._compile_metrics


def results_without_labels(model):
    """Returns the results of a model's metrics, without those that compare predictions with labels: dict of name to value."""
    left_out, results = metrics_of_labels(model), {}
    for metric in model.metrics:
        if metric is not left_out:
            result = metric.result()
            results.update(result if isinstance(result, dict) else {metric.name: result})
    return results
