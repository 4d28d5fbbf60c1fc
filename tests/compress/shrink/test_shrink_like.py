"""Students from the teacher's own graph: which channels and blocks stay, that budgets are met, and what is refused."""

import keras
import numpy as np
import pytest
from hypothesis import given as drawn
from hypothesis import settings
from hypothesis import strategies as st
from keras import layers
from low_rank_models import randomized
from remedies_of_source import Row, check
from shrink_models import MODELS, conv, plain, residual, teacher
from test_low_rank_models import inputs_of

import tfdistill
from tfdistill import shrink_like
from tfdistill.compress import Prune, register_channels
from tfdistill.compress.channels.search import first_by_measuring
from tfdistill.compress.file_bytes import int8_bytes
from tfdistill.compress.shrink.blocks import _repeated, chains_of
from tfdistill.errors import ConfigurationError, ModelError
from tfdistill.graph.flat import flat_graph
from tfdistill.graph.tracing import open_model


def names_of(model):
    return [call.path for call in flat_graph(model).calls]


@pytest.mark.parametrize("name", MODELS)
def test_chains_are_found(name):
    chains = chains_of(open_model(teacher(name)))
    assert sorted([block.calls[0].operation.name for block in chain] for chain in chains) == MODELS[name][1]


@pytest.mark.parametrize("name", MODELS)
def test_half_the_width_is_a_quarter_of_the_work(name, tmp_path):
    model = teacher(name)
    student = shrink_like(model, width=0.5)
    before, after = tfdistill.profile(model), tfdistill.profile(student)
    assert after.macs < {"subclassed": 0.55, "plain": 0.4}.get(name, 0.36) * before.macs
    assert names_of(student) == names_of(model)
    x = inputs_of(model)
    assert keras.tree.map_structure(np.shape, student(x)) == keras.tree.map_structure(np.shape, model(x))
    assert student.name == f"{model.name}_student"
    student.save(tmp_path / "student.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "student.keras")(x), student(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_half_the_depth_has_every_other_block(name):
    model, chains = teacher(name), MODELS[name][1]
    student = shrink_like(model, depth=0.5)
    count = {len(chain): max(1, int(len(chain) / 2 + 0.5)) for chain in chains}
    gone = {
        first
        for chain in chains
        for i, first in enumerate(chain)
        if i not in [k * len(chain) // count[len(chain)] for k in range(count[len(chain)])]
    }
    ours, theirs = ({path.split("/")[0] for path in names_of(each)} for each in (student, model))
    firsts = {first for chain in chains for first in chain}
    assert theirs & firsts - ours & firsts == gone
    assert 0 < student.count_params() < model.count_params()
    assert keras.tree.map_structure(np.shape, student(inputs_of(model))) == keras.tree.map_structure(np.shape, model(inputs_of(model)))


def test_a_block_that_is_left_out_counts_as_one_that_adds_nothing():
    """Residual blocks that add zero pass on what they read, which is not negative behind a ReLU."""
    model = randomized(residual())
    student = shrink_like(model, depth=0.5)
    for name in set(names_of(model)) - set(names_of(student)):
        if name.startswith("second"):
            for weight in model.get_layer(name).weights:
                weight.assign(np.zeros(weight.shape))
    x = inputs_of(model)
    np.testing.assert_allclose(student(x), model(x), rtol=1e-4, atol=1e-5)


def test_the_most_important_channels_stay():
    """By norms of what makes and what reads them, each divided by its mean."""
    model = randomized(keras.Sequential([keras.Input((6,)), layers.Dense(16, name="a"), layers.Dense(3, name="b")]))
    student = shrink_like(model, width=0.5)
    a, b = (model.get_layer(name).kernel.numpy() for name in "ab")
    norms = np.linalg.norm(a, axis=0), np.linalg.norm(b, axis=1)
    stay = np.sort(np.argsort(sum(n / n.mean() for n in norms))[8:])
    np.testing.assert_array_equal(student.get_layer("a").kernel, a[:, stay])
    np.testing.assert_array_equal(student.get_layer("b").kernel, b[stay])


# Channels, divisor, width -> channels that stay: rounded, but by no more than a tenth down, as in MobileNetV2.
ROUNDED = [
    (16, 8, 0.5, 8),
    (16, 8, 0.6, 16),
    (24, 8, 0.5, 16),
    (40, 8, 0.3, 16),
    (12, 1, 0.5, 6),
    (9, 1, 0.5, 5),
    (10, 1, 0.34, 4),
    (64, 8, 0.1, 8),
]


@pytest.mark.parametrize(("channels", "divisor", "width", "stay"), ROUNDED)
def test_widths_are_rounded(channels, divisor, width, stay):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(channels, name="a"), layers.Dense(48, name="c"), layers.Dense(2, name="b")])
    assert shrink_like(model, width=width, divisor=divisor).get_layer("a").units == stay


