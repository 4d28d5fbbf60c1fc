"""Which layers get which rank for which settings, and what is refused."""

import functools

import keras
import numpy as np
import pytest
from keras import layers
from low_rank_models import LAYERS, made, randomized, residual, text
from remedies_of_source import Row, check

import tfdistill
from tfdistill.compress import LowRank, Prune
from tfdistill.errors import ConfigurationError, DataError, InvariantError, ModelError


@functools.cache
def net():
    return residual()


def done(plan):
    return {row.name: (row.method, row.rank) for row in plan.rows if row.action == "done"}


METHODS = ["auto", "svd", "tucker", pytest.param("cp", marks=pytest.mark.slow)]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("budget", "share"), [("keep_parameters", 0.7), ("keep_macs", 0.6), ("keep_macs", 0.8)])
def test_budgets_are_met_closely(budget, share, method):
    small = LowRank(**{budget: share}, divisor=2, method=method).apply(net())
    before, after = tfdistill.profile(net()), tfdistill.profile(small)
    found = after.macs / before.macs if budget == "keep_macs" else after.parameters / before.parameters
    assert share - (0.2 if method == "cp" else 0.08) < found <= share


def test_auto_loses_no_more_than_one_method():
    def lost(method):
        return sum(row.lost or 0 for row in LowRank(keep_macs=0.5, divisor=1, method=method).plan(net()).rows)

    assert lost("auto") <= min(lost("svd"), lost("tucker")) + 1e-6


def test_ranks_are_multiples_of_the_divisor():
    found = done(LowRank(keep_macs=0.7, divisor=4).plan(net()))
    assert found
    assert all(n % 4 == 0 for _, rank in found.values() for n in rank)


@pytest.mark.parametrize("energy", [0.5, 0.8, 0.9])
def test_each_layer_keeps_the_energy(energy):
    plan = LowRank(energy=energy, divisor=1).plan(net())
    assert done(plan)
    assert all(row.lost <= 1 - energy + 1e-6 for row in plan.rows if row.action == "done")
    row = LowRank(energy=energy, divisor=1, method="svd").plan(net()).row("inner")
    kernel = net().get_layer("inner").kernel.numpy().reshape(-1, 24)
    kept = (np.linalg.svd(kernel, compute_uv=False) ** 2).cumsum() / (kernel**2).sum()
    assert row.rank == (int(np.searchsorted(kept, energy)) + 1,)


