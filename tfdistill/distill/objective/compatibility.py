"""Shape compatibility of teacher and student: what can be checked before there is data."""

import keras
import tensorflow as tf

from tfdistill.errors import ModelError
from tfdistill.graph.layers import all_layers


def check_models(teacher, student, compare_outputs):
    """Checks the two models of a distiller against each other as far as their shapes are known.

    Args:
        teacher: Must be a `keras.Model`.
        student: Must be a `keras.Model`, and another one.
        compare_outputs: Whether a loss compares the final outputs, so that they must match.

    Raises:
        ModelError: naming both sides.
    """
    for role, model in (("Teacher", teacher), ("Student", student)):
        if not isinstance(model, keras.Model):
            raise ModelError(f"{role} must be a keras.Model, got {type(model)}.", fix="a tf_keras model is taken as tfdistill.adopt(model)")
    if teacher is student:
        raise ModelError("Teacher and student are one and the same model.", "two models", "keras.models.clone_model makes a second one")
    if any(layer is student for layer in all_layers(teacher)):
        raise ModelError(f"The student '{student.name}' is a part of the teacher '{teacher.name}', which is frozen.", "two models")
    for what, teacher_specs, student_specs in (
        ("input", _specs(teacher, "inputs"), _specs(student, "inputs")),
        ("output", _specs(teacher, "outputs"), _specs(student, "outputs")),
    ):
        if teacher_specs is None or student_specs is None or (what == "output" and not compare_outputs):
            continue
        if len(teacher_specs) != len(student_specs) or not all(
            _compatible(a.shape, b.shape) for a, b in zip(teacher_specs, student_specs, strict=True)
        ):
            fix = (
                "give both models the same number of classes"
                if what == "output"
                else "put the resizing that one of them needs inside that model"
            )
            raise ModelError(
                f"Teacher and student {what} shapes do not match. Teacher '{teacher.name}': {_shapes(teacher_specs)}. Student '{student.name}': {_shapes(student_specs)}.",
                "equal shapes",
                fix,
            )


def check_teacher_built(teacher):
    """Refuses a teacher that was never built: it has no weights, so it cannot be trained."""
    if not teacher.built:
        raise ModelError(
            f"The teacher '{teacher.name}' is not built: it has no weights yet.",
            "a trained teacher",
            "train it or load its weights first",
        )


def input_spec(model):
    """Returns the structure of a model's inputs as `tf.TensorSpec`s, or None where it is not known yet (a subclassed or unbuilt model)."""
    own = getattr(model, "input_spec_structure", None)
    if callable(own):
        structure = own()
        return None if structure is None else keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), structure)
    if _specs(model, "inputs") is None:
        return None
    # Only a functional model knows the structure (a list, a dict) in which its inputs come; a Sequential has one.
    inputs = model.inputs[0] if isinstance(model, keras.Sequential) else model.input
    return keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape, t.dtype), inputs)


def output_specs(taps, spec):
    """Finds the shapes of a tapped model's outputs without computing them.

    Args:
        taps: `Taps`.
        spec: Structure of `tf.TensorSpec`.

    Returns:
        What `taps(inputs)` returns, with `tf.TensorSpec` in place of tensors.
    """
    traced = tf.function(lambda inputs: taps(inputs, training=False), autograph=False).get_concrete_function(spec)
    return traced.structured_outputs


def _specs(model, name):
    # A subclassed model has none; an unbuilt Sequential has an empty list.
    specs = getattr(model, name, None)
    return keras.tree.flatten(specs) if specs else None


def _compatible(a, b):
    return len(a) == len(b) and all(x is None or y is None or x == y for x, y in zip(a, b, strict=True))


def _shapes(specs):
    shapes = [tuple(s.shape) for s in specs]
    return shapes[0] if len(shapes) == 1 else shapes
