"""Functions of Python in the middle of a TensorFlow step, where TensorFlow has one thread to run steps on.

The step holds that thread until the function returns. If the function itself calls a TensorFlow function, as `model.predict` does, that waits for the same
thread: both wait for ever. So it is watched there, and such a call is an error.
"""

import os
import sys
import threading

import tensorflow as tf

from tfdistill.errors import ModelError

# How long a call may take, in seconds, before it is looked at, and again.
_INTERVAL = 1.0


def only_one_thread() -> bool:
    """Whether TensorFlow has one thread for the operations of a step: on a machine of one core, or by the settings."""
    set_by_hand = tf.config.threading.get_inter_op_parallelism_threads()
    if set_by_hand:
        return set_by_hand == 1
    in_environment = os.environ.get("TF_NUM_INTEROP_THREADS", "")
    if in_environment.isdecimal() and int(in_environment):
        return int(in_environment) == 1
    return _cores() == 1


def _cores():
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()


def run_watched(function, argument, who):
    """Calls a function, in a thread of its own, and looks at it every second until it returns.

    Args:
        function: Takes one argument. What it returns or raises is returned or raised.
        argument: Its argument.
        who: Beginning of the error message: who calls it.

    Raises:
        ModelError: if it waits for a TensorFlow function, which cannot run before it returns. It is left to end by itself then.
    """
    result = []

    def call():
        try:
            result.append((function(argument), None))
        except BaseException as error:
            result.append((None, error))

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_INTERVAL)
        if thread.is_alive() and _waits_for_a_step(sys._current_frames().get(thread.ident)):
            raise ModelError(
                f"{who} calls a TensorFlow function (as `model.predict` does), but TensorFlow has one thread alone, which runs the training step that waits "
                "for it.",
                "a function without TensorFlow, such as NumPy's or another framework's",
                "give TensorFlow another thread: TF_NUM_INTEROP_THREADS=2 in the environment, or "
                "tf.config.threading.set_inter_op_parallelism_threads(2) before any other use of TensorFlow; or compile the Distiller with run_eagerly=True",
            )
    returned, error = result[0]
    if error is not None:
        raise error
    return returned


def _waits_for_a_step(frame):
    """Whether the innermost frames of a thread are those of TensorFlow's Python code that runs a function of its own, and waits for it."""
    names = []
    while frame is not None and len(names) < 3:
        names.append((frame.f_globals.get("__name__", ""), frame.f_code.co_name))
        frame = frame.f_back
    return ("tensorflow.python.eager.context", "call_function") in names
