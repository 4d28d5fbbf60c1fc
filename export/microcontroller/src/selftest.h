/* Runs the test vectors through a model and compares. C99, no tflite-micro: what runs the model is given as functions. */
#ifndef SELFTEST_H_
#define SELFTEST_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How to run a model. Each function gets the index of an input or output in the order of the file. */
typedef struct {
  void (*reset)(void);                    /* Sets the states to zero. */
  void *(*input)(int index);              /* Memory of an input, to be written before each run. */
  int (*run)(void);                       /* 0 if it ran. */
  const void *(*output)(int index);       /* Memory of an output, to be read after each run. */
  void (*print)(const char *line);        /* Prints a line; may be null. */
} selftest_model;

typedef enum {
  SELFTEST_PASSED = 0,
  SELFTEST_OTHER_MODEL = 1, /* The model in memory is not the one that the vectors were made with. */
  SELFTEST_RUN_FAILED = 2,
  SELFTEST_DIFFERENT = 3    /* An output is further from its vector than the tolerance. */
} selftest_result;

/* Checks the checksum of the model in memory, then runs all vectors. */
selftest_result model_selftest(const selftest_model *model, const uint8_t *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif
