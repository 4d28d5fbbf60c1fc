"""Runs a .tflite file for the core of the Android kit: reads the bytes of all inputs, answers with those of all outputs, until its input ends.

Inputs and outputs have the order of the file, as in `model.json`.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter

interpreter = Interpreter(sys.argv[1])
interpreter.allocate_tensors()
while True:
    for entry in interpreter.get_input_details():
        kind = np.dtype(entry["dtype"])
        content = sys.stdin.buffer.read(int(np.prod(entry["shape"])) * kind.itemsize)
        if not content:
            sys.exit()
        interpreter.set_tensor(entry["index"], np.frombuffer(content, kind).reshape(entry["shape"]))
    interpreter.invoke()
    for output in interpreter.get_output_details():
        sys.stdout.buffer.write(interpreter.get_tensor(output["index"]).tobytes())
    sys.stdout.buffer.flush()
