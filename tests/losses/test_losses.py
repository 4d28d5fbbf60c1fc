"""Every loss of the table: values and gradients against NumPy, precision, weights, compilation and serialization."""

import keras
import numpy as np
import numpy_reference as reference
import pytest
import tensorflow as tf
from test_losses_table import LOGITS, TABLE, every_loss

from tfdistill import losses
from tfdistill.losses import KnowledgeLoss


def close(actual, expected, rtol=2e-5, atol=2e-6):
    """Asserts that a tensor and an array agree."""
    np.testing.assert_allclose(np.asarray(keras.ops.convert_to_numpy(actual), "float64"), expected, rtol=rtol, atol=atol)


def value_and_gradients(case, teacher, student, labels, weights=None):
    """The loss and its gradients in the teacher's and the student's output."""
    teacher, student = tf.convert_to_tensor(teacher), tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch((teacher, student))
        value = case.compute(teacher, student, labels, weights)
    return value, *tape.gradient(value, (teacher, student))


def test_close_can_fail():
    with pytest.raises(AssertionError):
        close(keras.ops.ones(2), np.array([1.0, 1.001]))


def test_numeric_gradient_is_right_where_the_answer_is_known():
    close(reference.numeric_gradient(lambda x: float((x**3).sum()), np.array([1.0, 2.0])), [3.0, 12.0])


@every_loss
def test_value_and_gradient(case):
    teacher, student, labels = case.data()
    value, _, gradient = value_and_gradients(case, teacher, student, labels)
    close(value, case.expected(teacher, student, labels), 1e-9, 1e-9)
    # atol is that of the central differences.
    close(gradient, reference.numeric_gradient(lambda s: case.expected(teacher, s, labels), student), 1e-5, 1e-7)


@every_loss
def test_single_precision(case):
    teacher, student, labels = case.data()
    value, _, gradient = value_and_gradients(case, teacher.astype("float32"), student.astype("float32"), labels)
    assert value.dtype == "float32"
    close(value, case.expected(teacher, student, labels), 1e-5, 2e-6)
    close(gradient, reference.numeric_gradient(lambda s: case.expected(teacher, s, labels), student), 1e-3, 1e-5)


@every_loss
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_computed_in_single(case, dtype):
    teacher, student, labels = case.data()
    teacher, student = (tf.cast(x, dtype) for x in (teacher, student))
    value, _, gradient = value_and_gradients(case, teacher, student, labels)
    assert value.dtype == "float32"
    assert gradient.dtype == dtype
    rounded = (np.asarray(tf.cast(x, "float64")) for x in (teacher, student))
    close(value, case.expected(*rounded, labels), 1e-4, 1e-5)


def test_sides_of_different_precision():
    rng = np.random.default_rng(0)
    teacher, student = rng.normal(size=LOGITS), rng.normal(size=LOGITS).astype("float32")
    close(
        losses.SoftTargets(2.0).compute_loss(teacher, student),
        reference.soft_targets(teacher, student.astype("float64"), np.ones(6), temperature=2.0),
    )


@every_loss
def test_no_gradient_reaches_the_teacher(case):
    _, gradient, _ = value_and_gradients(case, *case.data())
    projects_teacher = "teacher" in case.loss.projections(case.teacher, case.student)
    # Where the teacher's feature is projected the layer learns; the Distiller stops the gradient before it.
    assert (gradient is None) == (not projects_teacher)


@every_loss
def test_equal_sides(case):
    teacher, _, labels = case.data()
    value = float(case.compute(teacher, teacher, labels))
    assert (abs(value) < 1e-9) == case.zero_if_equal


@every_loss
def test_weights(case):
    teacher, student, labels = case.data()
    weights = np.random.default_rng(1).uniform(0.2, 2.0, len(student))
    if len(weights) > 3:
        weights[[1, 3]] = 0.0
    value, _, gradient = value_and_gradients(case, teacher, student, labels, weights)
    close(value, case.expected(teacher, student, labels, weights), 1e-8, 1e-9)
    if len(weights) > 3:
        close(gradient[1], np.zeros_like(student[1]), 0, 1e-9)
    close(case.compute(teacher, student, labels, weights[:, None]), value, 1e-12, 1e-12)


@every_loss
def test_weights_of_one_change_nothing(case):
    teacher, student, labels = case.data()
    close(case.compute(teacher, student, labels, np.ones(len(student))), float(case.compute(teacher, student, labels)), 1e-12, 1e-12)


