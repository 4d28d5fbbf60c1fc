"""Each edit of a file takes out what it should and nothing else, and the integers stay the same; the files are made by hand."""

import pytest
from edited_files import Maker, assert_same, assert_without_waste, classes, operations, parsed

from tfdistill.convert import finish as finishing
from tfdistill.convert.finish import finish
from tfdistill.runtime.structure import check_structure

# What a file does with its input -> the operations that stay.
EDITS = {
    "two reshapes": (lambda m: [m.logistic(m.reshape(m.reshape(m.x, 2, 12), 24))], ["RESHAPE", "LOGISTIC"]),
    "reshapes there and back": (lambda m: [m.logistic(m.reshape(m.reshape(m.x, 2, 12), 1, 4, 6))], ["LOGISTIC"]),
    "reshapes there and back to the output": (lambda m: [m.reshape(m.reshape(m.logistic(m.x), 24), 1, 4, 6)], ["LOGISTIC"]),
    "an input that is the output": (lambda m: [m.reshape(m.reshape(m.x, 24), 1, 4, 6)], ["RESHAPE"]),
    "transpositions that cancel": (lambda m: [m.logistic(m.transpose(m.transpose(m.x, 2, 0, 1), 1, 2, 0))], ["LOGISTIC"]),
    "two transpositions": (lambda m: [m.logistic(m.transpose(m.transpose(m.x, 0, 2, 1), 1, 2, 0))], ["TRANSPOSE", "LOGISTIC"]),
    "two transpositions that move one element": (
        lambda m: [m.logistic(m.transpose(m.transpose(m.x, 2, 0, 1), 2, 1, 0))],
        ["RESHAPE", "LOGISTIC"],
    ),
    "a transposition of one element": (lambda m: [m.logistic(m.transpose(m.x, 1, 0, 2))], ["RESHAPE", "LOGISTIC"]),
    "a transposition that moves": (lambda m: [m.logistic(m.transpose(m.x, 0, 2, 1))], ["TRANSPOSE", "LOGISTIC"]),
    "a rounding to the same steps": (lambda m: [m.logistic(m.quantize(m.x))], ["LOGISTIC"]),
    "a rounding to other steps": (lambda m: [m.logistic(m.quantize(m.x, 0.7, 1))], ["QUANTIZE", "LOGISTIC"]),
    "floats between equal integers": (lambda m: [m.logistic(m.quantize(m.dequantize(m.x)))], ["LOGISTIC"]),
    "floats between other integers": (
        lambda m: [m.logistic(m.quantize(m.dequantize(m.x), 0.7, 1))],
        ["DEQUANTIZE", "QUANTIZE", "LOGISTIC"],
    ),
    "a float output": (lambda m: [m.dequantize(m.logistic(m.x))], ["LOGISTIC", "DEQUANTIZE"]),
    "what two operations read": (
        lambda m: (lambda y: [m.logistic(m.reshape(y, 1, 4, 6)), m.logistic(y)])(m.reshape(m.x, 24)),
        ["RESHAPE", "LOGISTIC", "LOGISTIC"],
    ),
    "an output read on": (lambda m: (lambda y: [y, m.logistic(m.reshape(y, 1, 4, 6))])(m.reshape(m.x, 24)), ["RESHAPE", "LOGISTIC"]),
    "a product of the parts of a whole": (lambda m: [m.product_of_parts(m.x, 2, 3, 4)], ["RESHAPE", "UNPACK", "FULLY_CONNECTED"]),
    "two halves": (lambda m: m.pieces((0, 3), (3, 6)), ["SPLIT", "LOGISTIC", "LOGISTIC"]),
    "three thirds in another order": (lambda m: m.pieces((4, 6), (0, 2), (2, 4)), ["SPLIT", *["LOGISTIC"] * 3]),
    "halves of which one is counted from the end": (lambda m: m.pieces((0, 3), (3, 6), masks=3), ["SPLIT", "LOGISTIC", "LOGISTIC"]),
    "pieces of several sizes": (lambda m: m.pieces((0, 2), (2, 6)), ["STRIDED_SLICE", "LOGISTIC"] * 2),
    "a half alone": (lambda m: m.pieces((0, 3)), ["STRIDED_SLICE", "LOGISTIC"]),
    "halves and another piece": (lambda m: m.pieces((0, 3), (3, 6), (1, 3)), ["STRIDED_SLICE", "LOGISTIC"] * 3),
    "pieces that overlap": (lambda m: m.pieces((0, 4), (2, 6)), ["STRIDED_SLICE", "LOGISTIC"] * 2),
    "six sixths, more than delegates take": (lambda m: m.pieces(*((i, i + 1) for i in range(6))), ["STRIDED_SLICE", "LOGISTIC"] * 6),
    "halves of an axis that is not the last": (
        lambda m: [m.logistic(m.slice(m.x, (0, 1), each, (0, 6))) for each in ((0, 2), (2, 4))],
        ["STRIDED_SLICE", "LOGISTIC"] * 2,
    ),
    "steps times one kernel": (lambda m: m.products_of_steps(5), ["RESHAPE", "FULLY_CONNECTED", "UNPACK"]),
    "steps of which only two are multiplied": (
        lambda m: m.products_of_steps(5, 2),
        ["RESHAPE", "UNPACK", "FULLY_CONNECTED", "UNPACK", "FULLY_CONNECTED", "FULLY_CONNECTED"],
    ),
    "equal constants": (
        lambda m: [m.logistic(m.reshape(m.x, 24)), m.reshape(m.logistic(m.x), 24)],
        ["RESHAPE", "LOGISTIC", "LOGISTIC", "RESHAPE"],
    ),
}


@pytest.mark.parametrize("name", EDITS)
def test_operations_that_do_nothing_go(name):
    make, expected = EDITS[name]
    maker = Maker()
    before = maker.content(*make(maker))
    after = finish(before)
    check_structure(after)
    assert [operation for operation, _, _ in operations(parsed(after))] == expected
    assert_same(before, after)
    assert_without_waste(parsed(after), after)
    assert finish(after) == after


def test_weights_outside_the_tables_are_left_as_they_are(monkeypatch):
    """The format keeps what is beyond 2 GiB behind its tables, at an offset."""
    maker = Maker()
    content = maker.content(maker.logistic(maker.x))

    def parsed_with_offset(*args):
        model = parsed(content)
        model.buffers[-1].offset = 64
        return model

    monkeypatch.setattr(finishing, "schema", lambda: _Offset(parsed_with_offset))
    assert finish(content) is content


class _Offset:
    """The schema, for a file whose last buffer stands behind the tables."""

    def __init__(self, parse):
        self.Model, self.ModelT = classes.Model, self
        self.InitFromObj = parse
