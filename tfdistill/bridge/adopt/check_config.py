"""Checks every name in the config of a saved model against what may be loaded, before anything is made from it.

tf_keras imports whatever module a config names and takes any function from it, so a file could run any program. Here a config is refused unless each of
its classes and functions belongs to Keras, tf_keras or TFMOT, or is registered or passed by the user. What Keras allows with `safe_mode=False`
alone is refused in safe mode: Lambda layers with Python code, layers that open other files, and TensorFlow operations that do more than compute.
"""

import sys

from tfdistill.bridge.adopt import allowed_names
from tfdistill.errors import ModelError
from tfdistill.graph.keras_internals import loads_in_safe_mode

# How deep the dicts and lists of a config may be nested. Each model inside a model takes four levels.
DEPTH = 250

_VALUES = (
    *("__tensor__", "__numpy__", "__bytes__", "__ellipsis__", "__slice__", "__keras_tensor__", "__tuple__"),
    *("TensorShape", "TypeSpec", "CompositeTensor"),
)
_OTHER_FILES = ("TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TensorFlowOpLayer")
_LOADABLE = (
    "classes and functions of Keras, tf_keras and TFMOT, and those that are registered with @keras.saving.register_keras_serializable() or passed as "
    "custom_objects"
)
_TRUST = "if you trust where it comes from, keras.saving.load_model(path, safe_mode=False), or keras.config.enable_unsafe_deserialization()"


def in_safe_mode(safe_mode=None):
    """Whether Keras 3 loads in safe mode now: always, but for `safe_mode=False` and `keras.config.enable_unsafe_deserialization()`.

    Args:
        safe_mode: What the caller of a `from_config` wants; None leaves it to Keras's own setting.
    """
    return (loads_in_safe_mode() if safe_mode is None else safe_mode) is not False


def check_config(config, owner, safe_mode=None):
    """Checks every name in a config, however deep.

    Registered names are those of Keras and tf_keras, and those of their open `custom_object_scope`s.

    Args:
        config: Nested dicts, lists, strings, numbers, booleans and None, as `json.loads` gives them.
        owner: What the config describes, as the subject of an error's sentence: "The adopted model 'net'".
        safe_mode: See `in_safe_mode`.

    Returns:
        Dict of the registered names that the config uses to what they stand for.

    Raises:
        ModelError: naming what is refused, where it stands in the config, and what to do.
    """
    check = _Check(owner, in_safe_mode(safe_mode))
    stack = [(config, "config", 0)]
    while stack:
        value, where, depth = stack.pop()
        if depth > DEPTH:
            raise ModelError(f"{owner} has a config that is nested more than {DEPTH} levels deep.", "the config of a model that was saved")
        if isinstance(value, dict):
            if "class_name" in value:
                check.entry(value, where)
            stack += [(inner, f"{where}/{key}", depth + 1) for key, inner in value.items() if isinstance(inner, (dict, list, tuple))]
        elif isinstance(value, (list, tuple)):
            stack += [(inner, f"{where}[{i}]", depth + 1) for i, inner in enumerate(value) if isinstance(inner, (dict, list, tuple))]
    return check.used


