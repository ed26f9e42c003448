// Predicts a pose in the reader's browser; posebook.report.browser_demo puts this script, the model and ONNX Runtime into a page.
// The steps are those of `posebook predict --no-flip`: transforms.crop_affine, transforms.warp, transforms.normalize, codecs.decode_simcc.
// Coordinates are image pixels, and the center of the first pixel is (0, 0).

const demo = document.querySelector(".demo"), find = (selector) => demo.querySelector(selector);
const { inputSize: [H, W], padding, mean, std, beta, threshold, joints, limbs, colors, example } = JSON.parse(find("script.settings").textContent);
const status = find("[role=status]"), photo = find("canvas.photo"), cropped = find("canvas.crop"), menu = find("select");
const sides = ["left", "top", "width", "height"].map((name) => find(`input[name=${name}]`));
const rows = [...find("tbody").rows]; // in the order of the joints, also after the reader has sorted the table
const context = photo.getContext("2d", { willReadFrequently: true });

let bitmap, image, box, result; // what is shown: the decoded image, its pixels, the person's box, the prediction

// from an image to joints

async function unpack(name) { // the bytes of a script element, which are compressed with gzip and written in base64
  const bytes = Uint8Array.from(atob(find(`script.${name}`).textContent), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

function cropAffine({ left, top, width, height }) { // from image to input: (x, y) -> (zoom x + dx, zoom y + dy)
  const zoom = W / (Math.max(width, (height * W) / H) * padding);
  return { zoom, dx: W / 2 - zoom * (left + width / 2), dy: H / 2 - zoom * (top + height / 2) };
}

function warp({ data, width, height }, { zoom, dx, dy }) { // bilinear; pixels outside of the image are black
  const crop = new ImageData(W, H);
  const at = (x, y, c) => (x < 0 || x >= width || y < 0 || y >= height ? 0 : data[4 * (y * width + x) + c]);
  for (let row = 0; row < H; row++) {
    const y = (row - dy) / zoom, y0 = Math.floor(y), below = y - y0;
    for (let column = 0; column < W; column++) {
      const x = (column - dx) / zoom, x0 = Math.floor(x), right = x - x0, target = 4 * (row * W + column);
      for (let c = 0; c < 3; c++) {
        const upper = (1 - right) * at(x0, y0, c) + right * at(x0 + 1, y0, c);
        const lower = (1 - right) * at(x0, y0 + 1, c) + right * at(x0 + 1, y0 + 1, c);
        crop.data[target + c] = (1 - below) * upper + below * lower; // an ImageData rounds to the nearest integer
      }
      crop.data[target + 3] = 255;
    }
  }
  return crop;
}

function normalize({ data }) { // RGBA (H, W, 4) to float (3, H, W)
  const images = new Float32Array(3 * H * W);
  for (let c = 0, i = 0; c < 3; c++) {
    for (let pixel = 0; pixel < H * W; pixel++, i++) images[i] = (data[4 * pixel + c] - mean[c]) / std[c];
  }
  return images;
}

const argmax = (values) => values.reduce((best, value, i) => (value > values[best] ? i : best), 0);

async function predict(pixels, person) {
  const start = performance.now(), affine = cropAffine(person), crop = warp(pixels, affine);
  const images = new ort.Tensor("float32", normalize(crop), [1, 3, H, W]), ready = performance.now();
  const output = await session.run({ images }), end = performance.now();
  const logits = joints.map((_, k) => [output.x, output.y].map(({ data, dims }) => data.slice(k * dims[2], (k + 1) * dims[2])));
  const binsPerPixel = output.x.dims[2] / W;
  const inCrop = logits.map((axes) => axes.map((values) => argmax(values) / binsPerPixel));
  const keypoints = inCrop.map(([x, y]) => [(x - affine.dx) / affine.zoom, (y - affine.dy) / affine.zoom]);
  const scores = logits.map((axes) => Math.min(...axes.map((values) => Math.max(...values))));
  return { crop, logits, inCrop, keypoints, scores, milliseconds: { crop: ready - start, model: end - ready } };
}

// what the reader sees

function drawPhoto(drawn = box) {
  const unit = Math.max(1, Math.max(photo.width, photo.height) / 320), visible = (k) => result.scores[k] >= threshold;
  context.drawImage(bitmap, 0, 0);
  context.lineCap = "round";
  const line = (from, to, color, width) => {
    Object.assign(context, { strokeStyle: color, lineWidth: width });
    context.beginPath();
    context.moveTo(from[0] + 0.5, from[1] + 0.5); // a canvas counts from the corner of the first pixel
    context.lineTo(to[0] + 0.5, to[1] + 0.5);
    context.stroke();
  };
  for (const [a, b] of result ? limbs.filter((ends) => ends.every(visible)) : []) {
    line(result.keypoints[a], result.keypoints[b], "white", 3 * unit); // an outline that is visible on any background
    line(result.keypoints[a], result.keypoints[b], colors[b], 2 * unit);
  }
  result?.keypoints.forEach((point, k) => {
    if (visible(k)) line(point, point, colors[k], 4 * unit);
    if (k !== menu.selectedIndex) return;
    Object.assign(context, { strokeStyle: "white", lineWidth: unit });
    context.beginPath();
    context.arc(point[0] + 0.5, point[1] + 0.5, 5 * unit, 0, 2 * Math.PI);
    context.stroke();
  });
  for (const [color, dash] of [["white", []], ["black", [4 * unit, 4 * unit]]]) {
    Object.assign(context, { strokeStyle: color, lineWidth: unit });
    context.setLineDash(dash);
    context.strokeRect(drawn.left, drawn.top, drawn.width, drawn.height);
  }
  context.setLineDash([]);
}

function drawJoint() { // the crop with the distributions of the chosen joint along its edges
  const k = menu.selectedIndex, name = joints[k], [x, y] = result.inCrop[k], canvas = cropped.getContext("2d");
  canvas.putImageData(result.crop, 0, 0);
  for (const [color, width] of [["black", 4], ["white", 2]]) {
    Object.assign(canvas, { strokeStyle: color, lineWidth: width });
    canvas.beginPath();
    canvas.arc(x + 0.5, y + 0.5, 5, 0, 2 * Math.PI);
    canvas.stroke();
  }
  result.logits[k].forEach((values, axis) => {
    const peak = Math.max(...values), heights = [...values].map((value) => Math.exp(beta * (value - peak))); // softmax, scaled to 1
    const points = heights.map((height, i) => (axis ? `${height} ${i}` : `${i} ${1 - height}`));
    const ends = axis ? ["0 0", `0 ${values.length}`] : ["0 1", `${values.length} 1`];
    const svg = find(axis ? "svg.rows" : "svg.columns");
    svg.setAttribute("viewBox", axis ? `0 0 1 ${values.length}` : `0 0 ${values.length} 1`);
    svg.firstElementChild.setAttribute("d", `M${ends[0]}L${points.join("L")}L${ends[1]}Z`);
  });
  find(".simcc").ariaLabel = `crop with the distributions of ${name}: highest at column ${x}, row ${y} of the model's input`;
  drawPhoto();
}

async function update() { // predict and show the person in the box
  status.textContent = "The model is running.";
  result = demo.result = await predict(image, box);
  sides.forEach((side) => { side.value = Math.round(box[side.name]); });
  rows.forEach((row, k) => {
    const values = [...result.keypoints[k].map((value) => value.toFixed(1)), result.scores[k].toFixed(3)];
    values.forEach((value, i) => { row.cells[i + 1].textContent = value; });
  });
  const seen = result.scores.filter((score) => score >= threshold).length, { crop, model } = result.milliseconds;
  photo.ariaLabel = `image of ${photo.width} by ${photo.height} pixels with ${seen} of ${joints.length} joints drawn over the person in the box`;
  status.textContent = `${seen} of ${joints.length} joints have a score of at least ${threshold}. `
    + `Measured here: crop ${crop.toFixed(0)} ms, model ${model.toFixed(0)} ms.`;
  drawJoint();
}

let queue = Promise.resolve(); // a session runs one prediction at a time
const enqueue = (task) => (queue = queue.then(task).catch((error) => { status.textContent = `Error: ${error.message}`; }));

function wholeImage() {
  box = { left: 0, top: 0, width: image.width - 1, height: image.height - 1 };
}

async function open(source) { // an image element or a file; colors are not converted, as in OpenCV
  const opened = await createImageBitmap(source, { colorSpaceConversion: "none" }).catch(() => {
    throw new Error("this browser cannot read this file as an image.");
  });
  [bitmap, result] = [opened, undefined];
  [photo.width, photo.height] = [bitmap.width, bitmap.height];
  photo.style.width = `min(100%, ${(60 * bitmap.width) / bitmap.height}vh)`;
  context.drawImage(bitmap, 0, 0);
  image = demo.image = context.getImageData(0, 0, photo.width, photo.height);
  wholeImage();
  await update();
}

// events

const pixelAt = (event) => {
  const { left, top, width, height } = photo.getBoundingClientRect();
  return [((event.clientX - left) / width) * photo.width, ((event.clientY - top) / height) * photo.height];
};
const clamp = (value, size) => Math.max(0, Math.min(size - 1, value));

photo.addEventListener("pointerdown", (down) => {
  const start = pixelAt(down);
  let drawn = null;
  const move = (event) => {
    const [xs, ys] = pixelAt(event).map((value, i) => [value, start[i]].map((one) => clamp(one, i ? photo.height : photo.width)));
    drawn = { left: Math.min(...xs), top: Math.min(...ys), width: Math.abs(xs[0] - xs[1]), height: Math.abs(ys[0] - ys[1]) };
    drawPhoto(drawn);
  };
  photo.setPointerCapture(down.pointerId);
  photo.addEventListener("pointermove", move);
  photo.addEventListener("lostpointercapture", () => {
    photo.removeEventListener("pointermove", move);
    if (!drawn || Math.min(drawn.width, drawn.height) < 8) return drawPhoto(); // a click, not a box
    box = drawn;
    enqueue(update);
  }, { once: true });
});
sides.forEach((side) => side.addEventListener("change", () => {
  box = { ...box, [side.name]: Math.max(side.valueAsNumber || 0, side.min) };
  enqueue(update);
}));
find("fieldset button").addEventListener("click", () => { wholeImage(); enqueue(update); });
menu.addEventListener("change", drawJoint);
find("input[type=file]").addEventListener("change", ({ target }) => target.files[0] && enqueue(() => open(target.files[0])));
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", (event) => {
  event.preventDefault();
  const [file] = event.dataTransfer.files;
  if (file) enqueue(() => open(file));
});

