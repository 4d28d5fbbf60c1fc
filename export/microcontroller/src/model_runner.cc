#include "model_runner.h"

#include <cstdint>
#include <cstring>

// Libraries of the Arduino IDE are found by a header of their own.
#if defined(__has_include)
#if __has_include(<TensorFlowLite.h>)
#include <TensorFlowLite.h>
#elif __has_include(<Chirale_TensorFlowLite.h>)
#include <Chirale_TensorFlowLite.h>
#endif
#endif

#include "model_data.h"
#include "model_ops.h"
#include "tensorflow/lite/micro/micro_interpreter.h"
#include "tensorflow/lite/schema/schema_generated.h"

namespace {

alignas(16) uint8_t arena[MODEL_ARENA_BYTES];
// States outlive the arena's tensors, whose memory a run uses several times.
alignas(16) uint8_t states[MODEL_STATE_BYTES > 0 ? MODEL_STATE_BYTES : 1];
tflite::MicroInterpreter *interpreter = nullptr;

// Calls a function for each state with its place in `states`.
template <typename Function>
void for_each_state(Function function) {
  size_t place = 0;
  for (int i = 0; i < MODEL_STATES; ++i) {
    const size_t bytes = tensor_bytes(&model_inputs[model_states[i].input]);
    function(model_states[i], states + place, bytes);
    place += bytes;
  }
}

}  // namespace

int model_begin(void) {
  if (interpreter != nullptr) return 0;
  const tflite::Model *model = tflite::GetModel(model_data);
  if (model->version() != MODEL_SCHEMA_VERSION) return 1;
  static ModelOps ops;
  if (AddModelOps(ops) != kTfLiteOk) return 2;
  static tflite::MicroInterpreter opened(model, ops, arena, MODEL_ARENA_BYTES);
  if (opened.AllocateTensors() != kTfLiteOk) return 3;
  for (int i = 0; i < MODEL_INPUTS; ++i) {
    if (opened.input(i)->bytes != tensor_bytes(&model_inputs[i])) return 4;
  }
  for (int i = 0; i < MODEL_OUTPUTS; ++i) {
    if (opened.output(i)->bytes != tensor_bytes(&model_outputs[i])) return 4;
  }
  interpreter = &opened;
  model_reset();
  return 0;
}

void *model_input(int index) { return interpreter->input(index)->data.raw; }

const void *model_output(int index) { return interpreter->output(index)->data.raw; }

int model_run(void) {
  for_each_state([](const model_state &state, uint8_t *held, size_t bytes) { std::memcpy(model_input(state.input), held, bytes); });
  if (interpreter->Invoke() != kTfLiteOk) return 1;
  for_each_state([](const model_state &state, uint8_t *held, size_t bytes) { std::memcpy(held, model_output(state.output), bytes); });
  return 0;
}

void model_reset(void) {
  for_each_state([](const model_state &state, uint8_t *held, size_t bytes) {
    (void)bytes;
    const tensor_info *info = &model_inputs[state.input];
    for (size_t i = 0; i < info->elements; ++i) tensor_set(info, held, i, 0.0);
  });
  // Operations with a memory of their own, such as a fused LSTM.
  if (interpreter != nullptr) interpreter->Reset();
}

size_t model_arena_used(void) { return interpreter->arena_used_bytes(); }

#ifndef MODEL_NO_SELFTEST
selftest_result model_run_selftest(void (*print)(const char *line)) {
  const selftest_model model = {model_reset, model_input, model_run, model_output, print};
  return ::model_selftest(&model, model_data, model_data_size);
}
#endif
