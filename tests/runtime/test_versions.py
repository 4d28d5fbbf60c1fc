"""The tables of the versions that runtimes on devices open agree with these runtimes."""

import measure_versions
import pytest

from tfdistill.errors import ConfigurationError
from tfdistill.runtime.schema import schema
from tfdistill.runtime.versions import RUNTIMES, runtime_versions


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_table_is_what_the_runtime_opens(runtime):
    table = runtime_versions(runtime)
    package, found = measure_versions.measured(runtime)
    assert found == table.operations, f"the table is of {table.runtime}, measured is {package}: run `make operations`"


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_table_holds_names_of_the_schema(runtime):
    table = runtime_versions(runtime)
    assert table.name == runtime
    assert set(table.operations) <= set(vars(schema().BuiltinOperator))


def test_what_is_not_opened_is_said():
    old, micro = map(runtime_versions, RUNTIMES)
    assert old.refuses("FULLY_CONNECTED", 10) is None
    assert old.refuses("FULLY_CONNECTED", 12) == "FULLY_CONNECTED version 12 (up to 10 there)"
    assert old.refuses("STABLEHLO_ADD", 1) == micro.refuses("STABLEHLO_ADD", 1) == "STABLEHLO_ADD"
    assert micro.refuses("FULLY_CONNECTED", 12) is None


def test_an_unknown_runtime_gets_the_nearest():
    with pytest.raises(ConfigurationError, match=r"'tflite-runtime-2\.13'(.|\n)*tflite-runtime-2\.14"):
        runtime_versions("tflite-runtime-2.13")
