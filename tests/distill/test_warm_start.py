"""Warm starts: which layers are paired, what is copied to the bit, and what a narrower layer computes."""

import keras
import numpy as np
import pytest
from block_models import auto_named, flat_transformer, named_halves, nested_blocks, of_blocks, stages
from small import CLASSES, Subclassed, data, mlp, weights_of

from tfdistill.demo.datasets import digits
from tfdistill.distill.initialization import warm_start as initialization_warm_start
from tfdistill.distill.initialization.warm_start import WarmStartRecord, warm_start
from tfdistill.errors import ConfigurationError, ModelError

# Model builder, depths of teacher and student, and some pairs that must be found (student's layer to teacher's).
ALTERNATE = {
    "functional": (flat_transformer, 6, 3, {"block_1_norm_a": "block_2_norm_a", "block_2_narrow": "block_4_narrow", "embed": "embed"}),
    "functional, uneven": (flat_transformer, 5, 3, {"block_1_wide": "block_1_wide", "block_2_wide": "block_3_wide"}),
    "functional, one block": (flat_transformer, 4, 1, {"block_0_attention/query": "block_0_attention/query", "first_norm": "first_norm"}),
    "nested": (nested_blocks, 4, 2, {"block_1/body/b": "block_2/body/b", "head": "head"}),
    "subclassed": (of_blocks, 4, 2, {"block_1/up": "block_2/up", "block_1/norm": "block_2/norm", "embed": "embed"}),
    "halves distinguished by names": (named_halves, 4, 2, {"block_1_a": "block_2_a", "block_1_b": "block_2_b"}),
    "two stages": (
        stages,
        4,
        2,
        {"stage_0_block_1_conv": "stage_0_block_2_conv", "stage_1_block_1_norm": "stage_1_block_2_norm", "head": "head"},
    ),
}


@pytest.mark.parametrize("case", ALTERNATE.values(), ids=ALTERNATE)
def test_alternate_pairs_blocks_by_order_and_copies_to_the_bit(case):
    build, deep, shallow, expected = case
    teacher, student = build(deep, name="teacher"), build(shallow, name="student")
    before = weights_of(teacher)
    record = warm_start(student, teacher)
    found = {row.student: row.teacher for row in record.copied}
    assert {s: found.get(s) for s in expected} == expected, str(record)
    assert not record.left, str(record)
    assert len(record.copied) == len(record.layers)
    for layer in record.copied:
        a, b = (initialization_warm_start.find_layer(m, p).weights for m, p in ((student, layer.student), (teacher, layer.teacher)))
        assert all(np.array_equal(x, y) for x, y in zip(a, b, strict=True)), layer
    for a, b in zip(before, weights_of(teacher), strict=True):
        np.testing.assert_array_equal(a, b)


def test_default_names_are_enough():
    teacher, student = auto_named(4, name="teacher"), auto_named(2, name="student")
    record = warm_start(student, teacher)
    assert [row.teacher for row in record.copied] == [teacher.layers[i].name for i in (1, 2, 4, 6)]


def test_a_student_of_the_teachers_form_becomes_the_teacher():
    x, _ = data()
    teacher, student = mlp(12, 12, 12, name="teacher"), mlp(12, 12, 12, name="student")
    warm_start(student, teacher)
    np.testing.assert_array_equal(student.predict(x, verbose=0), teacher.predict(x, verbose=0))


def linear(*widths, features=8):
    x = inputs = keras.Input((features,))
    for i, width in enumerate(widths):
        x = keras.layers.Dense(width, name=f"dense_{i}", bias_initializer="normal")(x)
    return keras.Model(inputs, keras.layers.Dense(CLASSES, name="logits")(x))


def test_two_linear_layers_compose_to_the_truncated_svd():
    teacher, student = linear(20), linear(6)
    warm_start(student, teacher, {"dense_0": "dense_0", "logits": "logits"})
    w1, b1, w2, b2 = (w.astype("float64") for w in weights_of(teacher))
    _, s, vt = np.linalg.svd(w1, full_matrices=False)
    projection = vt[:6].T @ vt[:6]
    v1, c1, v2, c2 = weights_of(student)
    np.testing.assert_allclose(v1 @ v2, w1 @ projection @ w2, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(v1), np.linalg.norm(s[:6]), rtol=1e-5)
    np.testing.assert_allclose(c1 @ v2, b1 @ projection @ w2, atol=1e-5)
    np.testing.assert_array_equal(c2, b2.astype("float32"))


def test_nothing_is_lost_where_the_rank_suffices():
    # Eight features in, so no space behind them has more than eight directions.
    x, _ = data()
    teacher, student = linear(32, 24), linear(9, 9)
    for layer in teacher.layers[1:]:
        layer.bias.assign(np.zeros(layer.bias.shape))
    record = warm_start(student, teacher, {n: n for n in ("dense_0", "dense_1", "logits")})
    np.testing.assert_allclose(student.predict(x, verbose=0), teacher.predict(x, verbose=0), atol=1e-4)
    assert round(record.narrowed[0].kept_energy, 5) == 1.0


