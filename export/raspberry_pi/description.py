"""What a kit knows of its model: from the file itself first, from `model.json` beside it for what the file does not say."""

import json
import pathlib

import metadata
import runtime
from errors import KitError

FORMAT = 1


class Description:
    """What is fed to a model and what comes out.

    Args:
        path: The .tflite file; `model.json` beside it is read where it is there.

    Attributes:
        path: The file.
        known: What `model.json` says, as a dict; empty if there is none.
        same_model: Whether `model.json` was made for this very file (by its SHA-256); None without `model.json`.

    Raises:
        KitError: if the file is missing or damaged, or `model.json` is.
    """

    def __init__(self, path):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise KitError(f"There is no model '{path}'.", "give its path with --model, or copy it here as model.tflite")
        self._inside = metadata.read(self.path)
        self.known, self.same_model = _read_json(self.path.with_name("model.json")), None
        if self.known:
            self.same_model = self.known.get("sha256") == runtime.sha256(self.path)
            self._about = {side: {each.get("name"): each for each in self.known.get(side, [])} for side in ("inputs", "outputs")}
        else:
            self._about = {"inputs": {}, "outputs": {}}

    def require_same_model(self):
        """Checks that `model.json`, its labels and its test vectors are those of this file.

        Raises:
            KitError: if not.
        """
        if self.same_model is False:
            raise KitError(
                f"'{self.path}' is another model than the one that model.json and the test vectors were made for "
                f"(SHA-256 {runtime.sha256(self.path)[:16]}..., not {str(self.known.get('sha256'))[:16]}...).",
                f"make the kit for it: tfdistill kit {self.path.name} --for raspberry_pi --out FOLDER; or copy the right model here",
            )

    def input(self, model, name):
        """Returns what is known of an input: dict with `kind` ("image", "tensor" or "state"), `mean` and `std` (None without) and `resize`."""
        inside, about = self._of("inputs", model.input_order, name)
        normalization = about.get("normalization") or {}
        mean, std = inside.get("mean") or normalization.get("mean"), inside.get("std") or normalization.get("std")
        shape = model.inputs[name].shape
        looks_like_image = len(shape) == 4 and shape[-1] in (1, 3)
        kind = "image" if inside.get("image") else about.get("kind") or ("image" if looks_like_image else "tensor")
        return {"kind": kind, "mean": mean, "std": std, "resize": about.get("resize") or {}}

    def output(self, model, name):
        """Returns what is known of an output: dict with `kind` ("scores", "tensor" or "state"), `activation` and `labels` (None without)."""
        inside, about = self._of("outputs", model.output_order, name)
        only = (
            sum(each.get("kind") == "scores" for each in self._about["outputs"].values()) <= 1 and about.get("kind", "scores") == "scores"
        )
        labels = inside.get("labels") or (self.known.get("labels") if only and self.same_model is not False else None)
        classes = model.outputs[name].shape[-1] if model.outputs[name].shape else 0
        if labels and len(labels) != classes:
            raise KitError(
                f"There are {len(labels)} labels for the {classes} values of the output '{name}'.", "export the model with its own labels"
            )
        return {"kind": about.get("kind") or "scores", "activation": about.get("activation"), "labels": labels}

    def _of(self, side, order, name):
        """Returns what the file says of a tensor, by its position in the graph, and what model.json says, by its name."""
        place = order.index(name)
        return (self._inside[side][place] if place < len(self._inside[side]) else {}), self._about[side].get(name, {})


def _read_json(path):
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_bytes().decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise KitError(f"'{path}' cannot be read: {error}.", "make the kit again with tfdistill kit") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise KitError(f"'{path}' is not of the format {FORMAT} that these programs read.", "make the kit again with tfdistill kit")
    for side in ("inputs", "outputs", "vectors"):
        if not isinstance(found.get(side, []), list) or not all(isinstance(each, dict) for each in found.get(side, [])):
            raise KitError(f"'{path}' is damaged: '{side}' is no list of objects.", "make the kit again with tfdistill kit")
    return found
