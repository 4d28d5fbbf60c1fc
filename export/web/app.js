// The page: images in, classes out.

import { pixelsOf, startCamera } from "./camera.js";
import { openModel } from "./model.js";
import { centered, imageInput, largest, probabilities } from "./preprocess.js";
import { read, selftest } from "./selftest.js";

const SHOWN = 5;
const part = Object.fromEntries(Array.from(document.querySelectorAll("[id]"), (element) => [element.id, element]));
const times = [];
let model = null;
let image = null; // the input of model.json that is an image; none for other models
let stopCamera = null;
let last = null; // what was shown last, to run it again with another crop

/** Classifies an image, a video frame or a canvas: {label, index, scores, milliseconds}. */
async function classify(source, width, height) {
  const [, wantedHeight, wantedWidth] = image.shape;
  const whole = { x: 0, y: 0, width, height };
  const crop = part.crop.checked ? centered(width, height, wantedWidth, wantedHeight) : whole;
  const inputs = await otherInputs();
  inputs[image.name] = imageInput(pixelsOf(source, crop), image);
  return run(inputs);
}

/** Inputs beside the image have the values of the first test vector. */
async function otherInputs() {
  const others = model.description.inputs.filter(({ name, kind }) => kind !== "state" && name !== image?.name);
  const paths = model.description.vectors[0].inputs;
  return read(Object.fromEntries(others.map(({ name }) => [name, paths[name]])), model.description.inputs);
}

async function run(inputs) {
  const { outputs, milliseconds } = await model.run(inputs);
  const scored = model.description.outputs.find(({ kind }) => kind === "scores") ?? model.description.outputs.find(({ kind }) => kind !== "state");
  const real = model.real(scored.name, outputs[scored.name]);
  const scores = scored.kind === "scores" ? probabilities(real, scored.activation) : real;
  // The largest of what the file gave: equal integers may differ after the softmax by rounding.
  const [{ index }] = largest(outputs[scored.name], 1);
  return { index, label: labelOf(index), scores, isShare: scored.kind === "scores", milliseconds };
}

const labelOf = (index) => model.description.labels?.[index] ?? `class ${index}`;

function show({ scores, isShare, milliseconds }) {
  times.push(milliseconds);
  times.splice(0, times.length - 15);
  const median = times.toSorted((a, b) => a - b)[Math.floor(times.length / 2)];
  part.latency.textContent = median < 10 ? median.toFixed(2) : median.toFixed(0);
  part.none.hidden = true;
  const top = largest(scores, SHOWN);
  const most = isShare ? 1 : Math.max(...top.map(({ value }) => Math.abs(value)), 1e-9);
  while (part.bars.children.length < top.length) part.bars.append(newBar());
  while (part.bars.children.length > top.length) part.bars.lastChild.remove();
  for (const [place, { index, value }] of top.entries()) {
    const [name, number, track] = part.bars.children[place].children;
    name.textContent = isShare ? labelOf(index) : (model.description.labels?.[index] ?? `value ${index}`);
    name.title = name.textContent;
    number.textContent = isShare ? `${(100 * value).toFixed(1)} %` : value.toPrecision(4);
    track.firstChild.style.width = `${Math.min(100, (100 * Math.abs(value)) / most)}%`;
  }
}

function newBar() {
  const bar = document.createElement("li");
  for (const name of ["name", "value", "track"]) {
    const span = document.createElement(name === "track" ? "div" : "span");
    span.className = name;
    bar.append(span);
  }
  const fill = document.createElement("div");
  fill.className = "fill";
  bar.lastChild.append(fill);
  bar.lastChild.setAttribute("aria-hidden", "true");
  return bar;
}

/** Shows a file as an image and classifies it. */
async function open(file) {
  endCamera();
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  } catch {
    throw new Error(`${file.name || "This"} is no image that the browser reads: choose a JPEG, PNG or WebP file.`);
  }
  const { width, height } = bitmap;
  Object.assign(part.preview, { width, height });
  part.preview.getContext("2d").drawImage(bitmap, 0, 0);
  visible(part.preview);
  part.drop.toggleAttribute("data-small", width < 160);
  last = async () => {
    const result = await classify(bitmap, width, height);
    show(result);
    return result;
  };
  return last();
}

async function toggleCamera() {
  if (stopCamera) return endCamera();
  stopCamera = await startCamera(part.video);
  visible(part.video);
  part.camera.setAttribute("aria-pressed", "true");
  part.camera.textContent = "Stop";
  last = null;
  const still = stopCamera;
  const step = async () => {
    if (stopCamera !== still) return;
    if (part.video.videoWidth) show(await classify(part.video, part.video.videoWidth, part.video.videoHeight));
    requestAnimationFrame(() => guarded(step));
  };
  await step();
}

function endCamera() {
  if (!stopCamera) return;
  stopCamera();
  stopCamera = null;
  part.camera.setAttribute("aria-pressed", "false");
  part.camera.textContent = "Camera";
  visible(part.hint);
}

