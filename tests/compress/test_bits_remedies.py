"""What errors about bits by layer, activations of 16 bits and accuracy control say to do is done here, and works."""

import functools
import warnings

import keras
import numpy as np
import pytest
from keras import layers as L
from remedies_of_source import Row, check

from tfdistill.compress import Quantize, QuantizeAware, assign_bits
from tfdistill.compress.bits.record import LayerBits
from tfdistill.compress.bits.search import Budgets, Search
from tfdistill.errors import TfdistillError
from tfdistill.pipeline import FileLatency
from tfdistill.tflite import Tolerances, export_tflite

RNG = np.random.default_rng(0)
X, HELD_OUT = (RNG.normal(size=(count, 6)).astype("float32") for count in (32, 40))
IMAGES = RNG.normal(size=(32, 4, 4, 2)).astype("float32")
LABELS = np.arange(40) % 3
QUICK = FileLatency(seconds=0.05)


@functools.cache
def net():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6,), name="x"), L.Dense(8, activation="relu", name="hidden"), L.Dense(3, name="logits")], name="net"
    )


@functools.cache
def quantized():
    return Quantize().apply(net(), X)


def assigned(model=None, data=X, **settings):
    return assign_bits(model or net(), data, **{"max_error": 1.0, **settings})


def as_said(budget, **others):
    """Runs into a budget that cannot be met, and follows the number that the error gives."""
    with pytest.raises(TfdistillError) as caught:
        assigned(**{budget: others.pop("too_small"), **others})
    said = dict(part.split("=") for part in caught.value.fix.removesuffix(" or more").split())
    (name, number), *_ = said.items()
    return assigned(**others, **{name: type(others.get(name) or 1)(number) if name == "size_bytes" else float(number)})


def activated(bits):
    inputs = keras.Input((4, 4, 2), name="image")
    x = L.Activation("hard_silu", name="act")(L.Conv2D(2, 3, name="conv")(inputs))
    model = keras.Model(inputs, L.Dense(3, name="head")(L.Flatten()(x)))
    return Quantize(target="builtin", activation_bits={"act": bits}).apply(model, IMAGES)


def depthwise(bits):
    inputs = keras.Input((4, 4, 2), name="image")
    x = L.DepthwiseConv2D(3, name="depthwise")(inputs)
    model = keras.Model(inputs, L.Dense(3, name="head")(L.Flatten()(x)))
    return Quantize(weight_bits={"depthwise": bits}, activation_bits={"depthwise": 16}).apply(model, IMAGES)


def exported(folder, model=None, variant="int8", **settings):
    given = {"calibration": X, "verify_on": (HELD_OUT, LABELS), "tolerances": Tolerances()} | settings
    return export_tflite(model or net(), folder / "net.tflite", variant, **given)


def held(folder, **settings):
    return exported(folder, **{"max_accuracy_drop_points": 100, **settings})


def hard_to_hold():
    """Labels that the float model gives, for samples of which some lie where two classes meet."""
    samples = RNG.normal(size=(4000, 6)).astype("float32")
    return samples, np.asarray(net()(samples)).argmax(-1)


def hold(folder, limit, model=None):
    return held(folder, model=model, verify_on=hard_to_hold(), max_accuracy_drop_points=limit)


def held_as_said(folder):
    """Gives what the error says can be held, and trains quantized instead."""
    samples, labels = hard_to_hold()
    with pytest.raises(TfdistillError) as caught:
        held(folder, verify_on=(samples, labels), max_accuracy_drop_points=0)
    points = float(caught.value.fix.partition("max_accuracy_drop_points=")[2].partition(",")[0])
    held(folder, verify_on=(samples, labels), max_accuracy_drop_points=points)
    step = QuantizeAware()
    aware = step.apply(net(), X, dry_run=False)
    aware.compile("sgd", "mse")
    aware.fit(X, np.asarray(net()(X)), verbose=0)
    export_tflite(step.strip(aware), folder / "aware.tflite", "int8", verify_on=(samples, labels), tolerances=Tolerances())


def search(error_16, size_16, **budgets):
    """A search over numbers instead of files: 8 bits have an error of 1 in 1,000 bytes."""
    from tfdistill.compress.bits.files import MadeFile

    def files(bits):
        wide, narrow = (sum(one == kind for one in bits.values()) for kind in (16, 4))
        return MadeFile(bits, str(bits), 1000 + wide * size_16 - 100 * narrow, 1.0 + narrow - wide * (1.0 - error_16))

    row = LayerBits("a", 8, "", 1.0)
    limits = Budgets(**{"size_bytes": None, "max_error": None, "latency_ms": None, "latency": None} | budgets)
    return Search(files, [row.name], [row.name], [row.name], limits, "net").run()


