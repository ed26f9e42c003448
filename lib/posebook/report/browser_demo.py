"""The page that runs a model in the reader's browser.

1. ONNX Runtime's WebAssembly build comes from npm when the page is built. Version and hash are pinned. The
   page uses one thread: more threads need headers of a server, which a page opened from disk does not have.
2. Runtime, model and script are part of the page, compressed with gzip and written in base64. The page is one
   file and needs no network.
3. Weights of bundled files are float16. The ONNX file contains them unchanged, each followed by a cast to
   float32: batch norms are not merged before the export, because merged weights are no float16 numbers.
4. template/browser_demo.js crops, normalizes and decodes as posebook.inference.predict does without flip
   test. The page shows by how much its result for the example differs from Python's.
"""

import base64
import gzip
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
from html import escape
from pathlib import Path

import cv2
import numpy as np
import torch

from posebook import transforms
from posebook.codecs import SimCC
from posebook.evaluation import metrics
from posebook.inference import export, predict
from posebook.models.layers import PoseModel

VERSION = "1.30.0"
SHA512 = (
    "q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="  # in base64
)
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"  # its build for CPUs only
JAVASCRIPT = Path(__file__).with_name("template") / "browser_demo.js"
BETA = 10.0  # inverse temperature of the distributions, as in the loss


def load_runtime(folder: str | Path) -> tuple[str, bytes]:
    """The script and the WebAssembly of ONNX Runtime, from npm's archive, which is kept in `folder`.

    Raises FileNotFoundError if npm is missing, ConnectionError if it cannot download, and ValueError for an
    archive with another hash.
    """
    archive = Path(folder) / f"onnxruntime-web-{VERSION}.tgz"
    if not archive.is_file():
        npm = shutil.which("npm")
        if npm is None:
            raise FileNotFoundError("npm is missing: install Node.js and build the page again")
        archive.parent.mkdir(parents=True, exist_ok=True)
        command = [npm, "pack", f"onnxruntime-web@{VERSION}", "--pack-destination", str(archive.parent)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            error = next((line for line in done.stderr.splitlines() if "code" not in line), "no message")
            raise ConnectionError(f"npm could not download onnxruntime-web {VERSION}: {error}")
    digest = base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != SHA512:
        raise ValueError(f"{archive} is not onnxruntime-web {VERSION}: its hash differs; delete it")
    with tarfile.open(archive) as tar:
        script, wasm = (tar.extractfile(f"package/dist/{name}") for name in (SCRIPT, WASM))
        assert script and wasm  # by the hash
        return script.read().decode(), wasm.read()


def onnx_bytes(model: PoseModel) -> bytes:
    """The model as ONNX: input `images` (1, 3, H, W), normalized; outputs `x` and `y`; choice 3.

    Raises ValueError for a model without SimCC outputs and for weights trained with UDP.
    """
    import onnx
    from onnx import helper, numpy_helper

    images = torch.zeros(1, 3, *model.input_size)
    with torch.no_grad():
        output = model.eval()(images)
    if not isinstance(output, SimCC) or model.udp:
        raise ValueError(
            "the script of the page decodes SimCC outputs without UDP only: choose another model"
        )
    # The exporter's optimization would merge batch norms.
    exported = export.to_onnx(model, images, ["images"], output._fields, optimize=False).model_proto
    graph = exported.graph
    casts = []
    for tensor in graph.initializer:
        values, name = numpy_helper.to_array(tensor), tensor.name
        if values.dtype == np.float32 and np.array_equal(values, values.astype(np.float16)):
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}.float16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:], graph.value_info[:]
    graph.node.extend(nodes)
    return exported.SerializeToString()


