"""Separates the `TeacherReport`s from the other metrics of `compile`, and puts them back."""

import keras

from tfdistill.distill.metrics.teacher_report import TeacherReport


def take_reports(arguments):
    """Separates the `TeacherReport`s from the other metrics.

    Args:
        arguments: Dict of arguments of `compile`.

    Returns:
        List of `TeacherReport`s, and the arguments without them. Those of `weighted_metrics` weigh samples, those of `metrics` do not, as
        in Keras.
    """
    reports, rest = [], dict(arguments)
    for kind in ("metrics", "weighted_metrics"):
        metrics = rest.get(kind)
        if isinstance(metrics, (list, tuple)):
            own = [m for m in metrics if isinstance(m, TeacherReport)]
            for report in own:
                report.weighted = kind == "weighted_metrics"
            reports += own
            # Keras 3.12 refuses an empty list for a model with several outputs.
            rest[kind] = [m for m in metrics if not isinstance(m, TeacherReport)] or None
    return reports, rest


def with_reports(config, reports):
    """Adds reports to the serialized arguments of `compile` from which `take_reports` took them."""
    config = dict(config)
    for kind, weighted in (("metrics", False), ("weighted_metrics", True)):
        own = [report for report in reports if report.weighted == weighted]
        if own:
            config[kind] = [*(config.get(kind) or []), *keras.saving.serialize_keras_object(own)]
    return config
