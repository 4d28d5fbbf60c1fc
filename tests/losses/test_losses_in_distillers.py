"""Every loss of the table in one step of training, in this library's Distiller and in Keras's."""

import zipfile

import keras
import numpy as np
import pytest
from test_losses_table import TABLE, every_loss

from tfdistill import losses
from tfdistill.distill.distiller import Distiller


def model_for(case, side):
    """A small model with a layer "tap" whose output is what the loss compares. It is the final output too where labels are needed."""
    shape = getattr(case, side)[1:]
    inputs = keras.Input((8,))
    if isinstance(case.loss, losses.AttentionMaps):
        sequence = keras.layers.Reshape((shape[1], 4))(keras.layers.Dense(shape[1] * 4)(inputs))
        x = keras.layers.MultiHeadAttention(shape[0], 4, name="tap")(sequence, sequence)
    else:
        x = keras.layers.Dense(int(np.prod(shape)))(inputs)
        x = keras.layers.Reshape(shape)(x)
        x = keras.layers.Activation(case.activation(side) or "linear", name="tap")(x)
    if not isinstance(case.loss, (losses.TeacherBounded, losses.DecoupledKD)):
        x = keras.layers.Dense(5, name="logits")(keras.layers.Flatten()(x))
    return keras.Model(inputs, x)


def trained(case, distiller, steps=1):
    """Runs `fit`; returns its last logs, and the largest change of a student's weight."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 8)).astype("float32")
    regression = case.labels == "numbers"
    y = rng.normal(size=(6, *case.student[1:])).astype("float32") if regression else rng.integers(0, 5, 6)
    loss = "mse" if regression else keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile(optimizer=keras.optimizers.SGD(0.01), loss=loss, run_eagerly=True)
    before = [w.copy() for w in distiller.student.get_weights()]
    history = distiller.fit(x, y, batch_size=6, epochs=steps, verbose=0).history
    moved = max(np.abs(a - b).max() for a, b in zip(before, distiller.student.get_weights(), strict=True))
    return {name: values[-1] for name, values in history.items()}, moved


def tapped(case):
    if isinstance(case.loss, (losses.TeacherBounded, losses.DecoupledKD)):
        return case.loss
    return type(case.loss).from_config({**case.loss.get_config(), "teacher_layer_name": "tap", "student_layer_name": "tap"})


# The student's last layer comes after the layer that is compared, and the loss on labels has the weight 0.
nothing_for_the_last_layer = pytest.mark.filterwarnings("ignore:Gradients do not exist for variables:UserWarning")


@every_loss
@nothing_for_the_last_layer
def test_in_our_distiller(case):
    distiller = Distiller(model_for(case, "teacher"), model_for(case, "student"), tapped(case), student_loss_weight=0.0)
    logs, moved = trained(case, distiller)
    assert np.isfinite(logs["distillation_loss"])
    assert moved > 0


@pytest.mark.parametrize(
    "case",
    [p for p in TABLE if not p.values[0].loss.needs_labels and not p.values[0].loss.scheduled(0) and p.values[0].loss.tap_kind == "output"],
)
@nothing_for_the_last_layer
def test_in_keras_distiller(case):
    distiller = keras.distillation.Distiller(model_for(case, "teacher"), model_for(case, "student"), tapped(case), student_loss_weight=0.0)
    logs, moved = trained(case, distiller)
    assert np.isfinite(logs["distillation_loss"])
    assert moved > 0


@pytest.mark.parametrize("case", [p for p in TABLE if p.values[0].loss.needs_labels or p.values[0].loss.scheduled(0)])
def test_what_keras_distiller_does_not_pass_is_named(case):
    distiller = keras.distillation.Distiller(model_for(case, "teacher"), model_for(case, "student"), tapped(case), student_loss_weight=0.0)
    with pytest.raises(ValueError, match=r"train with tfdistill\.Distiller|shape"):
        trained(case, distiller)


def test_a_distiller_that_was_saved_with_the_former_names_of_the_layers_loads(tmp_path):
    case = next(param.values[0] for param in TABLE if param.id == "hint")
    distiller = Distiller(model_for(case, "teacher"), model_for(case, "student"), tapped(case))
    distiller.save(tmp_path / "present.keras")
    with zipfile.ZipFile(tmp_path / "present.keras") as present, zipfile.ZipFile(tmp_path / "former.keras", "w") as former:
        for name in present.namelist():
            content = present.read(name)
            if name == "config.json":
                assert content.count(b'_layer_name"') == 2
                content = content.replace(b'_layer_name"', b'_layer"')
            former.writestr(name, content)
    loaded = keras.saving.load_model(tmp_path / "former.keras")
    assert loaded.get_config()["distillation_losses"] == distiller.get_config()["distillation_losses"]