def page(model: PoseModel, image: np.ndarray, folder: str | Path) -> str:
    """The HTML that runs the model on a file of the reader, and first on an example (H, W, 3) uint8.

    folder: of npm's archive. If ONNX Runtime is not available, the HTML is a paragraph that says why.
    """
    try:
        script, wasm = load_runtime(folder)
    except (FileNotFoundError, ConnectionError) as error:
        return f'<p class="stopped"><strong>This page was not built.</strong> {escape(str(error))}</p>'
    script, exports = re.subn(r"export\s*\{([^}]*)\};?", _as_global, script)
    assert exports == 1 and "</script" not in script  # of the pinned version
    boxes, _ = predict.full_image_boxes(Path(), image)
    keypoints, scores = predict.predict_boxes(model, image, boxes, flip_test=False)
    skeleton = model.skeleton
    joints = [name.replace("_", " ") for name in skeleton.keypoints]
    settings = {
        "inputSize": model.input_size,
        "padding": transforms.PADDING,
        "mean": transforms.MEAN,
        "std": transforms.STD,
        "beta": BETA,
        "threshold": metrics.JOINT_THRESHOLD,
        "joints": joints,
        "limbs": skeleton.limbs,
        "colors": skeleton.colors,
        "example": {"keypoints": keypoints[0].tolist(), "scores": scores[0].tolist()},
    }
    parts = [
        _controls(joints, image, keypoints[0], scores[0], model.input_size),
        f'<script type="application/json" class="settings">{json.dumps(settings)}</script>',
        _packed("wasm", wasm),
        _packed("model", onnx_bytes(model)),
        "</div>",
        f'<script type="module">{script}</script>',
        f'<script type="module">{JAVASCRIPT.read_text(encoding="utf-8")}</script>',
    ]
    return "\n".join(parts)


def _as_global(match: re.Match) -> str:
    """The exports of a module as the global object `ort`: a script in a page cannot be imported."""
    pairs = (part.strip().split(" as ") for part in match[1].split(","))
    return "globalThis.ort={" + ",".join(f"{pair[-1]}:{pair[0]}" for pair in pairs) + "};"


def _packed(name: str, content: bytes) -> str:
    text = base64.b64encode(gzip.compress(content, mtime=0)).decode()
    return f'<script type="application/gzip" class="{name}">{text}</script>'


def _controls(
    joints: list[str],
    image: np.ndarray,
    keypoints: np.ndarray,
    scores: np.ndarray,
    input_size: tuple[int, int],
) -> str:
    """The visible elements. Without the script, they show the example and Python's result for it."""
    (height, width), (rows, columns) = image.shape[:2], input_size
    png = base64.b64encode(cv2.imencode(".png", image[..., ::-1])[1].tobytes()).decode()
    options = "".join(f"<option>{name}</option>" for name in joints)
    sides = "".join(
        f'<label>{name} <input type="number" name="{name}" min="{least}" value="0"></label>\n'
        for name, least in (("left", 0), ("top", 0), ("width", 8), ("height", 8))
    )
    lines = "".join(
        f"<tr><th>{name}</th><td>{x:.1f}</td><td>{y:.1f}</td><td>{score:.3f}</td></tr>\n"
        for name, (x, y), score in zip(joints, keypoints, scores, strict=True)
    )
    return f"""<div class="demo">
<p><label>Your image: <input type="file" accept="image/*"></label> (or drop it on the page)</p>
<img class="example" width="{width}" height="{height}" alt="A rendered person, the example"
 src="data:image/png;base64,{png}">
<div class="live" hidden>
<figure><canvas class="photo" role="img" aria-label="the example"></canvas></figure>
<div>
<p><label>Joint <select>{options}</select></label></p>
<div class="simcc" role="img" aria-label="distributions">
<svg class="columns" preserveAspectRatio="none"><path d=""/></svg>
<canvas class="crop" width="{columns}" height="{rows}"></canvas>
<svg class="rows" preserveAspectRatio="none"><path d=""/></svg>
</div>
</div>
<fieldset>
<legend>Box around the person, in pixels: drag it on the image, or</legend>
{sides}<button type="button">whole image</button>
</fieldset>
</div>
<p role="status">The model is prepared.</p>
<p class="facts"></p>
<table>
<thead><tr><th>joint</th><th>x</th><th>y</th><th>score</th></tr></thead>
<tbody>
{lines}</tbody>
</table>"""
