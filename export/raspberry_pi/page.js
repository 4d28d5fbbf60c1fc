"use strict";

// Frames of the camera are sent at most this large, and pictures that the board cannot read itself.
const FRAME_SIDE = 320, PICTURE_SIDE = 1024;
const element = (id) => document.getElementById(id);
// The part of the address behind # is not sent over the network.
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const headers = token ? { Authorization: `Bearer ${token}` } : {};
const canvas = document.createElement("canvas");
const pen = canvas.getContext("2d", { willReadFrequently: true });
let model = { media_types: ["image/png"], most_bytes: 0 };
let stream = null;

function say(text) {
  element("message").textContent = text;
  element("message").hidden = !text;
}

async function answer(path, options = {}) {
  const response = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  const found = await response.json();
  if (response.status === 401) throw new Error("This board asks for a token: add #token=... to the address of this page.");
  if (!response.ok) throw new Error(found.error);
  return found;
}

// A PPM picture: no compression, so that the board does not have to undo any.
function pixels(source, width, height, side) {
  const scale = Math.min(1, side / Math.max(width, height));
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  pen.drawImage(source, 0, 0, canvas.width, canvas.height);
  const { data } = pen.getImageData(0, 0, canvas.width, canvas.height);
  const head = new TextEncoder().encode(`P6\n${canvas.width} ${canvas.height}\n255\n`);
  const bytes = new Uint8Array(head.length + canvas.width * canvas.height * 3);
  bytes.set(head);
  for (let from = 0, to = head.length; from < data.length; from += 4) {
    bytes[to++] = data[from];
    bytes[to++] = data[from + 1];
    bytes[to++] = data[from + 2];
  }
  return new Blob([bytes], { type: "image/x-portable-pixmap" });
}

async function classify(blob) {
  const began = performance.now();
  const found = await answer("classify", { method: "POST", body: blob, headers: { "Content-Type": blob.type } });
  show(found, performance.now() - began);
}

function show(found, elapsed) {
  const rows = found.classes.map(({ label, score }) => {
    const row = document.createElement("li");
    const [bar, name, number] = ["bar", "label", "score"].map((kind) => {
      const part = document.createElement("span");
      part.className = kind;
      return part;
    });
    const share = Math.min(1, Math.max(0, score));
    bar.style.width = `${100 * share}%`;
    name.textContent = label;
    number.textContent = `${(100 * share).toFixed(1)} %`;
    row.append(bar, name, number);
    return row;
  });
  element("classes").replaceChildren(...rows);
  element("latency").textContent = `${found.inference_ms.toFixed(2)} ms on the board, ${elapsed.toFixed(0)} ms there and back`;
}

async function classifyFile(file) {
  stopCamera();
  say("");
  const image = element("picture");
  URL.revokeObjectURL(image.src);
  image.src = URL.createObjectURL(file);
  try {
    await image.decode();
  } catch {
    say(`"${file.name}" is no picture that this browser shows.`);
    return;
  }
  image.hidden = false;
  element("drop").hidden = true;
  const asItIs = model.media_types.includes(file.type) && file.size <= model.most_bytes;
  try {
    await classify(asItIs ? file : pixels(image, image.naturalWidth, image.naturalHeight, PICTURE_SIDE));
  } catch (error) {
    // Some files of a type that the board reads need more than it has: the browser unpacks them.
    try {
      if (!asItIs) throw error;
      await classify(pixels(image, image.naturalWidth, image.naturalHeight, PICTURE_SIDE));
    } catch (last) {
      say(last.message);
    }
  }
}

async function startCamera() {
  if (!navigator.mediaDevices) {
    say("Browsers give their camera to pages of this machine or over HTTPS only. From another machine: ssh -L 8000:localhost:8000 pi@board, then http://localhost:8000.");
    return;
  }
  say("");
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: 640, height: 480 }, audio: false });
  } catch (error) {
    say(error.name === "NotAllowedError" ? "The browser does not allow the camera." : `No camera: ${error.message}`);
    return;
  }
  const video = element("video");
  video.srcObject = stream;
  await video.play();
  video.hidden = false;
  element("picture").hidden = element("drop").hidden = true;
  element("camera").textContent = "Stop camera";
  element("camera").setAttribute("aria-pressed", "true");
  const own = stream;
  while (stream === own) {
    try {
      await classify(pixels(video, video.videoWidth, video.videoHeight, FRAME_SIDE));
      say("");
    } catch (error) {
      say(error.message);
      await new Promise((resume) => setTimeout(resume, 1000));
    }
    await new Promise(requestAnimationFrame);
  }
}

function stopCamera() {
  if (!stream) return;
  for (const track of stream.getTracks()) track.stop();
  stream = null;
  element("video").hidden = true;
  element("drop").hidden = !element("picture").hidden;
  element("camera").textContent = "Start camera";
  element("camera").setAttribute("aria-pressed", "false");
}

element("camera").addEventListener("click", () => (stream ? stopCamera() : startCamera()));
element("file").addEventListener("change", ({ target }) => {
  if (target.files.length) classifyFile(target.files[0]);
  target.value = "";
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  element("stage").classList.add("over");
});
document.addEventListener("dragleave", () => element("stage").classList.remove("over"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  element("stage").classList.remove("over");
  if (event.dataTransfer.files.length) classifyFile(event.dataTransfer.files[0]);
});

answer("model").then((found) => {
  model = found;
  document.title = element("name").textContent = found.name;
  element("about").textContent = `${found.classes} classes, ${found.input.shape.slice(1).join(" x ")} ${found.input.dtype}, ${found.engine}`;
}, (error) => say(error.message));