@pytest.mark.parametrize("case", [param for param in TABLE if param.values[0].position_weights])
def test_weights_of_positions(case):
    teacher, student, labels = case.data()
    positions = student.shape[2] if student.ndim == 4 else student.shape[1]
    weights = np.random.default_rng(1).uniform(0.2, 2.0, (len(student), positions))
    close(case.compute(teacher, student, labels, weights), case.expected(teacher, student, labels, weights), 1e-8, 1e-9)


@every_loss
def test_the_rest_of_a_batch_equals_a_batch_with_absent_samples(case):
    """With weight 0 a sample is absent, but for the batch size (for relations, the number of pairs) that the sum is divided by."""
    teacher, student, labels = case.data()
    weights = np.ones(len(student))
    weights[-1] = 0.0
    full = float(case.compute(teacher, student, labels, weights))
    changed = student.copy()
    changed[-1] = changed[-1][..., ::-1] * 0.9 + 0.01
    close(case.compute(teacher, changed, labels, weights), full, 1e-9, 1e-9)


def check_compiled(case):
    """Traced with a batch of None, then compiled by XLA: value and gradient."""
    teacher, student, labels = case.data()
    signature = [tf.TensorSpec((None, *x.shape[1:]), "float32") for x in (teacher, student)]

    @tf.function(input_signature=signature, jit_compile=True)
    def compiled(t, s):
        value = case.compute(t, s, labels)
        return value, tf.gradients(value, s)[0]

    value, gradient = compiled(teacher.astype("float32"), student.astype("float32"))
    close(value, case.expected(teacher, student, labels), 1e-4, 1e-5)
    close(gradient, reference.numeric_gradient(lambda s: case.expected(teacher, s, labels), student), 1e-3, 1e-5)


@every_loss
@pytest.mark.slow
def test_compiled_by_xla(case):
    check_compiled(case)


@pytest.mark.parametrize("case", [p for p in TABLE if p.id in ("kl", "dist", "hint-pooled", "similarity")])
def test_some_compiled_by_xla(case):
    check_compiled(case)


@every_loss
def test_graph_with_an_unknown_batch_size(case):
    teacher, student, labels = case.data()
    graph = tf.function(
        lambda t, s: case.compute(t, s, labels),
        input_signature=[tf.TensorSpec((None, *x.shape[1:]), "float64") for x in (teacher, student)],
    )
    close(graph(teacher, student), case.expected(teacher, student, labels), 1e-9, 1e-9)


@every_loss
def test_serialization(case):
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(case.loss))
    assert again == case.loss
    assert again is not case.loss
    assert hash(again) == hash(case.loss)
    assert repr(again) == repr(case.loss)
    named = type(case.loss).from_config({**case.loss.get_config(), "teacher_layer_name": "a/b", "student_layer_name": "c"})
    assert named != case.loss
    assert (named.teacher_layer_name, named.student_layer_name) == ("a/b", "c")
    assert "teacher_layer_name='a/b'" in repr(named)


@every_loss
def test_a_configuration_with_the_former_names_of_the_layers_still_loads(case):
    config = {**case.loss.get_config(), "teacher_layer_name": "a/b", "student_layer_name": "c"}
    former = {
        {"teacher_layer_name": "teacher_layer", "student_layer_name": "student_layer"}.get(name, name): v for name, v in config.items()
    }
    loaded = keras.saving.deserialize_keras_object({**keras.saving.serialize_keras_object(case.loss), "config": former})
    assert loaded == type(case.loss).from_config(config)
    assert loaded.get_config() == config


@every_loss
def test_valid_outputs_pass_the_checks(case):
    teacher, student, _ = case.data()
    case.loss.validate_outputs(keras.KerasTensor((None, *case.teacher[1:])), keras.KerasTensor((None, *case.student[1:])))
    case.loss.validate_outputs([teacher], {"only": student})
    case.loss.check_first_batch(teacher, student)


@every_loss
def test_per_sample_losses_average_to_the_loss(case):
    teacher, student, labels = case.data()
    if type(case.loss).batch_loss is not KnowledgeLoss.batch_loss:
        with pytest.raises(ValueError, match="no loss per sample"):
            case.loss.per_sample(teacher, student, step=case.step, labels=labels)
        return
    each = case.loss.per_sample(teacher, student, step=case.step, labels=labels)
    assert each.shape == (len(student),)
    close(np.mean(each), float(case.compute(teacher, student, labels)), 1e-9, 1e-12)