function visible(shown) {
  for (const element of [part.preview, part.video, part.hint]) element.hidden = element !== shown;
  part.drop.toggleAttribute("data-empty", shown === part.hint);
}

/** Runs the self-test and shows what came out. */
async function check() {
  part.selftest.dataset.state = "waiting";
  part.selftest.textContent = "Self-test runs";
  part["selftest-again"].disabled = true;
  const { passed, lines } = await selftest(model);
  part["selftest-again"].disabled = false;
  part.selftest.dataset.state = passed ? "passed" : "failed";
  part.selftest.textContent = passed ? "✓ Self-test passed" : "✗ Self-test failed";
  part["selftest-lines"].replaceChildren(
    ...lines.map(({ vector, output, apart, limit, unit, passed: within }) => {
      const line = document.createElement("li");
      const off = unit ? apart : apart.toExponential(1);
      line.textContent = `${within ? "✓" : "✗"} vector ${vector + 1}, ${output}: off by ${off} ${unit} (at most ${limit})`.replace("  ", " ");
      return line;
    }),
  );
  if (!passed) fail(new Error("This browser computes something else than the desk did: see “About this model”."));
  return { passed, lines };
}

function describe() {
  const { metadata, variant, size_bytes: size, inputs, outputs, labels, sha256, made_with: made } = model.description;
  const name = metadata.name || "Model";
  const form = ({ name: tensor, dtype, shape }) => `${tensor}: ${dtype} [${shape.join(", ")}]`;
  document.title = name;
  part.title.textContent = name;
  part.subtitle.textContent = [variant, `${(size / 1024).toFixed(1)} KiB`, labels ? `${labels.length} classes` : null].filter(Boolean).join(" · ");
  const facts = {
    Description: metadata.description,
    Author: metadata.author,
    License: metadata.license,
    Inputs: inputs.map(form).join("; "),
    Outputs: outputs.map(form).join("; "),
    "SHA-256": sha256,
    "Made with": `tfdistill ${made.tfdistill}, LiteRT ${made["ai-edge-litert"]}`,
  };
  for (const [term, text] of Object.entries(facts)) {
    if (!text) continue;
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    [dt.textContent, dd.textContent] = [term, text];
    part.facts.append(dt, dd);
  }
}

/** For a model that takes no image: its test vectors to look at. */
function offerVectors() {
  part["hint-text"].textContent = "This model takes no image. Try a test vector.";
  part["image-controls"].hidden = true;
  for (const [number, vector] of model.description.vectors.entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `Test vector ${number + 1}`;
    button.addEventListener("click", () =>
      guarded(async () => {
        const inputs = await read(vector.inputs, model.description.inputs);
        model.reset();
        for (let step = 0; step < vector.steps; step++) {
          const cut = (all) => all.slice((all.length / vector.steps) * step, (all.length / vector.steps) * (step + 1));
          show(await run(Object.fromEntries(Object.entries(inputs).map(([name, all]) => [name, cut(all)]))));
        }
      }),
    );
    part["vector-controls"].append(button);
  }
}

function listen() {
  const first = (list) => Array.from(list ?? []).find(({ type }) => type.startsWith("image/") || type === "");
  const opened = (file) => file && guarded(() => open(file));
  part.file.addEventListener("change", () => {
    opened(part.file.files[0]);
    part.file.value = ""; // so that the same file can be chosen again
  });
  part.camera.addEventListener("click", () => guarded(toggleCamera));
  part.crop.addEventListener("change", () => last && guarded(last));
  document.addEventListener("paste", (event) => opened(first(event.clipboardData?.files)));
  for (const name of ["dragover", "dragleave", "drop"]) {
    document.addEventListener(name, (event) => {
      event.preventDefault();
      part.drop.toggleAttribute("data-over", name === "dragover");
      if (name === "drop") opened(event.dataTransfer.files[0]);
    });
  }
}

/** Runs something; what goes wrong is shown. */
async function guarded(action) {
  try {
    part.error.hidden = true;
    return await action();
  } catch (error) {
    endCamera();
    return fail(error);
  }
}

function fail(error) {
  part.error.textContent = error.message ?? String(error);
  part.error.hidden = false;
}

async function start() {
  model = await openModel();
  image = model.description.inputs.find(({ kind, shape }) => kind === "image" && [1, 3].includes(shape.at(-1))) ?? null;
  describe();
  part["selftest-again"].addEventListener("click", () => guarded(check));
  const { passed } = await check();
  if (image) listen();
  else offerVectors();
  if ("serviceWorker" in navigator) await navigator.serviceWorker.register("offline.js").catch(() => {}); // the page runs without it, with a network
  return passed;
}

// For the console and for programs that drive the page.
window.kit = { ready: guarded(start), open, check: () => guarded(check), classify };
