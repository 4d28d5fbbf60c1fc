"""Writes what is particular to a model as C and C++ source, for a firmware with tflite-micro."""

import json
import math

import numpy as np

HEAD = "/* Made by tfdistill kit for this model: do not edit. */\n"
TYPES = {
    "float32": "TENSOR_FLOAT32",
    "int8": "TENSOR_INT8",
    "uint8": "TENSOR_UINT8",
    "int16": "TENSOR_INT16",
    "int32": "TENSOR_INT32",
    "bool": "TENSOR_BOOL",
}
# Parts of the names of TFLite's operations whose methods of the resolver are not written as the others, `CONCATENATION` -> `AddConcatenation`.
_PARTS = {"CUMSUM": "CumSum", "BATCH_MATMUL": "BatchMatMul", "PADV2": "PadV2", "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM"}
_PER_LINE = 24
_LABELS = """static const char *const labels[] = {{{labels}}};

const char *model_label(size_t index) {{ return index < sizeof labels / sizeof labels[0] ? labels[index] : ""; }}
"""
_NO_LABELS = """const char *model_label(size_t index) {
  (void)index;
  return "";
}
"""


def method_of(operation):
    """Returns the method of tflite-micro's `MicroMutableOpResolver` that adds an operation, such as `AddDepthwiseConv2D`.

    Args:
        operation: Its name in the .tflite schema.
    """
    words = _PARTS.get(operation) or "".join(word if word[0].isdigit() else word.capitalize() for word in operation.split("_"))
    return f"Add{words}"


def byte_rows(data):
    """Returns bytes as the rows of a C array."""
    # One number of at most three digits per byte: large models compile in a fraction of the time of hexadecimal ones, and the source is smaller.
    return "\n".join("  " + ",".join(map(str, data[i : i + _PER_LINE])) + "," for i in range(0, len(data), _PER_LINE))


def quoted(text):
    """Returns a text as a C string of its UTF-8 bytes."""
    safe = "".join(chr(byte) if 32 <= byte < 127 and chr(byte) not in '"\\?' else f"\\{byte:03o}" for byte in text.encode("utf-8"))
    return f'"{safe}"'


def data_source(content):
    """Returns the C++ source of the model's bytes."""
    return (
        f'{HEAD}#include "model_data.h"\n\n// tflite-micro reads the tables and weights where they are: they are aligned, and constant so that they stay in flash.\n'
        f"alignas(16) const unsigned char model_data[] = {{\n{byte_rows(content)}\n}};\nconst size_t model_data_size = sizeof(model_data);\n"
    )


DATA_HEADER = f"""{HEAD}#ifndef MODEL_DATA_H_
#define MODEL_DATA_H_

#include <cstddef>

extern const unsigned char model_data[];
extern const size_t model_data_size;

#endif
"""


def ops_header(operations):
    """Returns the C++ header of the resolver.

    Args:
        operations: Names of the operations, each once.
    """
    added = "".join(f"  TF_LITE_ENSURE_STATUS(ops.{method_of(name)}());\n" for name in operations)
    return f"""{HEAD}#ifndef MODEL_OPS_H_
#define MODEL_OPS_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

// Exactly the operations of the model: the linker leaves all others out.
using ModelOps = tflite::MicroMutableOpResolver<{max(len(operations), 1)}>;

inline TfLiteStatus AddModelOps(ModelOps &ops) {{
  (void)ops;
{added}  return kTfLiteOk;
}}

#endif
"""


def settings_header(description, arena_bytes):
    """Returns the C header of the model's numbers.

    Args:
        description: The `Description`.
        arena_bytes: Size of the arena, with its margin.
    """
    states = {tensor["name"]: _bytes(tensor) for tensor in description["inputs"] if tensor["kind"] == "state"}
    return f"""{HEAD}#ifndef MODEL_SETTINGS_H_
#define MODEL_SETTINGS_H_

#include "tensor_math.h"

#define MODEL_SHA256 "{description["sha256"]}"
#define MODEL_BYTES {description["size_bytes"]}u
#define MODEL_SCHEMA_VERSION 3
#define MODEL_INPUTS {len(description["inputs"])}
#define MODEL_OUTPUTS {len(description["outputs"])}
#define MODEL_STATES {len(states)}
#define MODEL_STATE_BYTES {sum(-(-size // 16) * 16 for size in states.values())}u

/* Memory of the tensors. {description["arena_bytes"]} bytes are the least in which tflite-micro opened the model on a desktop, whose pointers are larger;
   the rest is for the kernels of a board, which take memory of their own. */
#ifndef MODEL_ARENA_BYTES
#define MODEL_ARENA_BYTES {arena_bytes}u
#endif

#ifdef __cplusplus
extern "C" {{
#endif

/* An input that gets the value of an output in the next run. */
typedef struct {{
  int input;
  int output;
}} model_state;

extern const tensor_info model_inputs[MODEL_INPUTS];
extern const tensor_info model_outputs[MODEL_OUTPUTS];
extern const model_state model_states[];

/* The name of a class; empty where there is none. */
const char *model_label(size_t index);

#ifdef __cplusplus
}}
#endif
#endif
"""


