// The camera as a source of images.

/** Starts a camera in a video element. Returns a function that stops it. */
export async function startCamera(video) {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("This address has no camera: open the page by https or on localhost.");
  }
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
  } catch (error) {
    const reasons = {
      NotAllowedError: "The camera is not allowed: allow it in the browser's settings for this page.",
      NotFoundError: "There is no camera: connect one, or drop an image.",
      NotReadableError: "The camera is in use by another program: close that.",
    };
    throw new Error(reasons[error.name] ?? `The camera does not start: ${error.message}`);
  }
  video.srcObject = stream;
  await video.play();
  return () => {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
  };
}

/** Reads the pixels of an image, a video frame or a canvas: {data, width, height}. `crop` is a rectangle of the source. */
export function pixelsOf(source, crop) {
  const canvas = new OffscreenCanvas(crop.width, crop.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "#fff"; // behind what is transparent
  context.fillRect(0, 0, crop.width, crop.height);
  context.drawImage(source, crop.x, crop.y, crop.width, crop.height, 0, 0, crop.width, crop.height);
  return context.getImageData(0, 0, crop.width, crop.height);
}
