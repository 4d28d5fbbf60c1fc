"""What is removed for which settings, and what is refused."""

import functools

import keras
import numpy as np
import pytest
from channel_models import MODELS, conv, images, randomized
from keras import layers

import tfdistill
from tfdistill.compress import LeaveWhole, Prune, PruneChannels, register_channels
from tfdistill.compress.channels.costs import Costs
from tfdistill.compress.channels.trace import ChannelTrace
from tfdistill.errors import ConfigurationError, DataError, InvariantError, ModelError


def wide(x):
    x = layers.BatchNormalization(name="norm")(conv(32, activation="relu", name="a")(x))
    x = conv(24, activation="relu", name="b")(x)
    return layers.Add(name="sum")([x, conv(24, name="c")(x)])


@functools.cache
def net():
    return randomized(images(wide))


def widths(plan):
    return {row.name: row.expected_channels["channels"] for row in plan.rows if row.channels}


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("divisor", [1, 5, 8])
@pytest.mark.parametrize(("budget", "share"), [("keep_channels", 0.7), ("keep_parameters", 0.5), ("keep_macs", 0.4)])
def test_budgets_are_met_closely(budget, share, divisor, scope):
    step = PruneChannels(**{budget: share}, divisor=divisor, scope=scope, keep_at_least=0)
    small = step.apply(net())
    before, after = tfdistill.profile(net()), tfdistill.profile(small)
    made = [[layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D)] for model in (net(), small)]
    found = {
        "keep_channels": (sum(made[1]) + 3) / (sum(made[0]) + 3),
        "keep_parameters": after.parameters / before.parameters,
        "keep_macs": after.macs / before.macs,
    }[budget]
    # One step less would have been too large: the largest step is a quarter of the model at 8, and a few percent at 1.
    assert share - {1: 0.06, 5: 0.2, 8: 0.25}[divisor] < found <= share
    assert all(n % divisor == 0 or n == old for old, n in zip(*made, strict=True))


def test_every_group_loses_the_same_share():
    assert widths(PruneChannels(keep_channels=0.52, divisor=1, scope="layer").plan(net())) == {"a": 16, "b": 12, "c": 12, "logits": 3}


def test_what_counts_least_goes_first_in_whatever_layer():
    model = randomized(images(wide))
    for name, factor in (("a", 1.0), ("b", 1.0), ("c", 1.0)):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.where(np.arange(kernel.shape[-1]) % 4 == 0, 1e-3, factor) * kernel.numpy())
    gone = {row.name: row.removed.get("channels") for row in PruneChannels(keep_channels=0.9, divisor=1, criterion="l1").plan(model).rows}
    assert gone["b"] == gone["c"]
    assert gone["b"]
    assert set(gone["b"]) <= set(range(0, 24, 4))
    assert set(gone["a"] or ()) <= set(range(0, 32, 4))


def test_a_smallest_share_stays():
    plan = PruneChannels(keep_channels=0.52, divisor=1, criterion="random", keep_at_least=0.5).plan(net())
    assert widths(plan) == {"a": 16, "b": 12, "c": 12, "logits": 3}


@pytest.mark.parametrize(
    ("settings", "changed"),
    [
        ({"layers": "a"}, {"a"}),
        ({"layers": "b"}, {"b", "c"}),
        ({"exclude": "c"}, {"a"}),
        ({"exclude": ["a"]}, {"b", "c"}),
        ({"exclude": "sum"}, {"a"}),
        ({"exclude": lambda layer: isinstance(layer, layers.BatchNormalization)}, {"b", "c"}),
        ({"layers": ["a", "b"], "exclude": "c"}, {"a"}),
        ({"layers": lambda layer: layer.name == "c"}, {"b", "c"}),
    ],
)
def test_layers_are_chosen_with_all_that_is_coupled_to_them(settings, changed):
    plan = PruneChannels(keep_channels=0.9, divisor=1, **settings).plan(net())
    assert {row.name for row in plan.rows if row.removed} == changed
    reasons = {row.name: row.reason for row in plan.rows}
    if settings.get("exclude") in ("c", "sum") and "layers" not in settings:
        assert f"coupled to '{settings['exclude']}', which exclude= leaves as it is" in reasons["b"]
    if "b" in changed:
        assert reasons["b"].startswith("together with 'c'")
        assert plan.row("b").groups == plan.row("c").groups


