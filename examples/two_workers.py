"""Distils a large network to a small one on two workers of this machine.

    python examples/two_workers.py [--epochs 3]

The script trains a teacher and starts itself twice; each copy reads its rank from TF_CONFIG. To use two machines, start it on each of them
with `--teacher FILE` and a TF_CONFIG that names both. It needs scikit-learn for the digits: pip install "tfdistill[demo]".
"""

import argparse
import json
import os
import pathlib
import socket
import subprocess
import sys
import tempfile

import keras
import tensorflow as tf
from sklearn.datasets import load_digits

from tfdistill import Distiller
from tfdistill.losses import Hint, SoftTargets

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(width, name):
    inputs = keras.Input((64,))
    x = keras.layers.Dense(width, activation="relu", name="hidden")(inputs)
    return keras.Model(inputs, keras.layers.Dense(10)(x), name=name)


def digits():
    """Returns 1,797 digits in global batches of 64, of which every worker trains on its part."""
    images, labels = load_digits(return_X_y=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    data = tf.data.Dataset.from_tensor_slices(((images / 16).astype("float32"), labels.astype("int32")))
    return data.batch(64).with_options(options)


def train_teacher(path):
    keras.utils.set_random_seed(0)
    teacher = net(256, "teacher")
    teacher.compile("adam", LOSS)
    teacher.fit(digits(), epochs=5, shuffle=False, verbose=0)
    teacher.save(path)


def train_student(teacher_path, epochs):
    """Runs on every worker. Models, Distiller and optimizer are created in the strategy's scope; the rest is as on one machine."""
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    keras.utils.set_random_seed(1)
    with strategy.scope():
        teacher = keras.saving.load_model(teacher_path)
        student = net(16, "student")
        distiller = Distiller(teacher, student, [SoftTargets(4.0), Hint("hidden", "hidden")], [1.0, 0.1])
        distiller.compile(keras.optimizers.Adam(0.005), LOSS, metrics=["accuracy"])
    history = distiller.fit(digits(), epochs=epochs, shuffle=False, verbose=0).history
    checksum = float(sum(abs(weight).sum() for weight in student.get_weights()))
    return {"worker": strategy.cluster_resolver.task_id, "accuracy": history["accuracy"][-1], "sum_of_weights": checksum}


def start_two(teacher_path, epochs):
    """Starts both workers, waits for them, and returns 0 if both succeed."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    workers = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    command = [sys.executable, __file__, "--teacher", str(teacher_path), "--epochs", str(epochs)]
    processes = []
    try:
        for index in range(2):
            config = json.dumps({"cluster": {"worker": workers}, "task": {"type": "worker", "index": index}})
            processes.append(subprocess.Popen(command, env={**os.environ, "TF_CONFIG": config}))
        return max(abs(process.wait(timeout=600)) for process in processes)
    finally:
        for process in processes:
            process.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--teacher", help="a trained teacher's .keras file; trained here if it is left out")
    arguments = parser.parse_args()
    if "TF_CONFIG" in os.environ:
        print(json.dumps(train_student(arguments.teacher, arguments.epochs)), flush=True)
        return 0
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.teacher or pathlib.Path(folder) / "teacher.keras"
        if arguments.teacher is None:
            train_teacher(path)
        return start_two(path, arguments.epochs)


if __name__ == "__main__":
    sys.exit(main())
