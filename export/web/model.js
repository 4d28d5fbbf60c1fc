// Opens the model of this kit in LiteRT.js and runs it.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

import { arrayOf, dequantize, elements } from "./preprocess.js";

let runtime = null;

/** The model, with what model.json says of it in `description`. */
export class Model {
  constructor(description, compiled) {
    this.description = description;
    this.compiled = compiled;
    this.held = {};
    this.reset();
  }

  /** Sets the states to zero. */
  reset() {
    for (const { input } of this.description.states) {
      const tensor = this.description.inputs.find(({ name }) => name === input);
      this.held[input] = new (arrayOf(tensor.dtype))(elements(tensor.shape)).fill(tensor.zero_point ?? 0);
    }
  }

  /** Runs once. `inputs` is {name: typed array} without the states; returns {outputs: {name: typed array}, milliseconds}. */
  async run(inputs) {
    const given = { ...inputs, ...this.held };
    const details = this.compiled.getInputDetails();
    const named = byName(details, this.description.inputs);
    const tensors = details.map(({ name, shape }) => new Tensor(given[named.get(name)], Array.from(shape)));
    const began = performance.now();
    const made = await this.compiled.run(tensors);
    const outputs = {};
    const results = byName(this.compiled.getOutputDetails(), this.description.outputs);
    for (const [i, { name }] of this.compiled.getOutputDetails().entries()) outputs[results.get(name)] = await made[i].data();
    const milliseconds = performance.now() - began;
    for (const tensor of [...tensors, ...made]) tensor.delete();
    for (const { input, output } of this.description.states) this.held[input] = outputs[output];
    return { outputs, milliseconds };
  }

  /** The real values of an output. */
  real(name, values) {
    return dequantize(values, this.description.outputs.find((tensor) => tensor.name === name));
  }

  /** Frees the model's memory. */
  delete() {
    this.compiled.delete();
  }
}

/** Maps the runtime's names of tensors to those of model.json; by position where a file without a signature has other ones. */
function byName(details, tensors) {
  const known = new Set(tensors.map(({ name }) => name));
  return new Map(details.map(({ name }, i) => [name, known.has(name) ? name : tensors[i].name]));
}

/** Reads model.json, checks that the model is the one that it describes, and opens it. */
export async function openModel(base = ".") {
  const description = await (await fetched(`${base}/model.json`)).json();
  if (description.format !== 1) throw new Error(`model.json has the format ${description.format}, and this page reads 1: make the kit again.`);
  const content = new Uint8Array(await (await fetched(`${base}/${description.file}`)).arrayBuffer());
  await requireSame(content, description);
  runtime ??= loadLiteRt(new URL(`${base}/litert/wasm/`, document.baseURI).href);
  await runtime;
  return new Model(description, await loadAndCompile(content, { accelerator: "wasm" }));
}

async function fetched(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path} is missing (${answer.status}): copy the whole folder.`);
  return answer;
}

async function requireSame(content, description) {
  const other = "is another model than the one that model.json and the test vectors were made with: make the kit again.";
  if (content.length !== description.size_bytes) throw new Error(`${description.file} ${other}`);
  if (!crypto.subtle) return; // an address without https: the size has to do
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== description.sha256) throw new Error(`${description.file} ${other}`);
}