def test_the_plan_prints_what_changes():
    plan = PruneChannels(keep_macs=0.7).plan(net())
    text = str(plan)
    assert f"MACs: {plan.macs:,} -> {plan.expected_macs:,}" in text
    assert "-> " in plan.table()
    assert type(plan).from_dict(plan.to_dict()) == plan


WRONG = {
    "no budget": ({}, "no budget"),
    "two": ({"keep_macs": 0.5, "keep_channels": 0.5}, "keep_channels=0.5, keep_macs=0.5"),
    "all": ({"keep_macs": 1.0}, "keep_macs=1.0"),
    "none": ({"keep_parameters": 0}, "keep_parameters=0"),
    "criterion": ({"keep_macs": 0.5, "criterion": "l3"}, "'l1'"),
    "scope": ({"keep_macs": 0.5, "scope": "local"}, "scope='local'"),
    "divisor": ({"keep_macs": 0.5, "divisor": 0}, "divisor=0"),
    "least": ({"keep_macs": 0.5, "keep_at_least": 1.0}, "keep_at_least=1.0"),
    "layers": ({"keep_macs": 0.5, "layers": []}, "layers=[]"),
    "a function for nothing": ({"keep_macs": 0.5, "latency": min}, "keep_latency=None, latency=<built-in function min>"),
}


def by_macs(model, smaller):
    """A measurement that has no noise."""
    return tfdistill.profile(smaller).macs / tfdistill.profile(model).macs


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_measured_budget_is_met_closely(share):
    calls = []

    def latency(model, smaller):
        calls.append(smaller)
        return 0.2 + 0.8 * by_macs(model, smaller) ** 0.7

    step = PruneChannels(keep_latency=share, latency=latency, divisor=1, keep_at_least=0)
    found = latency(net(), step.apply(net()))
    assert 0.9 * share < found <= share
    assert len(calls) <= 6
    assert f"{100 * found:.1f} % of its measured latency stay" in step.plan(net()).findings


def test_a_measured_budget_out_of_reach_says_what_is_reached():
    step = PruneChannels(keep_latency=0.5, latency=lambda model, smaller: 0.75)
    with pytest.raises(ModelError, match=r"0\.75 of its measured latency stay"):
        step.apply(net())
    assert "0.75 of its measured latency stay" in str(step.plan(net()))


@pytest.mark.parametrize("found", [None, 0.0, float("nan"), "0.5"])
def test_a_measurement_that_is_no_share_is_refused(found):
    with pytest.raises(ConfigurationError, match="latency= returned"):
        PruneChannels(keep_latency=0.5, latency=lambda model, smaller: found).plan(net())


@pytest.mark.slow
def test_a_budget_of_bytes_is_that_of_the_file(tmp_path):
    x = np.random.default_rng(0).normal(size=(16, 8, 8, 3)).astype("float32")
    sizes = []
    for model in (net(), PruneChannels(keep_bytes=0.6, divisor=1).apply(net())):
        sizes.append(tfdistill.export_tflite(model, tmp_path / "net.tflite", "int8", calibration=x).size_bytes)
    assert 0.5 < sizes[1] / sizes[0] <= 0.601


def test_rounds_meet_the_budget_together():
    model = net()
    for step in PruneChannels(keep_macs=0.3, divisor=1, keep_at_least=0).rounds(3):
        model = step.apply(model)
        assert step.keep_macs == pytest.approx(0.3 ** (1 / 3))
    assert 0.25 < tfdistill.profile(model).macs / tfdistill.profile(net()).macs <= 0.3
    with pytest.raises(ConfigurationError, match="rounds=0"):
        PruneChannels(keep_macs=0.5).rounds(0)


@pytest.mark.parametrize("name", WRONG)
def test_wrong_settings_are_refused(name):
    settings, said = WRONG[name]
    with pytest.raises(ConfigurationError) as caught:
        PruneChannels(**settings)
    assert said in str(caught.value)


