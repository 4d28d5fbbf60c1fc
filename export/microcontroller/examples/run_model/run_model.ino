// Checks the model on the board, then runs it twice a second. Needs a library with tflite-micro, such as Chirale_TensorFlowLite.

#include <tfdistill_model.h>

static void print_line(const char *line) { Serial.println(line); }

void setup() {
  Serial.begin(115200);
  while (!Serial && millis() < 4000) {
  }
  const int failed = model_begin();
  if (failed) {
    Serial.print("The model cannot be opened: ");
    Serial.println(failed);
    while (true) {
    }
  }
  model_run_selftest(print_line);
}

void loop() {
  // Replace by your sensor's values: tensor_set and tensor_set_pixels normalize and quantize as the model needs it.
  for (int i = 0; i < MODEL_INPUTS; ++i) {
    if (model_inputs[i].is_state) continue;
    for (size_t element = 0; element < model_inputs[i].elements; ++element) tensor_set(&model_inputs[i], model_input(i), element, 0.0);
  }
  const unsigned long began = micros();
  if (model_run() != 0) {
    Serial.println("The model did not run.");
    delay(1000);
    return;
  }
  const unsigned long took = micros() - began;
  for (int i = 0; i < MODEL_OUTPUTS; ++i) {
    if (model_outputs[i].is_state) continue;
    const size_t best = tensor_argmax(&model_outputs[i], model_output(i));
    Serial.print(model_outputs[i].name);
    Serial.print(": largest at ");
    Serial.print((unsigned long)best);
    Serial.print(" ");
    Serial.print(model_label(best));
    Serial.print(", microseconds: ");
    Serial.println(took);
  }
  delay(500);
}
