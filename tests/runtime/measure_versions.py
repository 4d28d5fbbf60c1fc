"""Measures which version of each operation the runtimes of devices open, and writes the tables: `make operations`.

Each file has one operation of one version and is opened in a process of its own, as it has nothing that the operation needs; the runtime looks at the version first.
"""

import json
import os
import subprocess
import sys
import tempfile

import environments
import flatbuffers

from tfdistill.runtime.schema import schema
from tfdistill.runtime.versions import FOLDER

# Higher than the newest version of any operation.
NEWEST_VERSION = 20
# Not operations, but places for those that have names of their own, and for those of a higher code.
_NO_OPERATIONS = ("CUSTOM", "DELEGATE", "PLACEHOLDER_FOR_GREATER_OP_CODES")
# How a runtime says that it does not know an operation, or its version: by its name, or by a number above those of all that it has.
UNKNOWN = ("Didn't find op for builtin opcode", "out of range")
# Runtime -> its package, and what has to be installed for it; nothing where it is here.
RUNTIMES = {
    "tflite-runtime-2.14": ("tflite-runtime", ("tflite-runtime==2.14.0", "numpy<2")),
    "tflite-micro": ("tflite-micro", ()),
}
# Runs in the runtime's own environment: opens each file of a folder in a fork, and prints what the fork said, as JSON.
OPENING = """
import importlib.metadata, json, os, pathlib, sys
if sys.argv[2] == "tflite-micro":
    from tflite_micro import runtime
    opened = lambda content: runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
else:
    from tflite_runtime.interpreter import Interpreter
    opened = lambda content: Interpreter(model_content=content)
said = {}
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writes, 1), os.dup2(writes, 2)
        try:
            opened(path.read_bytes())
        except BaseException as error:
            os.write(2, str(error).encode())
        os._exit(0)
    os.close(writes)
    with os.fdopen(reads, "rb") as pipe:
        said[path.name] = pipe.read().decode(errors="replace")
    os.waitpid(child, 0)
print(json.dumps([f"{sys.argv[3]} {importlib.metadata.version(sys.argv[3])}", said]))
"""


def operation_names():
    """Returns a dict of the code of each operation of the schema to its name."""
    found = {value: name for name, value in vars(schema().BuiltinOperator).items() if isinstance(value, int)}
    return {value: name for value, name in found.items() if name not in _NO_OPERATIONS}


def file_of(code, version):
    """Returns a file of one operation that reads and writes one number."""
    classes = schema()
    kind = classes.OperatorCodeT()
    kind.builtinCode, kind.deprecatedBuiltinCode, kind.version = code, min(code, 127), version
    operator = classes.OperatorT()
    operator.opcodeIndex, operator.inputs, operator.outputs = 0, [0], [1]
    graph = classes.SubGraphT()
    graph.tensors = [classes.TensorT(), classes.TensorT()]
    for tensor, name in zip(graph.tensors, (b"x", b"y"), strict=True):
        tensor.shape, tensor.type, tensor.buffer, tensor.name = [1], classes.TensorType.FLOAT32, 0, name
    graph.inputs, graph.outputs, graph.operators = [0], [1], [operator]
    model = classes.ModelT()
    model.version, model.operatorCodes, model.subgraphs, model.buffers = 3, [kind], [graph], [classes.BufferT()]
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def python_of(runtime):
    """Returns the Python interpreter that has a runtime."""
    requirements = RUNTIMES[runtime][1]
    return environments.python_with(*requirements) if requirements else sys.executable


def measured(runtime):
    """Returns the name and version of a runtime's package, and a dict of the name of each operation that it has to the newest version that it opens; None if it
    opens all."""
    names = operation_names()
    with tempfile.TemporaryDirectory() as folder:
        for code, name in names.items():
            for version in range(1, NEWEST_VERSION + 1):
                with open(os.path.join(folder, f"{name}.{version}"), "wb") as file:
                    file.write(file_of(code, version))
        command = [python_of(runtime), "-c", OPENING, folder, runtime, RUNTIMES[runtime][0]]
        package, said = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[-1])
    found = {}
    for name in names.values():
        opened = [v for v in range(1, NEWEST_VERSION + 1) if not any(text in said[f"{name}.{v}"] for text in UNKNOWN)]
        if opened:
            found[name] = None if opened[-1] == NEWEST_VERSION else opened[-1]
    return package, found


def write_table(runtime, package, operations):
    """Writes the table of a runtime, one operation in a line."""
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(newest)}" for name, newest in operations.items())
    head = "".join(f"{json.dumps(key)}: {json.dumps(value)},\n" for key, value in dict(name=runtime, runtime=package).items())
    (FOLDER / f"{runtime}.json").write_text(f'{{\n{head}"operations": {{\n{rows}\n}}\n}}\n', encoding="utf-8")


def main():
    for runtime in RUNTIMES:
        package, operations = measured(runtime)
        write_table(runtime, package, operations)
        print(f"{package}: {len(operations)} operations")


if __name__ == "__main__":
    main()