def convolutional(width, name):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(width, 3, padding="same", name="conv"),
            layers.BatchNormalization(name="norm"),
            layers.DepthwiseConv2D(3, padding="same", name="depthwise"),
            layers.SeparableConv2D(width, 3, padding="same", name="separable"),
            layers.Conv2DTranspose(width, 2, strides=2, name="transposed"),
            layers.AveragePooling2D(8),
            layers.Flatten(name="flatten"),
            layers.Dense(CLASSES, name="logits"),
        ],
        name=name,
    )


def test_convolutions_and_normalization_are_narrowed_in_the_basis_of_what_writes_them():
    teacher, student = convolutional(12, "teacher"), convolutional(5, "student")
    rng = np.random.default_rng(0)
    teacher.get_layer("norm").set_weights([rng.uniform(0.5, 2.0, 12) for _ in range(4)])
    names = ["conv", "norm", "depthwise", "separable", "transposed", "logits"]
    record = warm_start(student, teacher, {n: n for n in names})
    assert [r.student for r in record.narrowed] == names, str(record)
    kernel = teacher.get_layer("conv").kernel.numpy().astype("float64").reshape(-1, 12)
    vectors = np.linalg.svd(kernel, full_matrices=False)[2][:5].T
    ours = student.get_layer("conv").kernel.numpy().reshape(-1, 5)
    np.testing.assert_allclose(np.abs(ours), np.abs(kernel @ vectors), atol=1e-5)
    gamma, _, mean, variance = teacher.get_layer("norm").get_weights()
    own = student.get_layer("norm").get_weights()
    np.testing.assert_allclose(own[0], (vectors**2).T @ gamma, rtol=1e-4)
    np.testing.assert_allclose(np.abs(own[2]), np.abs(mean @ vectors), rtol=1e-4)
    np.testing.assert_allclose(own[3], (vectors**2).T @ variance, rtol=1e-4)
    depthwise = teacher.get_layer("depthwise").kernel.numpy()
    np.testing.assert_allclose(
        student.get_layer("depthwise").kernel.numpy()[..., 0], np.einsum("hwcm,ck->hwk", depthwise, vectors**2), atol=1e-5
    )
    # 2 x 2 positions are flattened: each has the same channels.
    assert student.get_layer("logits").kernel.shape == (4 * 5, CLASSES)
    assert np.isfinite(student.predict(np.ones((2, 8, 8, 2), "float32"), verbose=0)).all()


def test_a_residual_stream_has_one_basis():
    teacher, student = flat_transformer(4, 16, "teacher"), flat_transformer(2, 6, "student")
    record = warm_start(student, teacher)
    assert not record.left, str(record)
    # All that write into the stream, of the blocks that were chosen, are seen in one basis.
    writers = ["embed", *(f"block_{i}_{part}" for i in (0, 2) for part in ("attention", "narrow"))]

    def kernel(model, name):
        layer = model.get_layer(name)
        matrix = (layer.output_dense if name.endswith("attention") else layer).kernel.numpy()
        return matrix.reshape(-1, matrix.shape[-1]).astype("float64")

    basis = np.linalg.svd(np.concatenate([kernel(teacher, name) for name in writers]))[2][:6].T
    for name, source in (("embed", "embed"), ("block_0_attention", "block_0_attention"), ("block_1_attention", "block_2_attention")):
        np.testing.assert_allclose(np.abs(kernel(student, name)), np.abs(kernel(teacher, source) @ basis), atol=1e-5)


