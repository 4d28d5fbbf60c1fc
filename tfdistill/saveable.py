"""Registers the saveable classes with Keras without importing their modules, and checks the configs that they are made from.

Keras finds the class of a saved object by its registered name (`"tfdistill>Distiller"`) in its table of custom objects. The decorator that
registers a class runs when the module of the class is imported, at the first use. Until then a `DeferredClass` stands in the table.
"""

import functools
import importlib.util
import sys

from tfdistill.errors import ModelError, TfdistillError

# Module -> classes that it registers with Keras under the package "tfdistill".
SAVED = {
    "tfdistill.compress.prune.callbacks": ("PrunedModel",),
    "tfdistill.distill.cache.reader": ("SoftTargetCache",),
    "tfdistill.distill.metrics.calibration": ("CalibrationError",),
    "tfdistill.distill.distiller": ("Distiller",),
    "tfdistill.distill.metrics.teacher_report": ("TeacherReport",),
    "tfdistill.distill.teachers.callable": ("CallableTeacher",),
    "tfdistill.distill.teachers.files": ("SavedModelTeacher", "TFLiteTeacher"),
    "tfdistill.distill.teachers.keras_file": ("KerasFile",),
    "tfdistill.distill.teachers.ensemble": ("Ensemble",),
    "tfdistill.bridge.adopt.adopt": ("AdoptedModel",),
    "tfdistill.graph.batches": ("SizedOperation",),
    "tfdistill.graph.carriers": ("HeldConstant", "HeldWeight", "WithMask"),
    "tfdistill.losses.attention": ("AttentionMaps", "AttentionTransfer"),
    "tfdistill.losses.contrastive": ("ContrastiveRepresentation",),
    "tfdistill.losses.correlation": ("DIST",),
    "tfdistill.losses.decoupled": ("DecoupledKD",),
    "tfdistill.losses.features": ("HiddenStates", "Hint"),
    "tfdistill.losses.kernels": ("CorrelationCongruence", "ProbabilisticTransfer"),
    "tfdistill.losses.logits": ("BinarySoftTargets", "LogitMatching", "SoftTargets"),
    "tfdistill.losses.regression": ("OutputMatching", "TeacherBounded"),
    "tfdistill.losses.relations": ("RelationalKD", "SimilarityPreserving"),
    "tfdistill.losses.schedules": ("CosineSchedule", "LinearSchedule", "PiecewiseSchedule"),
}


class DeferredClass:
    """Placeholder in Keras's table for a class whose module is not imported yet. Using it imports the module and forwards to the class.

    When the module is imported, the class replaces this entry.

    Args:
        module: The module that defines the class.
        name: Name of the class.
    """

    def __init__(self, module, name):
        self._module, self._name = module, name

    def _load(self):
        return getattr(importlib.import_module(self._module), self._name)

    def __getattr__(self, attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)  # copy and repr look these up and do not need the class
        return getattr(self._load(), attribute)

    def __call__(self, *args, **kwargs):
        return self._load()(*args, **kwargs)

    def __repr__(self):
        return f"<class '{self._module}.{self._name}', not imported yet>"


class _AfterKeras:
    """Import hook that runs a function once, directly after the import of `keras`."""

    def __init__(self, function):
        self._function = function

    def find_spec(self, name, path=None, target=None):
        if name != "keras":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_register(module):
            execute(module)
            self._function()

        spec.loader.exec_module = execute_and_register
        return spec


def checks_config(from_config):
    """Decorates a `from_config` so that a damaged config raises a `ModelError` that names the class.

    Args:
        from_config: Function of the class and the config, as under `@classmethod`.

    Returns:
        The function. It also raises for a config that is not a dict.
    """

    @functools.wraps(from_config)
    def checked(cls, config, *args, **kwargs):
        if not isinstance(config, dict):
            raise ModelError(f"The config of a saved {cls.__name__} is a {type(config).__name__}.", "the dict that its get_config returned")
        try:
            return from_config(cls, config, *args, **kwargs)
        except TfdistillError:
            raise
        except Exception as error:  # the class depends on the damage
            raise ModelError(
                f"The {cls.__name__} cannot be made from its saved config: {type(error).__name__}: {error}",
                "the dict that its get_config returned",
            ) from error

    return checked


def register_saved_classes():
    """Puts a `DeferredClass` into Keras's table for each class that is not there: now, or directly after the import of `keras`.

    Keras is not imported by this function, because a process that measures a .tflite file runs without it.
    """
    if "keras" in sys.modules:
        _register()
    elif not any(isinstance(finder, _AfterKeras) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterKeras(_register))


def _register():
    table = sys.modules["keras"].saving.get_custom_objects()
    for module, names in SAVED.items():
        for name in names:
            table.setdefault(f"tfdistill>{name}", DeferredClass(module, name))
