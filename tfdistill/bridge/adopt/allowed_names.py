"""Which classes, functions and TensorFlow operations the config of a saved model may name.

Nothing is imported to find out: what a name stands for is looked up among what is loaded and registered already.
"""

import functools
import inspect
import sys

import keras

from tfdistill.bridge import imports

# Modules in which Keras 3 and tf_keras look for functions that a config names without their module.
FUNCTION_MODULES = ("activations", "losses", "metrics", "initializers", "regularizers", "constraints")
_NO_FUNCTIONS_OF_A_MODEL = ("get", "serialize", "deserialize")

# Public modules of Keras 3 and tf_keras -> the base class of what each of them holds.
_BASES = {
    "layers": "Layer",
    "initializers": "Initializer",
    "regularizers": "Regularizer",
    "constraints": "Constraint",
    "losses": "Loss",
    "metrics": "Metric",
    "optimizers": "Optimizer",
    "optimizers.schedules": "LearningRateSchedule",
}
# Private modules whose classes tf_keras and TFMOT name in their own configs.
_PRIVATE = (
    *imports.MODULES_IN_CONFIGS,
    "tensorflow_model_optimization.python.core.sparsity.keras.pruning_schedule",
)
_PACKAGES = ("keras", "tf_keras", "tensorflow_model_optimization")

# TensorFlow operations that compute from their arguments alone: no files, no processes, no Python functions.
_OPERATION_MODULES = (
    "__operators__",
    "bitwise",
    "dtypes",
    "image",
    "linalg",
    "math",
    "nn",
    "quantization",
    "ragged",
    "sets",
    "signal",
    "sparse",
    "strings",
)
_OPERATIONS = """
    abs acos acosh add add_n argmax argmin argsort asin asinh atan atan2 atanh batch_to_space bitcast boolean_mask broadcast_dynamic_shape
    broadcast_static_shape broadcast_to cast clip_by_global_norm clip_by_norm clip_by_value complex concat constant convert_to_tensor cos cosh cumsum divide
    dynamic_partition dynamic_stitch edit_distance eig eigvals einsum ensure_shape equal exp expand_dims extract_volume_patches eye fill floor
    gather gather_nd greater greater_equal histogram_fixed_width identity identity_n less less_equal linspace logical_and
    logical_not logical_or matmul matrix_square_root maximum meshgrid minimum multiply negative norm not_equal one_hot ones ones_like pad parallel_stack pow
    range rank realdiv reduce_all reduce_any reduce_logsumexp reduce_max reduce_mean reduce_min reduce_prod reduce_sum repeat reshape reverse
    reverse_sequence roll round saturate_cast scalar_mul scatter_nd searchsorted sequence_mask shape shape_n sigmoid sign sin sinh size slice sort
    space_to_batch space_to_batch_nd split sqrt square squeeze stack stop_gradient strided_slice subtract tan tanh tensor_scatter_nd_add
    tensor_scatter_nd_max tensor_scatter_nd_min tensor_scatter_nd_sub tensor_scatter_nd_update tensordot tile transpose truediv truncatediv truncatemod unique
    unique_with_counts unravel_index unstack where zeros zeros_like debugging.check_numerics random.categorical random.gamma random.normal random.poisson
    random.shuffle random.stateless_normal random.stateless_truncated_normal random.stateless_uniform random.truncated_normal random.uniform
"""
# Classes whose methods and properties a model may use in its graph.
TENSOR_CLASSES = ("RaggedTensor", "SparseTensor", "Tensor")


def registered(name):
    """Returns what is registered under a name with Keras or tf_keras, or is in one of their open scopes; None if nothing is."""
    if not isinstance(name, str):
        return None
    for saving in (imports.tf_keras().saving, keras.saving):
        found = saving.get_registered_object(name)
        if found is not None:
            return found
    return None


def classes(name, module=None):
    """Lists the classes of Keras, tf_keras and TFMOT that a config's `class_name` and `module` may stand for.

    Only classes of what a model is made of are listed: layers, initializers, regularizers, constraints, losses, metrics, optimizers and the like.

    Args:
        name: The class's name.
        module: The module's name, or None where the config has none: then every module counts in which a reader may look.
    """
    if module is None:
        found = [_public(place, name) for place in _public_modules()]
        found += [vars(sys.modules[place]).get(name) for place in _PRIVATE if place in sys.modules]
    elif module.partition(".")[0] in _PACKAGES:
        found = [_symbol(f"{module}.{name}")]
        # tf_keras reads "keras" as its own name.
        for place in (module, f"tf_{module}" if module.startswith("keras") else module):
            found.append(vars(sys.modules[place]).get(name) if place in sys.modules else None)
    else:
        found = []
    return [
        kind for kind in found if inspect.isclass(kind) and issubclass(kind, _kinds()) and kind.__module__.partition(".")[0] in _PACKAGES
    ]


def functions(name, module=None):
    """Lists the functions of Keras and tf_keras that a config's function name and `module` may stand for."""
    if name in _NO_FUNCTIONS_OF_A_MODEL:
        return []
    modules = [m for m in FUNCTION_MODULES if module in (None, "builtins", f"keras.{m}", f"tf_keras.{m}")]
    found = [_public(getattr(package, m), name) for m in modules for package in (keras, imports.tf_keras())]
    if module == "keras.ops":
        found.append(_public(keras.ops, name))
    return [function for function in found if inspect.isfunction(function)]


def is_operation(name):
    """Whether a TensorFlow operation, such as `"nn.relu"` or `"concat"`, computes from its arguments alone."""
    if not isinstance(name, str):
        return False
    short = name.removeprefix("compat.v1.")
    # Experimental ones quantize whole files; a candidate sampler may read its vocabulary from one.
    module = short.partition(".")[0] in _OPERATION_MODULES and ".experimental." not in short and not short.endswith("_candidate_sampler")
    known = short in _OPERATIONS.split() or ("." in short and module)
    return known and callable(_symbol(name)) and not inspect.isclass(_symbol(name))


def _symbol(name):
    """Returns the symbol that TensorFlow or tf_keras exports under a name; the one place that reads TensorFlow's private table."""
    from tensorflow.python.util import tf_export

    return tf_export.get_symbol_from_name(name)


def _public(place, name):
    return None if name.startswith("_") else getattr(place, name, None)


def _public_modules():
    for package in (keras, imports.tf_keras()):
        yield package
        yield from (_inside(package, module) for module in _BASES)
    yield imports.tf_keras().optimizers.legacy
    yield imports.tf_keras().mixed_precision


def _inside(package, path):
    return functools.reduce(getattr, path.split("."), package)


@functools.cache
def _kinds():
    """The base classes of what a model is made of."""
    imports.tfmot()
    from tensorflow_model_optimization.python.core.sparsity.keras import pruning_schedule

    tfk = imports.tf_keras()
    bases = [_inside(package, f"{module}.{name}") for package in (keras, tfk) for module, name in _BASES.items()]
    bases += [
        keras.Operation,
        keras.DTypePolicy,
        keras.dtype_policies.DTypePolicyMap,
        keras.quantizers.Quantizer,
        keras.random.SeedGenerator,
    ]
    bases += [tfk.optimizers.legacy.Optimizer, tfk.mixed_precision.Policy, pruning_schedule.PruningSchedule]
    return tuple(bases)
