"""Measures which operations XNNPACK, the interpreter's own kernels and tflite-micro take, and writes the tables: `make operations`."""

import contextlib
import importlib.metadata
import json
import os

import numpy as np
from one_operation import OPERATIONS, one_operation

from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.operations import FOLDER

# Higher than the newest version of any of these operations.
NEWEST_VERSION = 13
# More than any of these files needs; tflite-micro's own guess is too small for some.
ARENA_BYTES = 1 << 20


def in_litert(content, xnnpack):
    """Opens and runs a file; returns its `Delegation`. Raises if the interpreter does not have the operation in that type."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.AUTO if xnnpack else OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_content=content, num_threads=1, experimental_op_resolver_type=kernels)
    interpreter.allocate_tensors()
    for details in interpreter.get_input_details():
        interpreter.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
    interpreter.invoke()
    return delegation(interpreter)


def in_micro(content):
    """Opens and runs a file in tflite-micro; raises if it does not have the operation in that type."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=ARENA_BYTES)
    for index in range(_inputs(content)):
        details = interpreter.get_input_details(index)
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), index)
    interpreter.invoke()


TAKES = {
    "xnnpack": lambda content: in_litert(content, True).delegated == 1,
    "builtin": lambda content: in_litert(content, False).delegated == 0,
    "micro": lambda content: in_micro(content) is None,
}
RUNTIMES = {"xnnpack": "ai-edge-litert", "builtin": "ai-edge-litert", "micro": "tflite-micro"}


def measured(target):
    """Returns a dict of operation name to the list of the types in which a target takes it."""
    return {operation.key: [kind for kind in operation.types if _takes(target, operation, kind)] for operation in OPERATIONS}


def runtime_of(target):
    """Returns the name and version of the package that a target is measured in."""
    return f"{RUNTIMES[target]} {importlib.metadata.version(RUNTIMES[target])}"


def write_table(target, runtime, source, operations):
    """Writes the table of a target, one operation in a line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(types)}" for name, types in operations.items())
    head = "".join(
        f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in dict(target=target, runtime=runtime, source=source).items()
    )
    (FOLDER / f"{target}.json").write_text(f'{{\n{head}"operations": {{\n{rows}\n}}\n}}\n', encoding="utf-8")


def _takes(target, operation, kind):
    # A runtime has each operation in a range of versions; which one has a type is not known beforehand.
    for version in range(1, NEWEST_VERSION):
        with contextlib.suppress(Exception):  # the class of the exception depends on the native code
            if TAKES[target](one_operation(operation, kind, version)):
                return True
    return False


def _inputs(content):
    from tfdistill.runtime.schema import schema

    return schema().Model.GetRootAs(content).Subgraphs(0).InputsLength()


def main():
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the runtimes print every refusal
    for target in TAKES:
        operations = measured(target)
        write_table(target, runtime_of(target), "measured by `make operations`", operations)
        print(f"{target}: {sum(map(bool, operations.values()))} operations ({runtime_of(target)})")


if __name__ == "__main__":
    main()