// start: prepare the model, show the example, and compare it with Python's result

let session;
enqueue(async () => {
  const megabytes = new Blob([document.documentElement.outerHTML]).size / 1e6, start = performance.now();
  ort.env.wasm.numThreads = 1; // more threads need headers that a page opened from disk does not have
  ort.env.wasm.wasmBinary = await unpack("wasm");
  session = await ort.InferenceSession.create(await unpack("model"), { executionProviders: ["wasm"] });
  const seconds = (performance.now() - start) / 1000;
  await open(find("img.example"));
  menu.selectedIndex = argmax(result.scores);
  drawJoint();
  find("img.example").hidden = true;
  find(".live").hidden = false;
  const pixels = Math.max(...result.keypoints.flatMap((point, k) => point.map((value, i) => Math.abs(value - example.keypoints[k][i]))));
  const score = Math.max(...result.scores.map((value, k) => Math.abs(value - example.scores[k])));
  const small = (value) => (value < 1e-4 ? "less than 0.0001" : value.toFixed(4));
  find(".facts").textContent = `This page has ${megabytes.toFixed(1)} MB. Preparing the model took ${seconds.toFixed(1)} s. `
    + `Largest difference between this browser and Python on the example: ${small(pixels)} pixels, ${small(score)} in a score.`;
  demo.dataset.ready = "yes";
});