# The trunk of residual blocks gets narrower in one step, however many blocks read it.
BUDGETS = [
    ("plain", "params", 0.4),
    ("residual", "macs", 0.3),
    ("transformer", "params", 0.5),
    ("mobile", "macs", 0.6),
    ("nested", "params", 0.2),
]


@pytest.mark.parametrize(("name", "budget", "share"), BUDGETS)
@pytest.mark.parametrize("depth", [None, 0.7])
def test_budgets_are_met_closely(name, budget, share, depth):
    what = "parameters" if budget == "params" else "macs"
    limit = int(share * getattr(tfdistill.profile(teacher(name)), what))
    found = getattr(tfdistill.profile(shrink_like(teacher(name), depth=depth, divisor=2, **{budget: limit})), what)
    assert (0.9 if depth is None and name != "nested" else 0.7) * limit < found <= limit


@pytest.mark.slow
def test_a_budget_of_bytes_is_that_of_the_file(tmp_path):
    body = [layers.Flatten(), layers.Dense(64, activation="relu", name="wide"), layers.Dense(3)]
    model = randomized(keras.Sequential([keras.Input((8, 8, 3)), conv(16, activation="relu", name="body"), *body]))
    limit = int8_bytes(model) // 2
    student = shrink_like(model, size_bytes=limit, divisor=2)
    record = tfdistill.export_tflite(student, tmp_path / "student.tflite", "int8", calibration=inputs_of(model, 16))
    assert 0.9 * limit < record.size_bytes <= limit
    assert abs(record.size_bytes - int8_bytes(student)) < 64


@settings(max_examples=50, deadline=None)
@drawn(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.integers(0, 120))
def test_few_measurements_find_what_fits(drops, budget):
    costs = np.cumsum([0, *drops[::-1]])[::-1]
    count, cost = first_by_measuring(len(drops), lambda n: len(drops) - n, lambda n: float(costs[n]), budget)
    assert cost == costs[count]
    assert cost <= budget or count == len(drops)
    assert cost >= 0.5 * min(budget, costs[0]) or costs[count - 1] > budget or max(drops) > 4