def settings_source(description):
    """Returns the C source of the model's numbers."""
    inputs, outputs = description["inputs"], description["outputs"]
    places = {side: {tensor["name"]: i for i, tensor in enumerate(description[side])} for side in ("inputs", "outputs")}
    pairs = [f"{{{places['inputs'][pair['input']]}, {places['outputs'][pair['output']]}}}" for pair in description["states"]]
    labels = [quoted(label) for label in description["labels"] or ()]
    numbers = "".join(
        f"static const float {kind}_{i}[] = {{{', '.join(map(_float, tensor['normalization'][kind]))}}};\n"
        for i, tensor in enumerate(inputs)
        if tensor["normalization"]
        for kind in ("mean", "std")
    )
    return f"""{HEAD}#include "model_settings.h"

{numbers}
const tensor_info model_inputs[MODEL_INPUTS] = {{
{"".join(_info(tensor, i, None) for i, tensor in enumerate(inputs))}}};

const tensor_info model_outputs[MODEL_OUTPUTS] = {{
{"".join(_info(tensor, i, description["tolerance"].get(tensor["name"])) for i, tensor in enumerate(outputs))}}};

const model_state model_states[] = {{{", ".join(pairs) or "{0, 0}"}}};

{_LABELS.format(labels=", ".join(labels)) if labels else _NO_LABELS}"""


def vectors_header(description):
    """Returns the C header of the test vectors."""
    return f"""{HEAD}#ifndef TEST_VECTORS_H_
#define TEST_VECTORS_H_

#include <stdint.h>

#include "model_settings.h"

#define MODEL_VECTORS {len(description["vectors"])}
#define MODEL_VECTOR_STEPS {description["vectors"][0]["steps"]}

#ifdef __cplusplus
extern "C" {{
#endif

/* Bytes of each input and output as the model takes and gives them, one step after the other; null for a state, which begins at zero. */
typedef struct {{
  const uint8_t *inputs[MODEL_INPUTS];
  const uint8_t *outputs[MODEL_OUTPUTS];
}} model_vector;

extern const model_vector model_vectors[MODEL_VECTORS];

/* Checksum of the model that the vectors were made with. */
extern const uint32_t model_vectors_checksum;

#ifdef __cplusplus
}}
#endif
#endif
"""


def vectors_source(description):
    """Returns the C source of the test vectors."""
    arrays, rows = [], []
    for number, vector in enumerate(description["vectors"]):
        named = {}
        for side in ("inputs", "outputs"):
            for place, tensor in enumerate(description[side]):
                path = vector[side].get(tensor["name"])
                named.setdefault(side, []).append(f"{side}_{number}_{place}" if path else "0")
                if path:
                    arrays.append(f"static const uint8_t {side}_{number}_{place}[] = {{\n{byte_rows(description.vectors[path])}\n}};\n")
        rows.append(f"  {{{{{', '.join(named['inputs'])}}}, {{{', '.join(named['outputs'])}}}}},\n")
    return (
        f'{HEAD}#include "test_vectors.h"\n\nconst uint32_t model_vectors_checksum = {checksum(description.content)}u;\n\n'
        f"{''.join(arrays)}\nconst model_vector model_vectors[MODEL_VECTORS] = {{\n{''.join(rows)}}};\n"
    )


def checksum(content):
    """Returns the FNV-1a checksum of bytes, of 32 bits."""
    value = 2166136261
    for byte in content:
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF
    return value


def _info(tensor, place, tolerance):
    normalized = tensor.get("normalization") or {"mean": [], "std": []}
    pointers = (f"mean_{place}", f"std_{place}") if normalized["mean"] else ("0", "0")
    allowed = 0.0 if tolerance is None else float(tolerance.get("steps", tolerance.get("abs", 0.0)))
    values = (
        quoted(tensor["name"]),
        TYPES[tensor["dtype"]],
        f"{math.prod(tensor['shape'])}u",
        repr(float(tensor["scale"] or 0.0)),
        str(tensor["zero_point"] or 0),
        str(int(tensor["kind"] == "state")),
        _float(allowed),
        str(tensor["shape"][-1] if tensor["shape"] else 1),
        str(len(normalized["mean"])),
        *pointers,
    )
    return f"  {{{', '.join(values)}}}, /* {json.dumps(tensor['shape'])} */\n"


def _float(value):
    text = str(np.float32(value))
    return f"{text}f" if "." in text or "e" in text else f"{text}.0f"


def _bytes(tensor):
    return math.prod(tensor["shape"]) * np.dtype(tensor["dtype"]).itemsize
