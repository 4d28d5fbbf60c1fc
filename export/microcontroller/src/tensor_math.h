/* Numbers of a model's inputs and outputs: quantization, normalization of pixels, the largest score, comparison. C99, no tflite-micro. */
#ifndef TENSOR_MATH_H_
#define TENSOR_MATH_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { TENSOR_FLOAT32, TENSOR_INT8, TENSOR_UINT8, TENSOR_INT16, TENSOR_INT32, TENSOR_BOOL } tensor_type;

/* One input or output. A real value is (integer - zero_point) * scale; scale is 0 where integers stand for themselves. */
typedef struct {
  const char *name;
  tensor_type type;
  size_t elements;
  double scale;
  int32_t zero_point;
  int is_state;         /* Whether it is passed on from run to run: see model_runner.h. */
  float tolerance;      /* Of an output: how far it may be from the test vectors, in steps of integers or as a number. */
  int channels;         /* Size of the last axis. */
  int normalized;       /* Number of means and standard deviations: 0, 1 or one for each channel. */
  const float *mean;
  const float *std;
} tensor_info;

/* Size of one element in bytes. */
size_t tensor_element_bytes(const tensor_info *info);

/* Size of the whole tensor in bytes. */
size_t tensor_bytes(const tensor_info *info);

/* The integer that stands for a real value: round(value / scale) + zero_point, halves to even, clipped to the type. */
int32_t tensor_quantize(const tensor_info *info, double value);

/* The real value that an integer stands for. */
double tensor_dequantize(const tensor_info *info, int32_t integer);

/* Writes a real value to a tensor's memory, which needs no alignment. */
void tensor_set(const tensor_info *info, void *data, size_t index, double value);

/* Reads an element as it stands there: the integer, or the float. */
double tensor_element(const tensor_info *info, const void *data, size_t index);

/* Reads a real value. */
double tensor_get(const tensor_info *info, const void *data, size_t index);

/* The real value of a pixel, 0 to 255, of a channel: (pixel - mean) / std; the pixel itself where there is no normalization. */
double tensor_pixel(const tensor_info *info, int channel, uint8_t pixel);

/* Writes an image of bytes (height, width, channels) as large as the input. */
void tensor_set_pixels(const tensor_info *info, void *data, const uint8_t *pixels);

/* The index of the largest element, the first of several. */
size_t tensor_argmax(const tensor_info *info, const void *data);

/* The largest difference of two tensors: in steps for integers, as a number for floats; infinity where one is NaN. */
double tensor_difference(const tensor_info *info, const void *left, const void *right);

/* FNV-1a of bytes, 32 bits: tells one model from another. */
uint32_t tensor_checksum(const uint8_t *data, size_t size);

#ifdef __cplusplus
}
#endif
#endif
