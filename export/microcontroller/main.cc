// Checks the model of this kit on the device, then shows how to run it.

#include <cstdio>

#include "model_runner.h"

// Gives the model something to look at: replace it by your sensor's values.
// Images: tensor_set_pixels(&model_inputs[i], model_input(i), bytes). Others: tensor_set for each element; both normalize and quantize as the model needs it.
static void read_sensor(void) {
  for (int i = 0; i < MODEL_INPUTS; ++i) {
    if (model_inputs[i].is_state) continue;
    for (size_t element = 0; element < model_inputs[i].elements; ++element) tensor_set(&model_inputs[i], model_input(i), element, 0.0);
  }
}

int main() {
  const int failed = model_begin();
  if (failed) {
    std::printf("The model cannot be opened (%d). 1: another format. 2: an operation is missing. 3: the arena of %u bytes is too small. 4: another model.\n",
                failed, static_cast<unsigned>(MODEL_ARENA_BYTES));
    return 1;
  }
  std::printf("%u of %u bytes of the arena are used\n", static_cast<unsigned>(model_arena_used()), static_cast<unsigned>(MODEL_ARENA_BYTES));
#ifndef MODEL_NO_SELFTEST
  if (model_run_selftest([](const char *line) { std::printf("%s\n", line); }) != SELFTEST_PASSED) return 2;
#endif
  model_reset();
  read_sensor();
  if (model_run() != 0) return 3;
  for (int i = 0; i < MODEL_OUTPUTS; ++i) {
    if (model_outputs[i].is_state) continue;
    const size_t best = tensor_argmax(&model_outputs[i], model_output(i));
    std::printf("%s: largest at %u %s\n", model_outputs[i].name, static_cast<unsigned>(best), model_label(best));
  }
  return 0;
}
