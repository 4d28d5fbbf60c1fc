#include "tensor_math.h"

#include <math.h>
#include <string.h>

size_t tensor_element_bytes(const tensor_info *info) {
  switch (info->type) {
    case TENSOR_FLOAT32:
    case TENSOR_INT32:
      return 4;
    case TENSOR_INT16:
      return 2;
    default:
      return 1;
  }
}

size_t tensor_bytes(const tensor_info *info) { return info->elements * tensor_element_bytes(info); }

static double clipped(const tensor_info *info, double value) {
  double low = -2147483648.0, high = 2147483647.0;
  if (info->type == TENSOR_INT8) {
    low = -128.0;
    high = 127.0;
  } else if (info->type == TENSOR_UINT8) {
    low = 0.0;
    high = 255.0;
  } else if (info->type == TENSOR_INT16) {
    low = -32768.0;
    high = 32767.0;
  } else if (info->type == TENSOR_BOOL) {
    low = 0.0;
    high = 1.0;
  }
  /* A NaN, which no comparison holds for, becomes the lowest value: a cast of one is undefined. */
  return value >= low ? (value <= high ? value : high) : low;
}

int32_t tensor_quantize(const tensor_info *info, double value) {
  double steps = info->scale > 0.0 ? nearbyint(value / info->scale) + info->zero_point : nearbyint(value);
  return (int32_t)clipped(info, steps);
}

double tensor_dequantize(const tensor_info *info, int32_t integer) {
  return info->scale > 0.0 ? ((double)integer - info->zero_point) * info->scale : (double)integer;
}

void tensor_set(const tensor_info *info, void *data, size_t index, double value) {
  uint8_t *place = (uint8_t *)data + index * tensor_element_bytes(info);
  if (info->type == TENSOR_FLOAT32) {
    float number = (float)value;
    memcpy(place, &number, sizeof number);
    return;
  }
  int32_t integer = tensor_quantize(info, value);
  if (info->type == TENSOR_INT32) {
    memcpy(place, &integer, sizeof integer);
  } else if (info->type == TENSOR_INT16) {
    int16_t narrow = (int16_t)integer;
    memcpy(place, &narrow, sizeof narrow);
  } else {
    *place = (uint8_t)(integer & 0xFF);
  }
}

double tensor_element(const tensor_info *info, const void *data, size_t index) {
  const uint8_t *place = (const uint8_t *)data + index * tensor_element_bytes(info);
  if (info->type == TENSOR_FLOAT32) {
    float number;
    memcpy(&number, place, sizeof number);
    return number;
  }
  if (info->type == TENSOR_INT32) {
    int32_t integer;
    memcpy(&integer, place, sizeof integer);
    return integer;
  }
  if (info->type == TENSOR_INT16) {
    int16_t integer;
    memcpy(&integer, place, sizeof integer);
    return integer;
  }
  return info->type == TENSOR_INT8 ? (double)*(const int8_t *)place : (double)*place;
}

double tensor_get(const tensor_info *info, const void *data, size_t index) {
  double element = tensor_element(info, data, index);
  return info->type == TENSOR_FLOAT32 ? element : tensor_dequantize(info, (int32_t)element);
}

double tensor_pixel(const tensor_info *info, int channel, uint8_t pixel) {
  if (info->normalized == 0) return pixel;
  int place = info->normalized == 1 ? 0 : channel;
  return ((double)pixel - info->mean[place]) / info->std[place];
}

void tensor_set_pixels(const tensor_info *info, void *data, const uint8_t *pixels) {
  size_t channels = info->channels > 0 ? (size_t)info->channels : 1;
  for (size_t i = 0; i < info->elements; ++i) tensor_set(info, data, i, tensor_pixel(info, (int)(i % channels), pixels[i]));
}

size_t tensor_argmax(const tensor_info *info, const void *data) {
  size_t best = 0;
  for (size_t i = 1; i < info->elements; ++i) {
    if (tensor_element(info, data, i) > tensor_element(info, data, best)) best = i;
  }
  return best;
}

double tensor_difference(const tensor_info *info, const void *left, const void *right) {
  double largest = 0.0;
  for (size_t i = 0; i < info->elements; ++i) {
    double apart = fabs(tensor_element(info, left, i) - tensor_element(info, right, i));
    if (isnan(apart)) return HUGE_VAL;
    if (apart > largest) largest = apart;
  }
  return largest;
}

uint32_t tensor_checksum(const uint8_t *data, size_t size) {
  uint32_t hash = 2166136261u;
  for (size_t i = 0; i < size; ++i) hash = (hash ^ data[i]) * 16777619u;
  return hash;
}
