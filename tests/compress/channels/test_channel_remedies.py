"""What errors of channel pruning and of the counter say to do is done here, and works."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from remedies_of_source import Row, check
from test_channel_reasons import STEP, Forgetful, dense_model, forgetful
from test_channel_settings import Rolled, X, Y, net, rolled

import tfdistill
from tfdistill.compress import Prune, PruneChannels, register_channels

HALF = PruneChannels(keep_macs=0.5)
TAYLOR = PruneChannels(keep_macs=0.5, criterion="taylor")
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
PRUNE = Prune(0.5, end_step=1)


def of_any_length(length=None, width=16):
    inputs = keras.Input((length, 6), name="series")
    return keras.Model(inputs, layers.Dense(3)(layers.Dense(width, activation="relu", name="hidden")(inputs)))


def nearly_excluded():
    inputs = keras.Input((64,))
    x = layers.Dense(256, activation="relu", name="larger")(layers.Dense(256, activation="relu", name="large")(inputs))
    few = layers.Dense(16, activation="relu", name="few")(inputs)
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([x, few])))


def smaller(step, model, *data, **more):
    assert step.apply(model, *data, **more).count_params() < model.count_params()


@keras.saving.register_keras_serializable("channels")
class Still(layers.ReLU):
    """A layer of Keras's with a rule of its own."""


def with_a_rule_of_one_axis(call):
    call.keep(call.inputs[0][-1], "a roll of them")
    return [call.inputs[0]]


def with_a_wrong_rule():
    register_channels(Rolled, lambda call: [call.inputs[0]])
    return rolled(Rolled)


def with_a_forgetful_rule():
    register_channels(Forgetful, forgetful)
    return dense_model(lambda x: Forgetful(8, name="own")(x))


def budgets():
    """Both ways that a budget that cannot be met names."""
    with pytest.raises(tfdistill.errors.ModelError) as caught:
        PruneChannels(keep_macs=0.02).apply(net())
    reachable = float(caught.value.fix.partition("keep_macs=")[2].partition(";")[0])
    smaller(PruneChannels(keep_macs=reachable), net())
    smaller(PruneChannels(keep_macs=0.02, keep_at_least=0.01, divisor=1), net())


def data_of_gradients():
    smaller(TAYLOR, net(), X, Y, LOSS)
    teacher = keras.models.clone_model(net())
    smaller(TAYLOR, net(), X, teacher=teacher)


def data_or_none():
    assert TAYLOR.plan(net(), X, Y, LOSS).names("done")
    data_of_gradients()
    smaller(PruneChannels(keep_macs=0.5, criterion="l2"), net())


def of_batches():
    return tf.data.Dataset.from_tensor_slices((X, Y)).batch(3)


def data_of_batches():
    x, y = next(iter(of_batches().unbatch().batch(256)))
    assert len(x) == len(X)
    smaller(TAYLOR, net(), x, y, LOSS)


def leaves_data_out():
    smaller(PruneChannels(keep_macs=0.5, criterion="l1"), net())
    smaller(PruneChannels(keep_macs=0.5, criterion="hrank"), net(), X)


def in_keras():
    model = dense_model(lambda x: layers.Dense(16, name="more")(x))
    smaller(STEP, model)
    smaller(STEP, PRUNE.strip(PRUNE.apply(model)))


def without_macs():
    model = of_any_length()
    smaller(PruneChannels(keep_parameters=0.6), model)
    smaller(PruneChannels(keep_channels=0.7), model)