X, Y = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32"), np.arange(8) % 3
NO_DATA = {
    "nothing": ("taylor", {}, "got no data"),
    "no loss": ("taylor", {"x": X, "y": Y}, "y=given, loss=None"),
    "no labels": ("fisher", {"x": X, "loss": "mse"}, "labels and their loss, or a teacher"),
    "ranks of labels": ("hrank", {"x": X, "y": Y}, "uses no labels"),
    "distance to labels": ("output_distance", {"x": X, "y": Y}, "uses no labels"),
    "data of weights": ("l1", {"x": X}, "looks at weights alone"),
}


@pytest.mark.parametrize("name", NO_DATA)
def test_criteria_get_the_data_that_they_need(name):
    criterion, data, said = NO_DATA[name]
    with pytest.raises(ConfigurationError, match=said):
        PruneChannels(keep_macs=0.5, criterion=criterion).plan(net(), **data)


@pytest.mark.parametrize(("x", "y"), [(X[:0], Y[:0]), (X, Y[:3]), (X * np.nan, Y)])
def test_useless_data_is_refused(x, y):
    with pytest.raises(DataError):
        PruneChannels(keep_macs=0.5, criterion="taylor").apply(net(), x, y, "sparse_categorical_crossentropy")


def test_a_budget_that_cannot_be_met_names_the_closest():
    step = PruneChannels(keep_macs=0.02)
    with pytest.raises(ModelError, match=r"keep_macs=0.02 cannot be met in 'images'") as caught:
        step.apply(net())
    reachable = float(caught.value.fix.partition("keep_macs=")[2].partition(";")[0])
    assert any("cannot be met" in line for line in step.plan(net()).findings)
    assert PruneChannels(keep_macs=reachable).apply(net()).count_params() < net().count_params()
    for remedy in ({"keep_at_least": 0.01, "divisor": 1}, {"divisor": 1, "keep_at_least": 0.05}):
        PruneChannels(keep_macs=0.02 if remedy["keep_at_least"] < 0.05 else reachable, **remedy).apply(net())


def test_a_named_layer_whose_channels_cannot_go_is_refused():
    model = randomized(images(lambda x: layers.Lambda(lambda x: x * 2)(conv(16, name="held")(conv(16, name="free")(x)))))
    step = PruneChannels(keep_channels=0.9, layers=["held", "free"])
    with pytest.raises(
        ModelError, match=r"does not work on 'held' \('lambda.*Lambda.* is left whole: no rule is known for a Lambda"
    ) as caught:
        step.apply(model)
    assert "leave these layers out of layers=" in caught.value.fix
    assert PruneChannels(keep_channels=0.9, layers="free").apply(model).get_layer("free").filters == 8
    with pytest.raises(ModelError, match="makes no channels of its own"):
        PruneChannels(keep_channels=0.9, layers=["a", "norm"], exclude="b").apply(net())


def test_nothing_to_do_is_said():
    model = randomized(images(lambda x: conv(8, name="narrow")(x)))
    step = PruneChannels(keep_channels=0.9)
    with pytest.raises(ModelError, match="'narrow': no smaller multiple of 8"):
        step.apply(model)
    assert step.plan(model).row("narrow").action == "skipped"


@keras.saving.register_keras_serializable("channels")
class Rolled(layers.Layer):
    """Moves every channel to the next place."""

    def call(self, x):
        return keras.ops.roll(x, 1, axis=-1)


class Odd(layers.Layer):
    """A layer without a rule."""

    def call(self, x):
        return keras.ops.roll(x, 1, axis=-1)


def rolled(kind):
    return randomized(images(lambda x: conv(16, name="after")(kind(name="roll")(conv(16, name="before")(x)))))


def test_a_wrong_rule_is_found_out():
    register_channels(Rolled, lambda call: [call.inputs[0]])
    with pytest.raises(InvariantError, match=r"differs by .* from the model's with these channels zero"):
        PruneChannels(keep_channels=0.7, divisor=1, layers="before").apply(rolled(Rolled))

    # As the error says.
    assert PruneChannels(keep_channels=0.7, divisor=1, exclude="before").apply(rolled(Rolled)).get_layer("after").filters < 16

    def together(call):
        call.keep(call.inputs[0][-1], "a roll of them")
        return [call.inputs[0]]

    register_channels(Rolled, together)
    assert PruneChannels(keep_channels=0.7, divisor=1).apply(rolled(Rolled)).get_layer("before").filters == 16


