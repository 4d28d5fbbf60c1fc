"""One way of running one small distillation: `two_workers_job.py FILE HOW`, where HOW is alone, mirrored, or worker (one of those that TF_CONFIG names).

The global batch is the same in all of them, so the end must be the same too.
"""

import sys

import keras
import numpy as np
import tensorflow as tf
from small import data, mlp, weights_of

from tfdistill import Distiller
from tfdistill.losses import Hint, LinearSchedule, SoftTargets

BATCH, SAMPLES = 32, 160


def strategy_of(how):
    if how == "worker":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if how == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    return tf.distribute.get_strategy()


def batches(x, y, weights):
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return tf.data.Dataset.from_tensor_slices((x, y, weights)).batch(BATCH).with_options(options)


def main(path, how):
    strategy = strategy_of(how)
    keras.utils.set_random_seed(11)
    x, y = data(SAMPLES)
    weights = np.linspace(0.5, 1.5, SAMPLES).astype("float32")
    with strategy.scope():
        teacher = mlp(24, name="teacher")
        student = mlp(12, name="student", kernel_regularizer=keras.regularizers.L2(0.01))
        losses = [SoftTargets(LinearSchedule(4.0, 2.0, steps=10)), Hint("hidden_0", "hidden_0")]
        distiller = Distiller(teacher, student, losses, [1.0, 0.5])
        distiller.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = distiller.fit(
        batches(x, y, weights), epochs=3, shuffle=False, verbose=0, validation_data=batches(x[:64], y[:64], weights[:64])
    ).history
    scores = distiller.evaluate(batches(x, y, weights), verbose=0, return_dict=True)
    logs = {f"log_{name}": np.array(values) for name, values in history.items()}
    logs.update({f"score_{name}": np.array(value) for name, value in scores.items()})
    trained = [*weights_of(student), *weights_of(distiller.projections)]
    np.savez(path, *trained, replicas=strategy.num_replicas_in_sync, **logs)


if __name__ == "__main__":
    main(*sys.argv[1:])
