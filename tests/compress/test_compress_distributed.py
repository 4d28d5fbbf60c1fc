"""Steps under a MirroredStrategy, on two logical devices of one machine; each in a process of its own, as devices are set once."""

import fresh
import pytest

PROGRAM = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfdistill.compress import Cluster, Prune, QuantizeAware
step = {step}
layers = keras.layers
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    adopted = step.apply(keras.Sequential([keras.Input((6, 6, 2)), layers.Conv2D(4, 3), layers.BatchNormalization(), layers.ReLU(),
                                           layers.Flatten(), layers.Dropout(0.2), layers.Dense(3)]))
    adopted.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
x, y = np.random.rand(32, 6, 6, 2).astype("float32"), np.random.randint(0, 3, 32)
adopted.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=step.callbacks())
step.check(adopted)
step.check(step.strip(adopted))
print("held")
"""


# Layers that are computed in forms of their own, whose inner tensors have ranges: in one process, as TensorFlow takes long to start.
FORMS = """
import keras, numpy as np, tensorflow as tf, tfdistill
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
L = keras.layers
inputs = keras.Input((4, 3))
h = L.Dense(4, activation="gelu")(inputs)
attended = L.MultiHeadAttention(2, 4)(h, h)
MODELS = {
    "GRU": L.GRU(4)(inputs),
    "LSTM": L.LSTM(4)(inputs),
    "attention": L.Flatten()(L.LayerNormalization()(L.Add()([h, attended]))),
}
step = tfdistill.compress.QuantizeAware()
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 4, 3)).astype("float32"), rng.integers(0, 3, 32)
for name, end in MODELS.items():
    model = keras.Model(inputs, L.Dense(3)(end), name="net")
    with strategy.scope():
        adopted = step.apply(model)
        adopted.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = [w.numpy() for w in adopted.trainable_weights]
    adopted.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=step.callbacks())
    # No bias of keys has a gradient: softmax takes away what all scores of a row have in common.
    still = [w.path for w, b in zip(adopted.trainable_weights, before, strict=True) if (w.numpy() == b).all() and "key" not in w.path]
    assert not still, (name, still)
    step.check(step.strip(adopted))
    record = tfdistill.export_tflite(step.strip(adopted), name + ".tflite", "int8", verify_on=x)
    print("held by", name, flush=True)
"""


@pytest.mark.slow
def test_layers_with_ranges_inside_train_quantized_on_two_devices(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(FORMS, encoding="utf-8")
    run = fresh.run(program, cwd=tmp_path, env=fresh.several_devices())
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.count("held by") == 3


@pytest.mark.slow
@pytest.mark.parametrize("step", ["Prune(0.5, end_step=4, frequency=1)", "Cluster(4)", "QuantizeAware()"])
def test_a_step_holds_on_two_devices(step, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(step=step), encoding="utf-8")
    run = fresh.run(program, env=fresh.several_devices())
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.endswith("held\n")
