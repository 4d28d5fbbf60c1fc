"""The tables of what runs fast where agree with the runtimes that are installed, and the operations that a delegate takes are counted."""

import keras
import numpy as np
import pytest
from measure_operations import TAKES, measured, runtime_of
from one_operation import OPERATIONS, one_operation
from packaging.version import Version

from tfdistill import export_tflite
from tfdistill.convert.layer_operations import form_of
from tfdistill.errors import ConfigurationError
from tfdistill.runtime.delegated import delegation
from tfdistill.runtime.interpreter import open_file
from tfdistill.runtime.operations import TARGETS, TYPES, operation_table
from tfdistill.runtime.schema import schema

layers = keras.layers


@pytest.mark.parametrize("target", TAKES)
def test_a_measured_table_is_what_the_runtime_does(target, capfd):
    table = operation_table(target)
    found = {name: tuple(types) for name, types in measured(target).items()}
    capfd.readouterr()  # the runtimes print every refusal
    package, version = runtime_of(target).split()
    assert package == table.runtime.split()[0]
    if Version(version) < Version(table.runtime.split()[1]):
        # A runtime older than that of the table has no more than it has.
        assert {(name, kind) for name, kinds in found.items() for kind in kinds} <= {
            (n, k) for n, kinds in table.operations.items() for k in kinds
        }
    else:
        assert found == table.operations, f"the table is of {table.runtime}, installed is {runtime_of(target)}: run `make operations`"


@pytest.mark.parametrize("target", TARGETS)
def test_a_table_holds_names_of_the_schema(target):
    table = operation_table(target)
    names = set(vars(schema().BuiltinOperator))
    assert table.target == target
    assert {name.split()[0] for name in table.operations} <= names
    assert {kind for types in table.operations.values() for kind in types} <= set(TYPES)
    assert table.takes("CONV_2D", "int8") is True
    assert table.takes("NO_SUCH_OPERATION", "int8") is None


def test_what_is_not_taken_is_said():
    xnnpack = operation_table("xnnpack")
    assert xnnpack.takes("HARD_SWISH", "float32")
    assert xnnpack.takes("HARD_SWISH", "int8") is False
    assert xnnpack.takes("MUL broadcast", "int8")


def test_an_unknown_target_gets_the_nearest():
    with pytest.raises(ConfigurationError, match=r"'xnnpak'(.|\n)*xnnpack"):
        operation_table("xnnpak")


def test_every_operation_is_asked_for_once():
    keys = [operation.key for operation in OPERATIONS]
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if not o.form.startswith("with RELU")], ids=lambda operation: operation.key)
def test_the_form_of_an_operation_is_read_from_the_file(operation):
    model = schema().ModelT.InitFromObj(schema().Model.GetRootAs(one_operation(operation, operation.types[0]), 0))
    graph = model.subgraphs[0]
    assert form_of(model, graph, graph.operators[0], operation.name) == operation.key


def chain(*activations):
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            *(layers.Conv2D(4, 3, padding="same", activation=name) for name in activations),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


FILES = {
    "all of it": (lambda: chain("relu", "relu"), True, (4, 4, 1, {})),
    "nothing without the delegate": (
        lambda: chain("relu", "relu"),
        False,
        (4, 0, 0, {("CONV_2D", "float32"): 2, ("RESHAPE", "float32"): 1}),
    ),
    "a softmax at the end": (lambda: keras.Sequential([chain("relu"), layers.Softmax()]), True, (4, 3, 1, {("SOFTMAX", "int8"): 1})),
}


@pytest.mark.parametrize("case", FILES)
def test_what_a_delegate_takes_is_counted(case, tmp_path):
    make, xnnpack, (operations, delegated, partitions, left) = FILES[case]
    model, path, x = make(), tmp_path / "m.tflite", np.random.default_rng(0).normal(size=(32, 8, 8, 3)).astype("float32")
    integer = any(kind == "int8" for _, kind in left)
    export_tflite(model, path, "int8" if integer else "float32", calibration=x if integer else None)
    found = delegation(open_file(path, xnnpack=xnnpack).interpreter)
    assert (found.operations, found.delegated, found.partitions) == (operations, delegated, partitions)
    assert found.share == pytest.approx(delegated / operations)
    assert left.items() <= dict(found.left).items()
    assert sum(found.left.values()) == operations - delegated