REFUSED = {
    "misspelt student": (lambda: warm_start(mlp(4), mlp(4), {"hiden_0": "hidden_0"}), ModelError, "hidden_0"),
    "misspelt teacher": (lambda: warm_start(mlp(4), mlp(4), {"hidden_0": "hidden0"}), ModelError, "Nearest: 'hidden_0'"),
    "other kind": (
        lambda: warm_start(mlp(4), convolutional(4, "teacher"), {"hidden_0": "norm"}),
        ModelError,
        "Dense.*cannot get the weights of.*BatchNormalization",
    ),
    "wider only": (lambda: warm_start(mlp(9), mlp(4), {"hidden_0": "hidden_0"}), ModelError, "the student's is wider"),
    "nothing alike": (lambda: warm_start(mlp(5), mlp(4, 7)), ModelError, "Neither repeated blocks nor equal layers"),
    "more blocks than the teacher": (lambda: warm_start(of_blocks(4), of_blocks(3)), ModelError, "at most as many"),
    "one model": (lambda: (lambda m: warm_start(m, m))(mlp(4)), ModelError, "one and the same"),
    "unbuilt": (lambda: warm_start(Subclassed(), mlp(4)), ModelError, "not built"),
    "no model": (lambda: warm_start(mlp(4), keras.layers.Dense(3)), ModelError, "a Keras 3 model"),
    "unknown word": (lambda: warm_start(mlp(4), mlp(4), "every other"), ConfigurationError, '"alternate"'),
    "no pairs": (lambda: warm_start(mlp(4), mlp(4), {}), ConfigurationError, "a dict of student layer"),
    "twice": (
        lambda: warm_start(of_blocks(2), of_blocks(2), {"block_0": "block_0", "block_0/up": "block_1/up"}),
        ConfigurationError,
        "given twice",
    ),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_is_refused(case):
    act, kind, words = case
    with pytest.raises(kind, match=words):
        act()


def test_what_is_left_is_said_with_its_reason():
    teacher, student = mlp(8, 6, name="teacher"), mlp(4, 9, name="student")
    record = warm_start(student, teacher, {"hidden_0": "hidden_0", "hidden_1": "hidden_1"})
    reasons = {r.student: r.reason for r in record.left}
    assert "wider" in reasons["hidden_1"]
    assert reasons["logits"] == "not asked for"
    assert "hidden_0: narrowed from hidden_0" in str(record)


def test_nothing_changes_if_an_error_occurs():
    teacher, student = mlp(8, 8, name="teacher"), mlp(8, 8, name="student")
    before = weights_of(student)
    kernel = student.get_layer("hidden_1").kernel

    class Refusing:
        """A weight that cannot be written."""

        shape, dtype = kernel.shape, kernel.dtype

        def assign(self, value):
            raise RuntimeError("the disk is full")

        def __array__(self, dtype=None, copy=None):
            return kernel.numpy()

    values = [(student.get_layer("hidden_0").kernel, np.ones((8, 8))), (Refusing(), np.ones((8, 8)))]
    with pytest.raises(RuntimeError, match="disk"):
        initialization_warm_start._assign(values)
    with pytest.raises(ModelError):
        warm_start(student, teacher, {"hidden_0": "hidden_0", "hidden_1": "nowhere"})
    for a, b in zip(before, weights_of(student), strict=True):
        np.testing.assert_array_equal(a, b)


def test_record_is_written_and_read(tmp_path):
    record = warm_start(mlp(4, name="student"), mlp(8, name="teacher"), {"hidden_0": "hidden_0"})
    assert WarmStartRecord.load(record.save(tmp_path / "start.json")) == record


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16"])
def test_low_precision_students(policy):
    teacher = mlp(8, name="teacher")
    student = mlp(8, name="student", dtype=policy)
    warm_start(student, teacher, {"hidden_0": "hidden_0"})
    ours = np.asarray(student.get_layer("hidden_0").kernel.value, "float32")
    np.testing.assert_allclose(ours, teacher.get_layer("hidden_0").kernel.numpy(), rtol=0.01 if policy == "bfloat16" else 0)


def two_headed(width):
    inputs = keras.Input((8,))
    x = keras.layers.Dense(width, name="trunk")(inputs)
    return keras.Model(inputs, [keras.layers.Dense(3, name="kind")(x), keras.layers.Dense(4, name="size")(x)])


def test_two_heads_read_one_narrowed_trunk():
    x, _ = data()
    teacher, student = two_headed(20), two_headed(8)
    warm_start(student, teacher, {n: n for n in ("trunk", "kind", "size")})
    for a, b in zip(student.predict(x, verbose=0), teacher.predict(x, verbose=0), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_a_narrowed_student_knows_more_than_chance_before_any_training():
    found = digits()

    def net(width, name):
        layers = keras.layers
        return keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(width, 3, padding="same", use_bias=False, name="conv_0"),
                layers.BatchNormalization(momentum=0.9, name="norm_0"),
                layers.ReLU(),
                layers.Conv2D(2 * width, 3, strides=2, padding="same", use_bias=False, name="conv_1"),
                layers.BatchNormalization(momentum=0.9, name="norm_1"),
                layers.ReLU(),
                layers.Flatten(),
                layers.Dense(10, name="logits"),
            ],
            name=name,
        )

    teacher, student = net(32, "teacher"), net(8, "student")
    teacher.compile(keras.optimizers.Adam(3e-3), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile=False)
    teacher.fit(found.x_train, found.y_train, epochs=12, batch_size=64, verbose=0)
    warm_start(student, teacher, {name: name for name in ("conv_0", "norm_0", "conv_1", "norm_1", "logits")})
    accuracy = (student.predict(found.x_test, verbose=0).argmax(-1) == found.y_test).mean()
    assert accuracy > 0.4
