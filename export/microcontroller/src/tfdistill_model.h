/* The header by which the Arduino IDE finds this library. */
#ifndef TFDISTILL_MODEL_H_
#define TFDISTILL_MODEL_H_

#include "model_runner.h"
#include "tensor_math.h"

#endif
