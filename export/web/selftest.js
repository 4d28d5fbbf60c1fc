// Runs the test vectors and compares the outputs with those of the desk.

import { arrayOf, elements } from "./preprocess.js";

/** Returns {passed, lines}: for each vector and output how far it is off. */
export async function selftest(model, base = ".") {
  const { description } = model;
  const lines = [];
  let passed = description.vectors.length > 0;
  for (const [number, vector] of description.vectors.entries()) {
    const inputs = await read(vector.inputs, description.inputs, base);
    const expected = await read(vector.outputs, description.outputs, base);
    const worst = Object.fromEntries(Object.keys(expected).map((name) => [name, 0]));
    model.reset();
    for (let step = 0; step < vector.steps; step++) {
      const { outputs } = await model.run(part(inputs, step, vector.steps));
      for (const [name, values] of Object.entries(part(expected, step, vector.steps))) {
        worst[name] = Math.max(worst[name], difference(outputs[name], values));
      }
    }
    for (const [name, apart] of Object.entries(worst)) {
      const allowed = description.tolerance[name];
      const limit = allowed.steps ?? allowed.abs;
      const within = apart <= limit;
      passed &&= within;
      lines.push({ vector: number, output: name, apart, limit, unit: "steps" in allowed ? "steps" : "", passed: within });
    }
  }
  model.reset();
  return { passed, lines };
}

/** The largest difference of two arrays; infinity where one holds NaN, or they have different lengths. */
export function difference(left, right) {
  if (left.length !== right.length) return Infinity;
  let worst = 0;
  for (let i = 0; i < left.length; i++) {
    const apart = Math.abs(left[i] - right[i]);
    if (Number.isNaN(apart)) return Infinity;
    worst = Math.max(worst, apart);
  }
  return worst;
}

/** Reads the files of a vector: {name: typed array}. */
export async function read(paths, tensors, base = ".") {
  const found = {};
  for (const [name, path] of Object.entries(paths)) {
    const tensor = tensors.find((each) => each.name === name);
    const answer = await fetch(`${base}/${path}`);
    if (!answer.ok) throw new Error(`${path} is missing: copy the whole folder.`);
    const kind = arrayOf(tensor.dtype);
    const bytes = await answer.arrayBuffer();
    if (bytes.byteLength % (elements(tensor.shape) * kind.BYTES_PER_ELEMENT)) throw new Error(`${path} is not of this model.`);
    found[name] = new kind(bytes); // little-endian, as every browser's machine is
  }
  return found;
}

function part(arrays, step, steps) {
  return Object.fromEntries(
    Object.entries(arrays).map(([name, all]) => [name, all.slice((all.length / steps) * step, (all.length / steps) * (step + 1))]),
  );
}