ROWS = {
    "multiply-accumulates that are not known": Row(
        "give keep_parameters= or keep_channels=", lambda _: HALF.apply(of_any_length()), lambda _: without_macs()
    ),
    "a criterion without data": Row("give x=, to plan and to apply", lambda _: TAYLOR.apply(net()), lambda _: data_or_none()),
    "gradients of nothing": Row("give y= and loss=, or teacher=", lambda _: TAYLOR.apply(net(), X), lambda _: data_of_gradients()),
    "a data set": Row(
        "take them out of a tf.data.Dataset by x, y = next(iter(dataset.unbatch().batch(256)))",
        lambda _: TAYLOR.apply(net(), of_batches(), loss=LOSS, y=Y),
        lambda _: data_of_batches(),
    ),
    "a budget out of any reach": Row(
        "choose more layers: plan(model) shows which are left whole, and why",
        lambda _: PruneChannels(keep_macs=0.5, exclude=["large", "larger"]).apply(nearly_excluded()),
        lambda _: smaller(HALF, nearly_excluded()),
    ),
    "data for weights": Row(
        "leave it out, or take one of", lambda _: PruneChannels(keep_macs=0.5, criterion="l1").apply(net(), X), lambda _: leaves_data_out()
    ),
    "a wrong rule": Row(
        "if a rule of register_channels is yours",
        lambda _: PruneChannels(keep_channels=0.7, divisor=1, layers="before").apply(with_a_wrong_rule()),
        lambda _: smaller(PruneChannels(keep_channels=0.7, divisor=1, exclude="before"), with_a_wrong_rule()),
    ),
    "the name of a class": Row(
        "give the class itself: not its name, and not one of its layers",
        lambda _: register_channels("Rolled", with_a_rule_of_one_axis),
        lambda _: register_channels(Rolled, with_a_rule_of_one_axis),
    ),
    "no rule": Row(
        "for a layer that changes no axis write lambda call: [call.inputs[0]]",
        lambda _: register_channels(Still, None),
        lambda _: (register_channels(Still, lambda call: [call.inputs[0]]), smaller(STEP, dense_model(lambda x: Still(name="own")(x)))),
    ),
    "a class that has a rule": Row(
        "to leave some of its layers whole, give PruneChannels(exclude=...); for another rule, derive a class from it and register that",
        lambda _: register_channels(layers.ReLU, lambda call: [call.inputs[0]]),
        lambda _: (
            smaller(PruneChannels(keep_channels=0.9, divisor=1, exclude="before"), rolled(Still)),
            register_channels(Still, lambda call: [call.inputs[0]]),
            smaller(STEP, dense_model(lambda x: Still(name="own")(x))),
        ),
    ),
    "no measurement": Row(
        "give latency=tfdistill.pipeline.LatencyRatio(samples); or keep_macs=, which is counted",
        lambda _: PruneChannels(keep_latency=0.5),
        lambda _: [
            PruneChannels(keep_latency=0.5, latency=tfdistill.pipeline.LatencyRatio(np.zeros((16, 8, 8, 3)))),
            PruneChannels(keep_macs=0.5).apply(net()),
        ],
    ),
    "bytes of free sizes": Row(
        "build the model on keras.Inputs of fixed sizes, or give a budget of parameters",
        lambda _: PruneChannels(keep_bytes=0.5).apply(of_any_length()),
        lambda _: [PruneChannels(keep_bytes=0.9).apply(of_any_length(4, 256)), PruneChannels(keep_parameters=0.8).apply(of_any_length())],
    ),
    "a budget out of reach": Row(
        "; or allow more by a smaller keep_at_least= (now ", lambda _: PruneChannels(keep_macs=0.02).apply(net()), lambda _: budgets()
    ),
    "a model in tf_keras": Row(
        "change shapes first", lambda _: STEP.apply(PRUNE.apply(dense_model(lambda x: layers.Dense(16)(x)))), lambda _: in_keras()
    ),
    "a rule that forgets an argument": Row(
        "exclude it: exclude='own'",
        lambda _: STEP.apply(with_a_forgetful_rule()),
        lambda _: smaller(PruneChannels(keep_channels=0.9, divisor=1, exclude="own"), with_a_forgetful_rule()),
    ),
    "free sizes have no cost": Row(
        "give them: tfdistill.profile(model, shapes=",
        lambda _: tfdistill.profile(of_any_length()),
        lambda _: tfdistill.profile(of_any_length(), shapes={"series": (1, 7, 6)}),
    ),
}


@pytest.mark.parametrize("name", ROWS)
def test_what_channel_pruning_says_to_do_works(name, tmp_path):
    check(ROWS[name], tmp_path)
