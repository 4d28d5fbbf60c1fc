"""Trains under a callable that runs a TensorFlow function: `python two_threads_job.py [THREADS]`. With THREADS, the setting is made here."""

import sys

import keras
import numpy as np
import tensorflow as tf

import tfdistill

if len(sys.argv) > 1:
    tf.config.threading.set_inter_op_parallelism_threads(int(sys.argv[1]))


def net(name):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)], name=name)


wide = net("wide")
teacher = tfdistill.distill.CallableTeacher(lambda x: wide.predict(x, verbose=0))
distiller = tfdistill.Distiller(teacher, net("student"), tfdistill.losses.SoftTargets(), student_loss_weight=0.0)
distiller.compile("sgd")
distiller.fit(np.ones((8, 4), "float32"), verbose=0)
print("trained")