CHOSEN = {
    "number": ({"rank": 4}, {"stem": "spatial_svd", "inner": "spatial_svd", "project": "svd", "hidden": "svd"}),
    "layers": ({"rank": 4, "layers": ["inner", "hid*"]}, {"inner": "spatial_svd", "hidden": "svd"}),
    "predicate": ({"rank": 4, "layers": lambda layer: isinstance(layer, layers.Dense)}, {"hidden": "svd"}),
    "excluded": ({"rank": 4, "exclude": ["stem", "project"]}, {"inner": "spatial_svd", "hidden": "svd"}),
    "ranks": ({"rank": {"inner": 6, "hidden": 4}}, {"inner": "spatial_svd", "hidden": "svd"}),
    "methods": ({"rank": 4, "method": {"inner": "tucker", "hidden": "svd"}}, {"inner": "tucker", "hidden": "svd"}),
    "both": ({"rank": {"inner": 4, "stem": 2}, "method": {"inner": "cp", "*": "svd"}}, {"inner": "cp", "stem": "svd"}),
    "pair": ({"rank": (4, 6), "method": {"inner": "tucker"}}, {"inner": "tucker"}),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_layers_are_chosen(name):
    settings, expected = CHOSEN[name]
    found = done(LowRank(**settings).plan(net()))
    assert {path: method for path, (method, _) in found.items()} == expected
    if name == "pair":
        assert found["inner"][1] == (4, 6)
    if name == "ranks":
        assert [rank for _, rank in found.values()] == [(6,), (4,)]


REASONS = {
    "norm": "no factorization of a BatchNormalization is known",
    "depthwise": "a depthwise convolution sums over no channels",
    "logits": "it would grow at rank 3: 96 weights would be 105",
}


def test_the_plan_says_why_layers_stay():
    plan = LowRank(rank=4).plan(net())
    assert {name: plan.row(name).reason for name in REASONS} == REASONS
    assert {plan.row(name).action for name in REASONS} == {"skipped"}
    assert "attention are left" in LowRank(rank=4).plan(text()).row("attention").reason
    assert LowRank(keep_macs=0.9, divisor=1).plan(text()).row("words").reason == "its table takes no multiply-accumulates"
    assert "no rank that is a multiple of 8" in LowRank(keep_macs=0.9).plan(net()).row("logits").reason
    assert "left out by" in LowRank(rank=4, layers="inner").plan(net()).row("stem").reason
    assert "'tucker' is for convolutions" in LowRank(rank=4, method="tucker").plan(net()).row("hidden").reason
    assert "no smaller rank keeps 0.999" in LowRank(energy=0.999, divisor=1).plan(net()).row("hidden").reason


OTHERS = {
    "grouped": (lambda: layers.Conv2D(16, 3, groups=2), (8, 8, 16), "a grouped convolution"),
    "constrained": (lambda: layers.Dense(16, kernel_constraint="max_norm"), (16,), "has a constraint"),
    "wrapped": (lambda: layers.TimeDistributed(layers.Dense(16)), (4, 16), "no factorization of a TimeDistributed"),
    "recurrent": (lambda: layers.LSTM(16), (4, 16), "no factorization of a LSTM"),
    "elementwise": (lambda: layers.EinsumDense("abc,bc->abc", (4, 16)), (4, 16), "is no product of a matrix"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_layers_that_cannot_be_factorized_say_why(name):
    make, shape, said = OTHERS[name]
    layer = make()
    layer.name = "held"
    model = keras.Sequential([keras.Input(shape), layer])
    row = LowRank(rank=2).plan(model).row("held")
    assert said in row.reason
    assert row.action == "skipped"
    with pytest.raises(ModelError, match="does not work on 'held'") as caught:
        LowRank(rank=2, layers=["held"]).apply(model)
    assert "leave these layers out" in caught.value.fix


def test_numbers_of_numpy_are_numbers():
    step = LowRank(rank={"inner": (np.int64(4), 6), "hidden": np.int32(4)}, divisor=np.int64(2))
    assert done(step.plan(net())) == done(LowRank(rank={"inner": (4, 6), "hidden": 4}, divisor=2).plan(net()))
    assert step.apply(net()).get_layer("hidden_first").units == 4


WRONG = {
    "no rank": ({}, "no rank"),
    "two": ({"rank": 4, "energy": 0.5}, "rank=4, energy=0.5"),
    "all": ({"keep_macs": 1.0}, "keep_macs=1.0"),
    "none": ({"keep_parameters": 0}, "keep_parameters=0"),
    "energy": ({"energy": 1.5}, "energy=1.5"),
    "zero": ({"rank": 0}, "rank=0"),
    "triple": ({"rank": (1, 2, 3)}, "rank=(1, 2, 3)"),
    "ranks": ({"rank": {"a": 2.5}}, "2.5"),
    "method": ({"rank": 4, "method": "svdd"}, "'svd'"),
    "methods": ({"rank": 4, "method": {"a": "qr"}}, "method='qr'"),
    "dict and layers": ({"rank": {"a": 2}, "layers": "a"}, "leave out layers="),
    "divisor": ({"rank": 4, "divisor": 0}, "divisor=0"),
    "layers": ({"rank": 4, "layers": []}, "layers=[]"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused(name):
    settings, said = WRONG[name]
    with pytest.raises(ConfigurationError) as caught:
        LowRank(**settings)
    assert said in str(caught.value)


X = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")


@pytest.mark.parametrize(
    ("x", "said"), [(X[:0], "examples"), (X * np.nan, "NaN"), (X[:, :4], "shapes"), ([X, X], "shapes"), (X * 1e30, "gives NaN")]
)
def test_useless_data_is_refused(x, said):
    with np.errstate(all="ignore"), pytest.raises(DataError, match=said):
        LowRank(rank=4).plan(net(), calibration=x)


ARGUMENTS = {layers.RandomContrast: {"factor": 0.5}, layers.GaussianNoise: {"stddev": 0.5}, layers.Dropout: {"rate": 0.5}}


class Inside(layers.Layer):
    """Has a layer that augments inside, and no argument for the mode."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.flip = layers.RandomFlip()

    def call(self, x):
        return self.flip(x)


@pytest.mark.parametrize("augment", [layers.RandomFlip, layers.RandomContrast, Inside, layers.GaussianNoise, layers.Dropout])
def test_layers_that_act_in_training_alone_do_not_when_a_model_is_measured(augment):
    inputs = keras.Input((8, 8, 3))
    conv = layers.Conv2D(16, 3, name="conv")
    plain = randomized(keras.Model(inputs, layers.Dense(3, name="logits")(layers.Flatten()(conv(inputs)))))
    model = keras.Model(inputs, plain.layers[-1](layers.Flatten()(conv(augment(**ARGUMENTS.get(augment, {}))(inputs)))))
    step = LowRank(rank=4, layers="conv")
    assert step.plan(model, calibration=X).row("conv").lost == step.plan(plain, calibration=X).row("conv").lost
    step.apply(model, calibration=X)


@pytest.mark.parametrize("calibration", [None, np.ones((4, 12), "float32")])
def test_weights_that_are_not_finite_are_refused(calibration):
    model = made("dense")
    model.get_layer("layer").kernel.assign(np.full((12, 14), np.nan))
    with pytest.raises(ModelError, match="The kernel of 'layer' holds NaN"):
        LowRank(rank=4).plan(model, calibration)


def test_check_holds_a_model_to_its_plan():
    step = LowRank(rank=4)
    plan = step.plan(net())
    step.check(step.strip(step.apply(net())), plan)
    with pytest.raises(InvariantError, match="is not the model of the plan"):
        step.check(net(), plan)


def test_nothing_to_do_is_said():
    with pytest.raises(ModelError, match="finds nothing to do"):
        LowRank(rank=100).apply(made("dense"))
    assert set(LAYERS)


def dense_net():
    return keras.Sequential([keras.Input((12,)), layers.Dense(16, activation="relu", name="hidden"), layers.Dense(3, name="logits")])


def uneven():
    return keras.Sequential(
        [keras.Input((17,)), layers.Dense(17, name="little"), layers.Dense(800, name="middle"), layers.Dense(96, name="large")]
    )


def free_net():
    inputs = keras.Input((None, 12))
    return keras.Model(inputs, layers.Dense(16, name="hidden")(inputs))


def adopted():
    return Prune(0.5, end_step=1).apply(dense_net())


REMEDIES = {
    "a budget": Row(
        "take keep_macs=0.67; or allow smaller ranks by a smaller divisor= (now 4)",
        lambda _: LowRank(keep_macs=0.5, divisor=4).apply(dense_net()),
        lambda _: [LowRank(keep_macs=0.67, divisor=4).apply(dense_net()), LowRank(keep_macs=0.5, divisor=1).apply(dense_net())],
    ),
    "a budget of one small layer": Row(
        "factorize more layers: plan(model) shows which stay as they are, and why",
        lambda _: LowRank(keep_parameters=0.8, layers="little").apply(uneven()),
        lambda _: LowRank(keep_parameters=0.8, layers=["little", "large"]).apply(uneven()),
    ),
    "free sizes": Row(
        "choose by rank=, energy= or keep_parameters=",
        lambda _: LowRank(keep_macs=0.5).plan(free_net()),
        lambda _: [LowRank(**one, divisor=1).apply(free_net()) for one in ({"keep_parameters": 0.8}, {"energy": 0.5}, {"rank": 4})],
    ),
    "tf_keras": Row(
        "give what the earlier step's strip(model) returned",
        lambda _: LowRank(rank=4).apply(adopted()),
        lambda _: LowRank(rank=4).apply(Prune(0.5, end_step=1).strip(adopted())),
    ),
}


@pytest.mark.parametrize("name", REMEDIES)
def test_what_errors_say_to_do_works(name, tmp_path):
    check(REMEDIES[name], tmp_path)
