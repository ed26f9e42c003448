"""Run a model in OpenVINO or ONNX Runtime instead of PyTorch, with the same interface.

1. Only the network is exported. Crop, flip test and decoding are outside, so that they are the same for all
   runtimes, also for weights that were trained with UDP.
2. An exported file has a fixed batch size. Larger batches are split, and the last part is padded with zeros.
3. Files are named after a hash of the weights, and are kept in $POSEBOOK_CACHE, or in data/checkpoints.
4. `auto` is PyTorch on a GPU, because the other packages are installed for CPUs. On a CPU it is the first
   installed one of OpenVINO, ONNX Runtime and PyTorch. In the archived benchmark the first two are about
   equally fast and faster than PyTorch. An export takes longer than a few images take in PyTorch, so `auto`
   exports for EXPORT_FROM images or more; for fewer images, it uses a file that exists.
"""

from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from posebook import codecs
from posebook.inference import export, runtimes
from posebook.models import published
from posebook.models.layers import PoseModel

RUNTIMES = ("auto", "openvino", "onnxruntime", "pytorch")
BATCH = 8  # of exported files
EXPORT_FROM = 500  # images or frames


class RuntimeModel(PoseModel):
    """A runtime with a fixed batch size as a model, for any number of images."""

    def __init__(self, model: PoseModel, run: runtimes.InferenceFn, batch: int):
        super().__init__(model.skeleton, model.input_size)
        self.run, self.batch, self.udp, self.dark = run, batch, model.udp, model.dark

    def forward(self, images: Tensor) -> codecs.SimCC | list[Tensor]:
        parts = []
        for part in images.split(self.batch):
            padded = functional.pad(part, (0, 0, 0, 0, 0, 0, 0, self.batch - len(part)))  # (batch, 3, H, W)
            parts.append([torch.as_tensor(output)[: len(part)].float() for output in self.run(padded)])
        outputs = [torch.cat(stage) for stage in zip(*parts, strict=True)]  # each (B, ...)
        return codecs.SimCC(*outputs) if outputs[0].ndim == 3 else outputs


def open_runtime(
    model: PoseModel, name: str = "auto", device: str = "cpu", count: int | None = None
) -> tuple[PoseModel, str]:
    """Return the model in a runtime of RUNTIMES, and the name of the runtime, which is not "auto".

    count: number of images or frames to predict, None if unknown. Raises ValueError if a runtime other than
    "auto" cannot be used here.
    """
    folder = published.folder() / "exported"
    candidates = {"auto": ("openvino", "onnxruntime"), "pytorch": ()}.get(name, (name,))
    if name == "auto" and not (torch.device(device).type == "cpu" and _worth_export(model, folder, count)):
        candidates = ()
    images = torch.zeros(BATCH, 3, *model.input_size)
    for candidate in candidates:
        try:
            run = getattr(runtimes, candidate)(model, device, images=images, folder=folder)
        except Exception as error:  # each runtime has its own, for example for a damaged file
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if name != "auto":
                file = runtimes.onnx_path(model, BATCH, folder)
                advice = f"; if {file} is damaged, delete it" if file.exists() else ""
                raise ValueError(f"{name} cannot run this model: {reason}{advice}") from error
            if not isinstance(error, runtimes.Unavailable | export.OutputMismatch):
                print(f"{candidate} is not used: {reason}")
        else:
            return RuntimeModel(model, run, BATCH), candidate
    return model, "pytorch"


def _worth_export(model: PoseModel, folder: Path, count: int | None) -> bool:
    """Whether an exported file exists, or saves more time than the export takes (choice 4)."""
    return count is None or count >= EXPORT_FROM or runtimes.onnx_path(model, BATCH, folder).exists()