class _Check:
    """Checks the dicts of a config that stand for an object; `used` collects what is registered."""

    def __init__(self, owner, safe_mode):
        self.owner, self.safe_mode = owner, safe_mode
        self.used = {}

    def entry(self, entry, where):
        name, module = entry["class_name"], entry.get("module")
        registered_name = entry.get("registered_name", name)
        for key, value, kinds in (
            ("class_name", name, str),
            ("module", module, (str, type(None))),
            ("registered_name", registered_name, (str, type(None))),
        ):
            if not isinstance(value, kinds):
                raise ModelError(f"{self.owner} has a {key} at {where} that is {_short(value)}.", "a name")
        if name in _VALUES:
            if module is not None:
                self._refuse(f"the value '{name}' with the module '{module}'", where)
        elif name == "__lambda__":
            self._only_trusted("a Python lambda", where)
        elif name == "__typespec__":
            self._type_spec(entry, module, where)
        elif name == "function":
            self._function(entry.get("config"), module, registered_name, where)
        else:
            self._class(entry, name, module, registered_name, where)

    def _class(self, entry, name, module, registered_name, where):
        named = allowed_names.classes(name, module)
        # A reader that looks for the registered name in vain imports the module, and takes either name from it.
        if self._registered(registered_name) is None and module is not None and (not named or registered_name not in (None, name)):
            self._refuse(f"the class '{module}.{name}'", where, name)
        # The format that tf_keras and TFMOT wrote before this one knows a class by its name alone.
        plain = named + allowed_names.classes(name)
        if not plain and self._registered(registered_name) is None and self._registered(name) is None:
            self._refuse(f"the class '{name}'", where, name)
        if not self.safe_mode:
            return
        config = entry.get("config") if isinstance(entry.get("config"), dict) else {}
        for kind in {kind.__name__ for found in plain for kind in found.__mro__}:
            self._kind(kind, config, where)

    def _kind(self, kind, config, where):
        """Refuses a class, by the name of it or of a base, that does more in safe mode than compute."""
        if kind in _OTHER_FILES:
            self._only_trusted(f"the layer '{kind}', which runs another file or a raw graph", where)
        if kind == "Lambda" and "lambda" in (config.get(key) for key in ("function_type", "output_shape_type", "mask_type")):
            self._only_trusted("a Lambda layer with Python code", where)
        if kind in ("TFOpLambda", "SlicingOpLambda") and not allowed_names.is_operation(config.get("function")):
            self._only_trusted(
                f"the TensorFlow operation {_short(config.get('function'))}, which is none of those that only compute", where
            )
        if kind == "ClassMethod" and config.get("cls_symbol") not in allowed_names.TENSOR_CLASSES:
            self._only_trusted(f"a method of the TensorFlow class {_short(config.get('cls_symbol'))}", where)
        attribute = {"ClassMethod": "method_name", "InstanceMethod": "attr_name", "InstanceProperty": "attr_name"}.get(kind)
        if attribute and not (isinstance(config.get(attribute), str) and config[attribute].isidentifier() and config[attribute][0] != "_"):
            self._only_trusted(f"the private attribute {_short(config.get(attribute))} of a tensor", where)
        if kind in ("IndexLookup", "TextVectorization"):
            for key in ("vocabulary", "idf_weights"):
                if isinstance(config.get(key), str):
                    self._only_trusted(f"a layer that reads the file {_short(config[key])} as its {key}", where)

    def _function(self, name, module, registered_name, where):
        if not isinstance(name, str):
            raise ModelError(f"{self.owner} has a function at {where} whose name is {_short(name)}.", "a name")
        if self._registered(name) is not None:
            return
        if registered_name not in (None, "function", name) or not allowed_names.functions(name, module):
            self._refuse(f"the function '{name if module is None else f'{module}.{name}'}'", where, name)

    def _type_spec(self, entry, module, where):
        import tensorflow as tf

        name, place = entry.get("spec_name"), sys.modules.get(module) if str(module).startswith("tensorflow.") else None
        kind = vars(place).get(name) if place is not None and isinstance(name, str) else None
        if not (isinstance(kind, type) and issubclass(kind, tf.TypeSpec)):
            self._refuse(f"the type '{module}.{name}'", where)

    def _registered(self, name):
        found = allowed_names.registered(name)
        if found is not None:
            self.used[name] = found
        return found

    def _refuse(self, what, where, name=None):
        fix = "load only files whose source you trust"
        if name is not None:
            fix = f"keras.saving.load_model(path, custom_objects={{'{name}': ...}}) if it is yours; {fix}"
        raise ModelError(f"{self.owner} names {what} at {where}; it was not imported.", _LOADABLE, fix)

    def _only_trusted(self, what, where):
        if self.safe_mode:
            raise ModelError(
                f"{self.owner} holds {what} at {where}, which could run any program; it was not loaded.", "what is safe to load", _TRUST
            )


def _short(value):
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
