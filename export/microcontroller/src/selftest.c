#include "selftest.h"

#include <stdio.h>
#include <string.h>

#include "model_settings.h"
#include "test_vectors.h"

static void say(const selftest_model *model, const char *line) {
  if (model->print) model->print(line);
}

/* printf of floats is left out of many C libraries for microcontrollers: whole steps, or six digits after the point by hand. */
static void number(char *text, size_t size, double value, int is_float) {
  if (!(value < 1e6)) {
    snprintf(text, size, "1000000 or more");
    return;
  }
  long whole = (long)value;
  long millionths = (long)((value - (double)whole) * 1e6 + 0.5);
  if (millionths == 1000000) {
    ++whole;
    millionths = 0;
  }
  if (is_float) {
    snprintf(text, size, "%ld.%06ld", whole, millionths);
  } else {
    snprintf(text, size, "%ld", whole);
  }
}

selftest_result model_selftest(const selftest_model *model, const uint8_t *data, size_t size) {
  char line[160], found[32], allowed[32];
  if (size != MODEL_BYTES || tensor_checksum(data, size) != model_vectors_checksum) {
    say(model, "selftest: this is another model than the one that the test vectors were made with; make the kit again");
    return SELFTEST_OTHER_MODEL;
  }
  selftest_result result = SELFTEST_PASSED;
  for (int vector = 0; vector < MODEL_VECTORS; ++vector) {
    double largest[MODEL_OUTPUTS] = {0.0};
    model->reset();
    for (int step = 0; step < MODEL_VECTOR_STEPS; ++step) {
      for (int i = 0; i < MODEL_INPUTS; ++i) {
        size_t bytes = tensor_bytes(&model_inputs[i]);
        if (!model_inputs[i].is_state) memcpy(model->input(i), model_vectors[vector].inputs[i] + (size_t)step * bytes, bytes);
      }
      if (model->run() != 0) {
        snprintf(line, sizeof line, "selftest: the model did not run on vector %d", vector);
        say(model, line);
        return SELFTEST_RUN_FAILED;
      }
      for (int i = 0; i < MODEL_OUTPUTS; ++i) {
        if (model_outputs[i].is_state) continue;
        const uint8_t *expected = model_vectors[vector].outputs[i] + (size_t)step * tensor_bytes(&model_outputs[i]);
        double apart = tensor_difference(&model_outputs[i], model->output(i), expected);
        if (apart > largest[i]) largest[i] = apart;
      }
    }
    for (int i = 0; i < MODEL_OUTPUTS; ++i) {
      if (model_outputs[i].is_state) continue;
      int wrong = largest[i] > (double)model_outputs[i].tolerance;
      int is_float = model_outputs[i].type == TENSOR_FLOAT32;
      number(found, sizeof found, largest[i], is_float);
      number(allowed, sizeof allowed, (double)model_outputs[i].tolerance, is_float);
      snprintf(line, sizeof line, "selftest: vector %d, %s: off by %s %s(at most %s): %s", vector, model_outputs[i].name, found,
               is_float ? "" : "steps ", allowed, wrong ? "FAILED" : "passed");
      say(model, line);
      if (wrong) result = SELFTEST_DIFFERENT;
    }
  }
  say(model, result == SELFTEST_PASSED ? "selftest: passed" : "selftest: FAILED");
  return result;
}
