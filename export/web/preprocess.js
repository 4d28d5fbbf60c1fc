// From pixels to the numbers that the model takes, as Keras does it: gray by ITU-R 601, bilinear without antialiasing, (pixel - mean) / std, round(x / scale) + zero point.

const LIMITS = { int8: [-128, 127], uint8: [0, 255], int16: [-32768, 32767], int32: [-2147483648, 2147483647] };
const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array, int8: Int8Array, int16: Int16Array };

/** The typed array of a type's name. */
export function arrayOf(dtype) {
  const found = ARRAYS[dtype];
  if (!found) throw new Error(`The type ${dtype} is not known.`);
  return found;
}

/** Number of elements of a shape. */
export const elements = (shape) => shape.reduce((product, size) => product * size, 1);

/** Rounds to the nearest integer, halves to the even one, as NumPy does. */
export function roundHalfEven(x) {
  const down = Math.floor(x);
  const rest = x - down;
  if (rest !== 0.5) return rest < 0.5 ? down : down + 1;
  return down % 2 === 0 ? down : down + 1;
}

/** Converts real values to a tensor's type; `tensor` is an entry of model.json. */
export function quantize(values, tensor) {
  const made = new (arrayOf(tensor.dtype))(values.length);
  if (tensor.scale === null) {
    made.set(values);
    return made;
  }
  const [low, high] = LIMITS[tensor.dtype];
  for (let i = 0; i < values.length; i++) {
    made[i] = Math.min(high, Math.max(low, roundHalfEven(values[i] / tensor.scale) + tensor.zero_point));
  }
  return made;
}

/** Converts a tensor's values to real ones. */
export function dequantize(values, tensor) {
  if (tensor.scale === null) return Float32Array.from(values);
  return Float32Array.from(values, (value) => (value - tensor.zero_point) * tensor.scale);
}

/** The largest rectangle in the middle of an image that has the shape of the model's input: {x, y, width, height}. */
export function centered(width, height, wantedWidth, wantedHeight) {
  const inside = Math.min(width / wantedWidth, height / wantedHeight);
  const [w, h] = [Math.max(1, Math.floor(wantedWidth * inside)), Math.max(1, Math.floor(wantedHeight * inside))];
  return { x: Math.floor((width - w) / 2), y: Math.floor((height - h) / 2), width: w, height: h };
}

/** Splits RGBA bytes into channels of one (gray) or three (red, green, blue) bytes. */
export function channelsOf(rgba, channels) {
  const pixels = rgba.length / 4;
  const made = new Uint8Array(pixels * channels);
  for (let i = 0; i < pixels; i++) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (channels === 3) made.set([r, g, b], 3 * i);
    else made[i] = (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;
  }
  return made;
}

/** Resizes an image (height, width, channels): bilinear between the centers of pixels, without antialiasing. */
export function resize(pixels, width, height, channels, toWidth, toHeight) {
  const made = new Float32Array(toWidth * toHeight * channels);
  const columns = steps(width, toWidth);
  const rows = steps(height, toHeight);
  let place = 0;
  for (const [top, bottom, down] of rows) {
    for (const [left, right, across] of columns) {
      for (let c = 0; c < channels; c++) {
        const at = (y, x) => pixels[(y * width + x) * channels + c];
        const above = at(top, left) + (at(top, right) - at(top, left)) * across;
        const below = at(bottom, left) + (at(bottom, right) - at(bottom, left)) * across;
        made[place++] = above + (below - above) * down;
      }
    }
  }
  return made;
}

/** For each new place: the two old ones beside it, and how far it lies from the first; in floats of 32 bits, as Keras has them. */
function steps(size, toSize) {
  const scale = Math.fround(size / toSize);
  return Array.from({ length: toSize }, (_, i) => {
    const at = Math.fround(Math.fround((i + 0.5) * scale) - 0.5);
    const before = Math.floor(at);
    return [Math.max(before, 0), Math.min(Math.max(Math.ceil(at), 0), size - 1), at - before];
  });
}

/** Normalizes pixels, 0 to 255, in place; `normalization` is that of an input in model.json. */
export function normalize(values, normalization, channels) {
  if (!normalization) return values;
  const { mean, std } = normalization;
  for (let i = 0; i < values.length; i++) {
    const c = mean.length === 1 ? 0 : i % channels;
    values[i] = (values[i] - mean[c]) / std[c];
  }
  return values;
}

/** Makes the input of an image: `image` is {data: RGBA bytes, width, height}. */
export function imageInput(image, tensor) {
  const [, height, width, channels] = tensor.shape;
  const split = channelsOf(image.data, channels);
  const same = image.width === width && image.height === height;
  const resized = same ? Float32Array.from(split) : resize(split, image.width, image.height, channels, width, height);
  return quantize(normalize(resized, tensor.normalization, channels), tensor);
}

/** Turns real scores into shares that add up to 1, where the model ends in logits. */
export function probabilities(scores, activation) {
  if (activation !== "none") return Float32Array.from(scores);
  const largest = Math.max(...scores);
  const raised = Float32Array.from(scores, (score) => Math.exp(score - largest));
  const sum = raised.reduce((total, value) => total + value, 0);
  return raised.map((value) => value / sum);
}

/** The `count` largest: [{index, value}], the first of equal ones first. */
export function largest(values, count) {
  const order = Array.from(values, (value, index) => ({ index, value }));
  return order.sort((a, b) => b.value - a.value || a.index - b.index).slice(0, count);
}
