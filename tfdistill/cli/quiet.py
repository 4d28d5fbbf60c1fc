"""Keeps what TensorFlow prints when it starts off the terminal, unless the user asks for it."""

import os
import sys
import warnings

_state = {"verbose": False}


def set_verbose(verbose):
    """Sets whether TensorFlow's messages are shown. Called before anything imports TensorFlow."""
    _state["verbose"] = verbose
    if not verbose:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


def quiet_start():
    """Imports TensorFlow and Keras and starts its devices; without `-v` their greetings are not shown, and warnings are one line each."""
    if _state["verbose"]:
        return
    from tfdistill.runtime.capture import captured_output

    with captured_output():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.constant(0)  # the devices are looked for at the first tensor
    warnings.showwarning = _show_warning


def _show_warning(message, category, filename, lineno, file=None, line=None):
    print(f"Warning: {message}", file=sys.stderr)
