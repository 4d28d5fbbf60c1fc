"""Microcontrollers with tflite-micro: the model, its operations, its memory and its test vectors as C and C++."""

import numpy as np

from tfdistill.errors import ExportError
from tfdistill.kits import c_source
from tfdistill.kits.refusals import Obstacle, lacking
from tfdistill.kits.vectors import LiteRT, zero_state
from tfdistill.runtime.micro_arena import run_in_micro
from tfdistill.runtime.operations import TYPES, operation_table

NAME = "microcontroller"
# Room in the arena for what the kernels of a board take beside those of a desktop, such as the buffers of CMSIS-NN.
_MARGIN, _MARGIN_BYTES = 0.1, 1024


def refusals(description, report):
    """Lists the operations that tflite-micro does not have, types that the C part does not have, and a file that is larger than the flash."""
    found = lacking(report, "tflite-micro")
    for tensor in (*description["inputs"], *description["outputs"]):
        if tensor["dtype"] not in c_source.TYPES:
            found.append(Obstacle(f"'{tensor['name']}' is of {tensor['dtype']}, and the kit has {', '.join(c_source.TYPES)}"))
    flash = description.limits.get("flash_bytes")
    if flash is not None and description["size_bytes"] > flash:
        found.append(Obstacle(f"it has {description['size_bytes']:,} bytes, and the flash {flash:,}", fix=_smaller(description)))
    return found


def made_files(description):
    """Returns the sources of this model."""
    operations = description.operations
    made = {
        "model_data.h": c_source.DATA_HEADER,
        "model_data.cc": c_source.data_source(description.content),
        "model_ops.h": c_source.ops_header(operations),
        "model_settings.h": c_source.settings_header(description, arena_with_margin(description)),
        "model_settings.c": c_source.settings_source(description),
        "test_vectors.h": c_source.vectors_header(description),
        "test_vectors.c": c_source.vectors_source(description),
    }
    return {f"src/{name}": text.encode() for name, text in made.items()}


def arena_with_margin(description):
    """Returns the size of the arena of the firmware, a multiple of 16 bytes: the smallest one and a tenth, and 1 KiB; at most what the device has."""
    wanted = int(description["arena_bytes"] * (1 + _MARGIN)) + _MARGIN_BYTES
    limit = description.limits.get("arena_bytes")
    return (wanted if limit is None else min(wanted, limit)) // 16 * 16


class Runner:
    """Runs the vectors in tflite-micro, whose kernels the device has, and measures the arena.

    Attributes:
        kernels: Name of the kernels, as model.json has it.
        least_steps: Kernels that are written for a processor may round otherwise than the plain ones that run here.
    """

    kernels, least_steps = "tflite-micro", 1

    def __init__(self, file, description):
        self._file, self._description, self._litert = file, description, LiteRT(file, description)

    def run(self, sequences):
        """As `LiteRT.run`; writes the arena into the description, and refuses a file that needs a larger one than the device has."""
        described = self._description
        inputs, outputs = described["inputs"], described["outputs"]
        places = {side: {tensor["name"]: i for i, tensor in enumerate(described[side])} for side in ("inputs", "outputs")}
        states = [(places["inputs"][pair["input"]], places["outputs"][pair["output"]]) for pair in described["states"]]
        given = []
        for sequence in sequences:
            count = len(next(iter(sequence.values())))
            rows = [[zero_state(t) if t["kind"] == "state" else sequence[t["name"]][i] for t in inputs] for i in range(count)]
            given.append(rows)
        done = run_in_micro(self._file, given, len(outputs), states)
        described["arena_bytes"] = done.arena_bytes
        self._require_arena(done.arena_bytes)
        made = []
        for rows in done.outputs:
            stacked = {t["name"]: np.stack([row[i] for row in rows]) for i, t in enumerate(outputs) if t["kind"] != "state"}
            made.append({name: array.reshape(len(rows), *_shape(outputs, name)) for name, array in stacked.items()})
        described.apart = _apart(made, self._litert.run(sequences))
        return made

    def _require_arena(self, needed):
        limit = self._description.limits.get("arena_bytes")
        if limit is not None and needed > limit:
            raise ExportError(
                f"'{self._file.path}' does not run on this device (microcontroller): it needs an arena of {needed:,} bytes, and there are {limit:,}.",
                "a file whose tensors fit",
                fix=_smaller(self._description),
            )


def notes(description, report):
    """Says how far tflite-micro is from LiteRT on the vectors, and of operations whose types no table has."""
    found = [f"On the vectors tflite-micro is at most {apart:g} from LiteRT ('{name}')." for name, apart in description.apart.items()]
    table = operation_table("micro")
    unknown = sorted(
        {o.name for o in report.operations if o.kind in TYPES and table.takes(o.name, o.kind) is None and o.targets["micro"] is None}
    )
    return found + ([f"No measurement says in which types tflite-micro has {', '.join(unknown)}; it ran here."] if unknown else [])


def _shape(outputs, name):
    return next(tensor["shape"] for tensor in outputs if tensor["name"] == name)


def _apart(made, others):
    found = {}
    for one, other in zip(made, others, strict=True):
        for name, array in one.items():
            apart = float(np.abs(array.astype("float64") - other[name].astype("float64")).max(initial=0.0))
            found[name] = max(found.get(name, 0.0), apart)
    return found


def _smaller(description):
    if description["variant"] in ("float32", "float16", "dynamic_range"):
        return "take the variant int8: its weights have a quarter of the bytes"
    return "make a smaller model: tfdistill.compress.PruneChannels, or a student with fewer channels"
