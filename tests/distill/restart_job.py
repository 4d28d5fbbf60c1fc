"""A training script that can be killed: `restart_job.py FOLDER [EPOCH BATCH]` kills itself with SIGKILL at that batch."""

import os
import pathlib
import signal
import sys

import keras
import numpy as np
from small import Dropped, data, mlp, weights_of

from tfdistill import Distiller
from tfdistill.losses import Hint, LinearSchedule, SoftTargets


class Kill(keras.callbacks.Callback):
    """kill -9 in the middle of an epoch."""

    def __init__(self, epoch, batch):
        super().__init__()
        self.at, self.epoch = (epoch, batch), None

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


def main(folder, kill_at):
    keras.utils.set_random_seed(11)
    x, y = data(96)
    teacher, student = mlp(24, name="teacher"), Dropped()
    student(x)
    distiller = Distiller(teacher, student, [SoftTargets(LinearSchedule(4.0, 2.0, steps=20)), Hint("hidden_0", "hidden")], [1.0, 0.5])
    distiller.compile(keras.optimizers.Adam(0.01), loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    callbacks = [keras.callbacks.BackupAndRestore(folder / "backup"), *([Kill(*kill_at)] if kill_at else [])]
    history = distiller.fit(x, y, batch_size=16, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
    # Batch normalization, dropout's random state, the projection and the optimizer are all part of what must come back.
    everything = [*weights_of(student), *weights_of(distiller.projections), *[v.numpy() for v in distiller.optimizer.variables]]
    np.savez(folder / "end.npz", *everything, loss=history.history["loss"][-1], epochs=len(history.history["loss"]))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), tuple(map(int, sys.argv[2:4])))
