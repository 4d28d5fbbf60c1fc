"""Headers that stand in for tflite-micro, whose wheel has none: what the sources of a kit use of it, with an interpreter whose runs give the outputs of the vectors."""

from tfdistill.kits import c_source
from tfdistill.runtime.versions import runtime_versions

# Path of a header -> its text; the methods of the resolver come in place of METHODS.
STAND_IN = {
    "tensorflow/lite/schema/schema_generated.h": """
#pragma once
#include <cstdint>
namespace tflite {
struct Model { std::uint32_t version() const { return 3; } };
inline const Model *GetModel(const void *data) { return static_cast<const Model *>(data); }
}
""",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """
#pragma once
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
#define TF_LITE_ENSURE_STATUS(a) do { const TfLiteStatus s = (a); if (s != kTfLiteOk) return s; } while (0)
namespace tflite {
template <unsigned int size> class MicroMutableOpResolver {
 public:
METHODS
 private:
  TfLiteStatus Add() { return ++count_ > size ? kTfLiteError : kTfLiteOk; }
  unsigned int count_ = 0;
};
}
""",
    "tensorflow/lite/micro/micro_interpreter.h": """
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include "model_ops.h"
#include "test_vectors.h"
#include "tensorflow/lite/schema/schema_generated.h"
struct TfLiteTensor { std::size_t bytes; union { char *raw; } data; };
namespace tflite {
class MicroInterpreter {
 public:
  MicroInterpreter(const Model *, const ModelOps &, std::uint8_t *arena, std::size_t size) : arena_(arena), size_(size) {}
  TfLiteStatus AllocateTensors() {
    std::size_t place = 0;
    const auto put = [&](const tensor_info *info, TfLiteTensor *tensor) {
      tensor->bytes = tensor_bytes(info);
      tensor->data.raw = reinterpret_cast<char *>(arena_ + place);
      place += (tensor->bytes + 15) / 16 * 16;
    };
    for (int i = 0; i < MODEL_INPUTS; ++i) put(&model_inputs[i], &inputs_[i]);
    for (int i = 0; i < MODEL_OUTPUTS; ++i) put(&model_outputs[i], &outputs_[i]);
    used_ = place;
    return place <= size_ ? kTfLiteOk : kTfLiteError;
  }
  TfLiteStatus Invoke() {
    for (int v = 0; v < MODEL_VECTORS; ++v) {
      for (int step = 0; step < MODEL_VECTOR_STEPS; ++step) {
        bool same = true;
        for (int i = 0; i < MODEL_INPUTS; ++i) {
          const std::size_t bytes = inputs_[i].bytes;
          if (model_vectors[v].inputs[i]) same = same && !std::memcmp(model_vectors[v].inputs[i] + step * bytes, inputs_[i].data.raw, bytes);
        }
        if (!same) continue;
        for (int i = 0; i < MODEL_OUTPUTS; ++i) {
          const std::size_t bytes = outputs_[i].bytes;
          if (model_vectors[v].outputs[i]) std::memcpy(outputs_[i].data.raw, model_vectors[v].outputs[i] + step * bytes, bytes);
          else std::memset(outputs_[i].data.raw, 7, bytes);
        }
        return kTfLiteOk;
      }
    }
    for (int i = 0; i < MODEL_OUTPUTS; ++i) std::memset(outputs_[i].data.raw, 0, outputs_[i].bytes);
    return kTfLiteOk;
  }
  TfLiteStatus Reset() { return kTfLiteOk; }
  TfLiteTensor *input(std::size_t i) { return &inputs_[i]; }
  TfLiteTensor *output(std::size_t i) { return &outputs_[i]; }
  std::size_t arena_used_bytes() const { return used_; }
 private:
  std::uint8_t *arena_;
  std::size_t size_, used_ = 0;
  TfLiteTensor inputs_[MODEL_INPUTS], outputs_[MODEL_OUTPUTS];
};
}
""",
}


def put_headers(folder):
    """Writes the headers into a folder."""
    names = [c_source.method_of(operation) for operation in runtime_versions("tflite-micro").operations]
    methods = "\n".join(f"  TfLiteStatus {name}() {{ return Add(); }}" for name in names)
    for path, text in STAND_IN.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace("METHODS", methods))
