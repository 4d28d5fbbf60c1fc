/* Runs the model of this kit in tflite-micro. All memory is static. */
#ifndef MODEL_RUNNER_H_
#define MODEL_RUNNER_H_

#include <stddef.h>

#include "model_settings.h"
#include "selftest.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Opens the model once, before all else. Returns 0 if that worked; what is wrong is printed by tflite-micro. */
int model_begin(void);

/* Memory of an input. It is written before each run: a run uses the memory for other things. States are not written, they are passed on. */
void *model_input(int index);

/* Runs the model once. Returns 0 if that worked. */
int model_run(void);

/* Memory of an output, until the next run. */
const void *model_output(int index);

/* Sets the states to zero, as at the beginning of a recording. */
void model_reset(void);

/* Memory of the arena that is in use, after model_begin: MODEL_ARENA_BYTES of model_settings.h may be lowered towards it. */
size_t model_arena_used(void);

/* Runs the test vectors; prints by the function given. Define MODEL_NO_SELFTEST to leave their memory out of a product. */
#ifndef MODEL_NO_SELFTEST
selftest_result model_run_selftest(void (*print)(const char *line));
#endif

#ifdef __cplusplus
}
#endif
#endif
