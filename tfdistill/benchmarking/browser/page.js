// Runs a .tflite file by LiteRT.js. tfdistill/benchmarking/browser/file.py calls the functions of `window.file`.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

const KINDS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

let model, inputs; // inputs: [{values, shape}] of the timed runs, in the order of the file
let ends; // the outputs of the first and the last timed run

/** Opens the file; returns what it says of itself, and of this page's clock. */
async function open(path) {
  await loadLiteRt(new URL("litert/wasm/", document.baseURI).href);
  const content = new Uint8Array(await read(path));
  const began = performance.now();
  model = await loadAndCompile(content, { accelerator: "wasm" });
  const milliseconds = performance.now() - began;
  const plain = (details) => details.map(({ name, dtype, shape }) => ({ name, dtype, shape: Array.from(shape) }));
  return {
    inputs: plain(model.getInputDetails()),
    outputs: plain(model.getOutputDetails()),
    milliseconds,
    isolated: crossOriginIsolated,
    step: clockStep(),
  };
}

/** Runs the batches that lie one after the other in files, {path, dtype, shape} of each input. */
async function run(files) {
  const given = await Promise.all(files.map(async ({ path, dtype }) => new KINDS[dtype](await read(path))));
  const sizes = files.map(({ shape }) => elements(shape));
  const found = model.getOutputDetails().map(({ dtype }) => ({ dtype, shapes: [], parts: [] }));
  for (let batch = 0; batch < given[0].length / sizes[0]; batch++) {
    const tensors = given.map((values, i) => new Tensor(values.slice(batch * sizes[i], (batch + 1) * sizes[i]), files[i].shape));
    const made = await model.run(tensors);
    for (const [i, tensor] of made.entries()) {
      found[i].shapes.push(Array.from(tensor.type.layout.dimensions));
      found[i].parts.push(bytes(await tensor.data()));
    }
    for (const tensor of [...tensors, ...made]) tensor.delete();
  }
  return found.map(({ dtype, shapes, parts }) => ({ dtype, shapes, data: base64(parts) }));
}

/** Reads the inputs of the timed runs. */
async function prepare(files) {
  inputs = await Promise.all(files.map(async ({ path, dtype, shape }) => ({ values: new KINDS[dtype](await read(path)), shape })));
  ends = {};
}

/**
 * Times `count` groups of `group` runs; returns the milliseconds of each group.
 *
 * A run copies the inputs in, runs the file, and copies the outputs out, as `data` does. What it made is freed after the time of its group has ended.
 */
async function time(count, group) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const made = [];
    let outputs;
    const began = performance.now();
    for (let j = 0; j < group; j++) {
      const tensors = inputs.map(({ values, shape }) => new Tensor(values, shape));
      const results = await model.run(tensors);
      outputs = [];
      for (const tensor of results) outputs.push(await tensor.data());
      made.push(...tensors, ...results);
    }
    times.push(performance.now() - began);
    const shapes = made.slice(made.length - outputs.length).map((tensor) => Array.from(tensor.type.layout.dimensions));
    ends.last = { outputs, shapes };
    ends.first ??= ends.last;
    for (const tensor of made) tensor.delete();
  }
  return times;
}

/** The outputs of the first and the last timed run. */
function results() {
  const plain = ({ outputs, shapes }) =>
    model.getOutputDetails().map(({ dtype }, i) => ({ dtype, shapes: [shapes[i]], data: base64([bytes(outputs[i])]) }));
  return { first: plain(ends.first), last: plain(ends.last) };
}

/** The smallest step of the clock that shows in some thousand readings, in milliseconds. */
function clockStep() {
  let step = Infinity;
  let last = performance.now();
  for (let seen = 0; seen < 200; ) {
    const now = performance.now();
    if (now > last) {
      step = Math.min(step, now - last);
      last = now;
      seen++;
    }
  }
  return step;
}

async function read(path) {
  const answer = await fetch(path, { cache: "no-store" });
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.arrayBuffer();
}

function elements(shape) {
  return shape.reduce((product, size) => product * size, 1);
}

function bytes(array) {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

function base64(parts) {
  let text = "";
  for (const part of parts) {
    // In pieces, as a call takes a limited number of arguments.
    for (let at = 0; at < part.length; at += 0x8000) text += String.fromCharCode(...part.subarray(at, at + 0x8000));
  }
  return btoa(text);
}

window.file = { open, run, prepare, time, results };
