"""The Distiller class of keras.io's tutorial on knowledge distillation: what its arguments are called here.

Many scripts have a copy of that class. It takes the losses, `alpha` and the temperature in `compile`; here, and in
`keras.distillation.Distiller`, the distillation loss and the weights belong to the constructor.
"""

import inspect

import keras

from tfdistill.errors import ConfigurationError
from tfdistill.graph.functional import final_activations

ARGUMENTS = ("student_loss_fn", "distillation_loss_fn", "alpha", "temperature")
# The tutorial's defaults.
ALPHA, TEMPERATURE = 0.1, 3
_MODULES = (
    (keras.losses.Loss, "losses"),
    (keras.metrics.Metric, "metrics"),
    (keras.optimizers.Optimizer, "optimizers"),
)


def refuse(called, teacher, student, arguments, missing=False):
    """Raises the error for a call with the tutorial's arguments, or without a distillation loss, with the lines to write.

    Args:
        called: What was called, for the message: "Distiller" or "compile".
        teacher: The teacher.
        student: The student.
        arguments: Dict of the arguments that were given.
        missing: Whether `distillation_losses` was not given.

    Raises:
        ConfigurationError: unless there is nothing to say.
    """
    given = [name for name in ARGUMENTS if name in arguments]
    if not given and not missing:
        return
    if given:
        happened = f"{called} was given {', '.join(given)}: arguments of the Distiller class in keras.io's tutorial."
    else:
        happened = "'distillation_losses' cannot be `None`."
    happened += "" if not missing or not given else " There are no distillation_losses."
    raise ConfigurationError(
        happened,
        "a distillation loss such as tfdistill.losses.SoftTargets(4.0), or a list of them, in the constructor, and the student's loss in compile",
        "\n".join(["write", *_lines(teacher, student, arguments), "where", *_mapping(arguments)]),
    )


def _lines(teacher, student, arguments):
    """The two calls to write, with the values that were given."""
    temperature = _code(arguments.get("temperature", TEMPERATURE), "temperature")
    ends = [final_activations(model).get(None) if isinstance(model, keras.Model) else None for model in (teacher, student)]
    settings = "".join(
        f", {side}_outputs='probabilities'" for side, end in zip(("teacher", "student"), ends, strict=True) if end == "softmax"
    )
    settings = ", from_logits=False" if ends == ["softmax", "softmax"] else settings
    own = {name: value for name, value in arguments.items() if name not in ARGUMENTS and name != "loss"}
    compiled = {
        "optimizer": _code(own.pop("optimizer", "adam"), "optimizer"),
        "loss": _code(arguments["student_loss_fn"], "student_loss_fn") if "student_loss_fn" in arguments else "student_loss_fn",
        **{name: _code(value, name) for name, value in own.items() if value is not None},
    }
    if "student_loss_fn" not in arguments:
        from_logits = "False" if ends[1] == "softmax" else "True"
        compiled["loss"] = _code(arguments.get("loss"), "loss") if arguments.get("loss") is not None else None
        compiled["loss"] = compiled["loss"] or f"keras.losses.SparseCategoricalCrossentropy(from_logits={from_logits})"
    return [
        f"    distiller = tfdistill.Distiller(teacher, student, tfdistill.losses.SoftTargets(temperature={temperature}{settings}), "
        f"student_loss_weight={_code(arguments.get('alpha', ALPHA), 'alpha')})",
        f"    distiller.compile({', '.join(f'{name}={value}' for name, value in compiled.items())})",
    ]


def _mapping(arguments):
    """What each of the tutorial's arguments is here, line by line."""
    loss = arguments.get("distillation_loss_fn")
    kept = loss is None or isinstance(loss, keras.losses.KLDivergence)
    return [
        "    student_loss_fn is compile(loss=...)",
        "    distillation_loss_fn is a loss of tfdistill.losses, in the constructor: SoftTargets is KLDivergence of the softened outputs, times temperature ** 2"
        + ("" if kept else f"; in place of {_code(loss, 'distillation_loss_fn')}"),
        "    temperature is SoftTargets(temperature=...)",
        "    alpha is student_loss_weight=...",
    ]


def _code(value, name):
    """Returns Python that makes a value of the call; where none is known, the argument's name, as a variable."""
    if value is None or isinstance(value, (str, bool, int, float)):
        return repr(value)
    if isinstance(value, (list, tuple)):
        parts = [_code(part, "") for part in value]
        return f"[{', '.join(parts)}]" if all(parts) else name
    if isinstance(value, dict):
        parts = {key: _code(part, "") for key, part in value.items()}
        return "{" + ", ".join(f"{key!r}: {part}" for key, part in parts.items()) + "}" if all(parts.values()) else name
    for base, module in _MODULES:
        if isinstance(value, base) and getattr(getattr(keras, module), type(value).__name__, None) is type(value):
            return _of_keras(value, module) or name
    function = getattr(value, "__name__", "")
    for module in ("losses", "metrics"):
        if function and getattr(getattr(keras, module), function, None) is value:
            return f"keras.{module}.{function}"
    return name


def _of_keras(value, module):
    """Returns the call that makes a loss, metric or optimizer of Keras; None where a setting is no plain value."""
    parameters, settings = inspect.signature(type(value)).parameters, []
    for key, setting in value.get_config().items():
        if isinstance(setting, float):
            setting = float(f"{setting:.6g}")  # the optimizer's variables are float32
        default = parameters[key].default if key in parameters else setting
        if setting == default or (key == "dtype" and setting == keras.config.floatx()) or (key == "name" and module == "optimizers"):
            continue
        if not isinstance(setting, (str, bool, int, float)):
            return None
        settings.append(f"{key}={setting!r}")
    return f"keras.{module}.{type(value).__name__}({', '.join(settings)})"
