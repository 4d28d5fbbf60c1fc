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


RECURRENT = """
import keras, numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from tfdistill.compress import QuantizeAware
step = QuantizeAware()
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    adopted = step.apply(keras.Sequential([keras.Input((4, 3)), keras.layers.GRU(4), keras.layers.Dense(3)]))
    adopted.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
rng = np.random.default_rng(0)
x, y = rng.normal(size=(32, 4, 3)).astype("float32"), rng.integers(0, 3, 32)
before = [w.numpy() for w in adopted.trainable_weights]
adopted.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=step.callbacks())
assert all((w.numpy() != b).any() for w, b in zip(adopted.trainable_weights, before, strict=True))
step.check(step.strip(adopted))
import tfdistill
tfdistill.export_tflite(step.strip(adopted), "recurrent.tflite", "int8", verify_on=x)
print("held")
"""


@pytest.mark.slow
def test_a_recurrent_layer_trains_quantized_on_two_devices(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(RECURRENT, encoding="utf-8")
    run = fresh.run(program, cwd=tmp_path, env=fresh.several_devices())
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.endswith("held\n")


@pytest.mark.slow
@pytest.mark.parametrize("step", ["Prune(0.5, end_step=4, frequency=1)", "Cluster(4)", "QuantizeAware()"])
def test_a_step_holds_on_two_devices(step, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(step=step), encoding="utf-8")
    run = fresh.run(program, env=fresh.several_devices())
    assert run.returncode == 0, run.stderr[-2000:]
    assert run.stdout.endswith("held\n")
