"""Classifies pictures: a model, what is known of it, and the way from a picture to labels and scores."""

import pathlib
import time

import numpy as np
import preprocess
import runtime
from description import Description
from errors import KitError

HERE = pathlib.Path(__file__).resolve().parent


class Classifier:
    """A model that is asked with pictures.

    Args:
        path: The .tflite file; None is `model.tflite` beside these programs.
        threads: CPU threads.
        kernels: One of `runtime.KERNELS`.
        crop: Whether to cut pictures to the aspect ratio of the input; None does what `model.json` says, else stretches them.

    Raises:
        KitError: if the model cannot be opened, is not the one of `model.json`, or takes no picture.
    """

    def __init__(self, path=None, threads=1, kernels="xnnpack", crop=None):
        self.description = Description(path or HERE / "model.tflite")
        self.description.require_same_model()
        self.model = runtime.Model(self.description.path, threads, kernels)
        inputs = {name: self.description.input(self.model, name) for name in self.model.inputs}
        outputs = {name: self.description.output(self.model, name) for name in self.model.outputs}
        pictures = [name for name, about in inputs.items() if about["kind"] == "image"]
        scores = [name for name, about in outputs.items() if about["kind"] == "scores"]
        others = [name for name, about in inputs.items() if about["kind"] == "tensor"]
        if len(pictures) != 1 or others or not scores:
            raise KitError(
                f"The model takes { ({n: t.shape for n, t in self.model.inputs.items()}) } and gives { ({n: t.shape for n, t in self.model.outputs.items()}) }.",
                "use a model with a picture as its input and scores as an output; others are run with runtime.Model",
            )
        self.input, self.output = self.model.inputs[pictures[0]], self.model.outputs[scores[0]]
        self._about, self._scores = inputs[pictures[0]], outputs[scores[0]]
        self.crop = self._about["resize"].get("crop_to_aspect_ratio", False) if crop is None else crop
        self._states = States(self.model, self.description)

    @property
    def labels(self):
        """The labels, in the order of the scores; numbers where the model has none."""
        return self._scores["labels"] or [f"class {i}" for i in range(self.output.shape[-1])]

    def prepare(self, picture):
        """Returns the input of the model for a picture: see `preprocess.to_input`."""
        about = self._about
        antialias = about["resize"].get("antialias", False)
        return preprocess.to_input(picture, self.input, about["mean"], about["std"], self.crop, antialias)

    def classify(self, picture, top=5):
        """Classifies a picture.

        Args:
            picture: uint8 array (height, width, 1 or 3).
            top: Number of classes to return.

        Returns:
            Dict of `classes`, the most probable first, each `{"label": ..., "index": ..., "score": ...}`; `inference_ms`; and `preprocess_ms`.
        """
        began = time.perf_counter()
        given = {self.input.name: self.prepare(picture)}
        prepared = time.perf_counter()
        self.model.reset()
        self.model.set_inputs(self._states.with_states(given))
        self.model.invoke()
        raw = self.model.read_outputs()
        done = time.perf_counter()
        self._states.keep(raw)
        scores = probabilities(self.output.dequantize(raw[self.output.name]).reshape(-1), self._scores["activation"])
        best = np.argsort(-scores, kind="stable")[:top]
        return {
            "classes": [{"label": self.labels[i], "index": int(i), "score": round(float(scores[i]), 6)} for i in best],
            "preprocess_ms": round((prepared - began) * 1e3, 3),
            "inference_ms": round((done - prepared) * 1e3, 3),
        }


class States:
    """The states of a model that takes them as inputs and gives them as outputs, from one run to the next."""

    def __init__(self, model, description):
        self.model = model
        pairs = [(each["input"], each["output"]) for each in description.known.get("states") or []]
        self._pairs = [(i, o) for i, o in pairs if i in model.inputs and o in model.outputs]
        self.begin()

    def begin(self):
        """Sets all states to zero."""
        self._now = {}
        for name, _ in self._pairs:
            tensor = self.model.inputs[name]
            self._now[name] = np.full(tensor.shape, tensor.zero_point, tensor.dtype)

    def with_states(self, inputs):
        """Returns the inputs, with the states of this moment."""
        return {**inputs, **self._now}

    def keep(self, outputs):
        """Takes the states of the next run from the outputs of this one."""
        for source, target in self._pairs:
            self._now[source] = outputs[target]


def probabilities(scores, activation):
    """Returns scores as probabilities.

    Args:
        scores: Array (classes,), as the model gives them.
        activation: `softmax` if the model ends in it (or in a sigmoid), `none` if it gives logits; None if that is not known: logits are then what does not look like
            probabilities.
    """
    scores = scores.astype(np.float64)
    if activation is None:
        activation = "softmax" if scores.min() >= 0 and abs(scores.sum() - 1) < 0.05 else "none"
    if activation != "none" or len(scores) == 1:
        return scores
    powers = np.exp(scores - scores.max())
    return powers / powers.sum()