ROWS = {
    "an operation without activations of 16 bits": Row(
        "give these layers activation_bits=8, or weight_bits=8 if they have 4",
        lambda f: export_tflite(activated(16), f / "m.tflite", "int8"),
        lambda f: export_tflite(activated(8), f / "m.tflite", "int8"),
    ),
    "4-bit weights of a depthwise convolution beside activations of 16 bits": Row(
        "give these layers activation_bits=8, or weight_bits=8 if they have 4",
        lambda f: export_tflite(depthwise(4), f / "m.tflite", "int8"),
        lambda f: export_tflite(depthwise(8), f / "m.tflite", "int8"),
    ),
    "16 bits everywhere": Row(
        "for 16 bits everywhere give the float model to export_tflite(model, path, 'int16x8', calibration=samples)",
        lambda f: Quantize(activation_bits=16),
        lambda f: export_tflite(net(), f / "m.tflite", "int16x8", calibration=X),
    ),
    "a step with bits": Row(
        "leave both out of Quantize",
        lambda f: assigned(step=Quantize(weight_bits=4)),
        lambda f: assigned(step=Quantize()),
    ),
    "a quantized model": Row("give the model as it was before it was quantized", lambda f: assigned(quantized()), lambda f: assigned()),
    "samples by another name": Row(
        "give the samples as data=", lambda f: assign_bits(net(), x=X, max_error=1.0), lambda f: assign_bits(net(), data=X, max_error=1.0)
    ),
    "too few samples for ranges": Row(
        "give calibration=samples, a few hundred of real data",
        lambda f: assigned(data=X[:4]),
        lambda f: assigned(data=X[:4], calibration=X),
    ),
    "other bits": Row("bits=(4, 8)", lambda f: assigned(bits=(4, 2)), lambda f: assigned(bits=(4, 8))),
    "no budget": Row("give max_error=0.05", lambda f: assign_bits(net(), X), lambda f: assign_bits(net(), X, max_error=0.05)),
    "a time without a clock": Row(
        "give latency=tfdistill.pipeline.FileLatency() along with latency_ms=",
        lambda f: assign_bits(net(), X, latency_ms=1000.0),
        lambda f: assign_bits(net(), X, latency_ms=1000.0, latency=QUICK),
    ),
    "too few bytes": Row(
        "size_bytes=",
        lambda f: assign_bits(net(), X, size_bytes=100),
        lambda f: as_said("size_bytes", too_small=100),
    ),
    "too few bytes for layers of 16 bits": Row(
        "size_bytes=1200 or more",
        lambda f: search(0.1, 200, max_error=0.5, size_bytes=1100),
        lambda f: search(0.1, 200, max_error=0.5, size_bytes=1200),
    ),
    "too small an error": Row(
        "max_error=0.502 or more",
        lambda f: search(0.5, 200, max_error=0.2),
        lambda f: (search(0.5, 200, max_error=0.502), as_said("max_error", too_small=1e-6)),
    ),
    "too short a time": Row(
        "latency_ms=0.251 or more",
        lambda f: assign_bits(net(), X, latency_ms=1e-9, latency=lambda path: 0.25),
        lambda f: assign_bits(net(), X, latency_ms=0.251, latency=lambda path: 0.25),
    ),
    "a drop as a share": Row(
        "give it in points, as max_accuracy_drop_points=0.5, which keeps layers wider until it is met",
        lambda f: exported(f, max_accuracy_drop=0.5),
        lambda f: exported(f, max_accuracy_drop_points=100),
    ),
    "a variant without bits of layers": Row("give variant='int8'", lambda f: held(f, variant="float32"), lambda f: held(f, variant="int8")),
    "the other road": Row("leave road= out", lambda f: held(f, road="converter"), held),
    "explicit states": Row(
        "leave max_accuracy_drop_points= out", lambda f: held(f, states="explicit"), lambda f: exported(f, states="inside")
    ),
    "a free batch": Row("leave batch_size= out", lambda f: held(f, batch_size=None), held),
    "no held-out data": Row(
        "give calibration=x_train[:500], verify_on=(x_test, y_test)",
        lambda f: held(f, verify_on=None),
        lambda f: held(f, calibration=X[:500]),
    ),
    "an iterator": Row("give arrays", lambda f: held(f, calibration=iter([X])), held),
    "calibration data as held-out data": Row(
        "give verify_on=(x_test, y_test)", lambda f: held(f, verify_on=(X, LABELS[:32])), lambda f: held(f, verify_on=(HELD_OUT, LABELS))
    ),
    "held-out data without labels": Row(
        "give the labels along with the inputs: verify_on=(x, y)", lambda f: held(f, verify_on=HELD_OUT), held
    ),
    "a drop that cannot be held": Row(", or train with tfdistill.compress.QuantizeAware", lambda f: hold(f, 0), held_as_said),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ROWS)
def test_what_an_error_says_to_do_works(name, tmp_path):
    with warnings.catch_warnings():
        check(ROWS[name], tmp_path)