@settings(max_examples=100, deadline=None)
@drawn(st.lists(st.integers(0, 2), max_size=14))
def test_repeated_patterns_are_all_found(marks):
    slow = set()
    for period in range(1, len(marks) // 2 + 1):
        for start in range(len(marks)):
            count = 1
            while marks[start : start + period] == marks[start + count * period : start + (count + 1) * period] != []:
                count += 1
            if count > 1 and len(marks[start : start + period]) == period:
                slow.add((start, period, count))
    found = set(_repeated(marks))
    assert found <= slow
    # What begins a whole period later is the end of one that is found.
    assert all(
        any(s <= start and p == period and s + p * c == start + period * count for s, p, c in found) for start, period, count in slow
    )


def test_a_frozen_teacher_has_a_student_to_train():
    model = randomized(residual())
    model.trainable = False
    student = shrink_like(model, width=0.5)
    assert not model.trainable_weights
    assert len(student.trainable_weights) == len(randomized(residual()).trainable_weights)


@pytest.mark.parametrize("name", ["residual", pytest.param("transformer", marks=pytest.mark.slow)])
def test_it_is_taught(name):
    model = teacher(name)
    student = shrink_like(model, width=0.5, depth=0.5)
    distiller = tfdistill.Distiller(model, student, tfdistill.losses.SoftTargets(2.0))
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    history = distiller.fit(inputs_of(model, 8), np.arange(8) % 3, batch_size=8, verbose=0)
    assert np.isfinite(history.history["loss"]).all()


def test_what_is_excluded_stays():
    student = shrink_like(teacher("residual"), width=0.5, depth=0.5, exclude=["first4", "stem"])
    assert student.get_layer("first4").filters == 32
    assert student.get_layer("stem").filters == 16
    assert {"first4", "first5"} <= set(names_of(student))
    assert "first2" not in names_of(student)


@pytest.mark.parametrize("exclude", ["block1", "block1/deep", "block1/*", lambda layer: layer.name == "deep"])
@pytest.mark.parametrize("prefix", ["", "inner/"])
def test_blocks_with_an_excluded_layer_inside_stay(exclude, prefix):
    model = nested_blocks(prefix)
    assert shrink_like(model, depth=0.5).count_params() < model.count_params()
    with pytest.raises(ModelError, match="leaves out no block"):
        shrink_like(model, depth=0.5, exclude=prefix + exclude if isinstance(exclude, str) else exclude)


def nested_blocks(prefix):
    """The blocks that are models, in one more model where there is a prefix."""
    model = teacher("nested")
    if not prefix:
        return model
    inputs = keras.Input((8, 8, 3))
    inner = keras.Model(model.inputs, model.outputs, name="inner")
    return keras.Model(inputs, inner(inputs))


WRONG = {
    "two": ({"width": 0.5, "params": 100}, "width=0.5, params=100"),
    "width": ({"width": 1.0}, "width=1.0"),
    "depth": ({"depth": 0}, "depth=0"),
    "params": ({"params": 0.5}, "params=0.5"),
    "criterion": ({"width": 0.5, "criterion": "taylor"}, "criterion"),
    "divisor": ({"width": 0.5, "divisor": 0}, "divisor=0"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_arguments_are_refused(name):
    given, said = WRONG[name]
    with pytest.raises(ConfigurationError) as caught:
        shrink_like(teacher("plain"), **given)
    assert said in str(caught.value)


def thin():
    return keras.Sequential([keras.Input((6,)), *(layers.Dense(6, name=f"a{n}") for n in range(3)), layers.Dense(3, name="b")])


def one_block():
    return keras.Sequential([keras.Input((6,)), layers.Dense(16), layers.Dense(3)])


def free():
    inputs = keras.Input((None, None, 3))
    return keras.Model(inputs, layers.Dense(3)(layers.GlobalAveragePooling2D()(conv(16)(conv(16)(inputs)))))


class Flip(layers.Layer):
    def call(self, x):
        return keras.ops.flip(x, -1)


class Mirrored(Flip):
    pass


def flipped(kind=Flip):
    inputs = keras.Input((6,))
    x = layers.Dense(16, name="held")(layers.Dense(16, name="free")(inputs))
    return keras.Model(inputs, layers.Dense(3, name="logits")(kind(name="flip")(x)), name="flipped")


def registered():
    def rule(call):
        call.join(call.inputs[0][-1], call.inputs[0][-1][::-1])
        return [call.inputs[0]]

    register_channels(Mirrored, rule)
    assert shrink_like(flipped(Mirrored), width=0.5).get_layer("held").units == 8


def small_budget(**more):
    return shrink_like(teacher("plain"), params=3000, **more)


REMEDIES = {
    "nothing narrower": Row(
        "give a smaller divisor= (now 8), or fewer layers in exclude=; or leave out width= and give depth=",
        lambda _: shrink_like(thin(), width=0.5),
        lambda _: [shrink_like(thin(), width=0.5, divisor=1), shrink_like(thin(), depth=0.5)],
    ),
    "a width that rounds to the whole": Row(
        "give a smaller width=, or a smaller divisor= (now 8)",
        lambda _: shrink_like(teacher("plain"), width=0.9),
        lambda _: [shrink_like(teacher("plain"), width=0.739), shrink_like(teacher("plain"), width=0.9, divisor=1)],
    ),
    "everything excluded": Row(
        "fewer layers in exclude=",
        lambda _: shrink_like(teacher("plain"), width=0.5, exclude="*"),
        lambda _: shrink_like(teacher("plain"), width=0.5, exclude="conv0"),
    ),
    "no blocks": Row(
        "leave out depth= and give width=", lambda _: shrink_like(one_block(), depth=0.5), lambda _: shrink_like(one_block(), width=0.5)
    ),
    "a budget out of reach": Row(
        "or a smaller divisor= (now 8), fewer layers in exclude=, or depth=",
        lambda _: small_budget(exclude="conv0"),
        lambda _: [
            shrink_like(teacher("plain"), params=4195, exclude="conv0"),
            small_budget(divisor=1, exclude="conv0"),
            shrink_like(teacher("plain"), params=3363),
            shrink_like(teacher("plain"), params=3363, exclude="conv0", depth=0.5),
        ],
    ),
    "a budget that is met": Row(
        "give a smaller params=, or width=",
        lambda _: shrink_like(teacher("plain"), params=10**6),
        lambda _: [shrink_like(teacher("plain"), params=10**4), shrink_like(teacher("plain"), width=0.5)],
    ),
    "free sizes": Row(
        "give width= or params=",
        lambda _: shrink_like(free(), macs=1000),
        lambda _: [shrink_like(free(), width=0.5), shrink_like(free(), params=1500)],
    ),
    "channels that cannot be followed": Row(
        "by tfdistill.compress.register_channels; or leave them so without this warning: exclude=['held']",
        lambda _: shrink_like(flipped(), width=0.5),
        lambda _: [registered(), shrink_like(flipped(), width=0.5, exclude=["held"])],
    ),
    "tf_keras": Row(
        "or give what the earlier step's strip(model) returned",
        lambda _: shrink_like(Prune(0.5, end_step=1).apply(plain()), width=0.5),
        lambda _: shrink_like(Prune(0.5, end_step=1).strip(Prune(0.5, end_step=1).apply(plain())), width=0.5),
    ),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_what_errors_say_to_do_works(name, tmp_path):
    check(REMEDIES[name], tmp_path)


def test_a_budget_out_of_reach_says_the_smallest():
    with pytest.raises(ModelError) as caught:
        small_budget()
    smallest = int(str(caught.value.fix).split("params=")[1].split(";")[0])
    assert shrink_like(teacher("plain"), params=smallest).count_params() == smallest