def test_what_a_rule_returns_is_checked():
    register_channels(Rolled, lambda call: [(None, None, None, call.inputs[0][-1][:4])])
    with pytest.raises(ModelError, match="returned axes of the sizes"):
        PruneChannels(keep_channels=0.7).plan(rolled(Rolled))

    def refuses(call):
        raise LeaveWhole("it rolls them")

    register_channels(Rolled, refuses)
    plan = PruneChannels(keep_channels=0.9).plan(rolled(Rolled))
    assert "'roll' (Rolled) is left whole: it rolls them" in plan.row("before").reason


def test_a_class_without_a_rule_is_left_whole():
    plan = PruneChannels(keep_channels=0.9, divisor=1).plan(rolled(Odd))
    assert plan.row("before").action == "skipped"
    assert "register_channels" in plan.row("before").reason
    assert plan.row("after").removed
    assert "'roll': Odd is no class of Keras's" in plan.custom[0]
    assert plan.macs == tfdistill.profile(rolled(Odd)).macs
    assert (
        PruneChannels(keep_channels=0.9, divisor=1).plan(rolled(Drawn)).findings[-1]
        == "MACs are without those of 'roll', which are not known"
    )


class Drawn(Odd):
    """Cannot be opened, as it draws random numbers."""

    def call(self, x):
        return super().call(x) + 0 * keras.random.uniform((1,))


@pytest.mark.parametrize(("kind", "rule"), [(int, len), (layers.Layer(), len), (Rolled, 3), (layers.Dense, len), (layers.LSTM, len)])
def test_what_cannot_be_registered_is_refused(kind, rule):
    with pytest.raises(ConfigurationError, match="register_channels"):
        register_channels(kind, rule)


def test_a_model_in_tf_keras_is_refused():
    model = keras.Sequential([keras.Input((6,)), layers.Dense(16, activation="relu"), layers.Dense(3)])
    step = Prune(0.5, end_step=1)
    adopted = step.apply(model)
    with pytest.raises(ModelError, match="which computes in tf_keras") as caught:
        PruneChannels(keep_macs=0.6).apply(adopted)
    assert "strip(model)" in caught.value.fix
    assert PruneChannels(keep_macs=0.6).apply(step.strip(adopted)).count_params() < model.count_params()
    with pytest.raises(ModelError, match="not built"):
        PruneChannels(keep_macs=0.6).apply(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(ModelError, match="A list"):
        PruneChannels(keep_macs=0.6).strip([])


def test_free_sizes_have_no_macs():
    inputs = keras.Input((None, 6))
    model = keras.Model(inputs, layers.Dense(3)(layers.Dense(16, activation="relu", name="hidden")(inputs)))
    with pytest.raises(ModelError, match="a size is free at 'hidden'") as caught:
        PruneChannels(keep_macs=0.6).apply(model)
    assert "keep_parameters=" in caught.value.fix
    assert PruneChannels(keep_parameters=0.6).apply(model).get_layer("hidden").units == 8


def test_check_holds_a_model_to_its_plan():
    step = PruneChannels(keep_macs=0.6)
    plan = step.plan(net())
    step.check(step.strip(step.apply(net())), plan)
    with pytest.raises(InvariantError, match="is not the model of the plan"):
        step.check(net(), plan)


def test_a_train_step_of_its_own_is_said_to_be_gone():
    class Trained(keras.Model):
        def train_step(self, data):
            return {}

    inputs = keras.Input((6,))
    model = Trained(inputs, layers.Dense(3)(layers.Dense(16, name="hidden")(inputs)))
    with pytest.warns(UserWarning, match="has its own train_step"):
        PruneChannels(keep_macs=0.6).apply(model)


def test_the_model_is_counted_as_the_profile_counts_it():
    for name in ("residual", "attention", "nested", "recurrent"):
        model = MODELS[name]()
        costs, record = Costs(model, ChannelTrace(model)), tfdistill.profile(model)
        none = costs.trace.units.removal()
        assert (costs.macs(none), costs.parameters(none)) == (record.macs, record.parameters)
