"""How long a model takes for one input, timed as the StarNet-Pose authors time theirs.

Their script (tools/benchmark_latency.py): eager PyTorch, batch 1, 50 forwards to warm up, 200 timed one by
one from the host, the mean reported. The median and the spread are kept here too, and every sample.
"""

import time

import numpy as np
import torch
from torch import nn


@torch.no_grad()
def measure(
    model: nn.Module,
    input_size: tuple[int, int],
    batch: int = 1,
    device: str = "cpu",
    warmup: int = 50,
    runs: int = 200,
) -> dict:
    """Time forwards of random images (batch, 3, H, W): {"median", "mean", "p10", "p90", "samples"} in ms."""
    model.to(device).eval()
    images = torch.randn(batch, 3, *input_size, device=device)
    wait = torch.cuda.synchronize if torch.device(device).type == "cuda" else lambda: None
    samples = []
    for _ in range(warmup + runs):
        wait()
        start = time.perf_counter()
        model(images)
        wait()
        samples.append(1000 * (time.perf_counter() - start))
    samples = np.array(samples[warmup:])
    p10, median, p90 = np.percentile(samples, [10, 50, 90])
    return {
        "median": float(median),
        "mean": float(samples.mean()),
        "p10": float(p10),
        "p90": float(p90),
        "samples": samples.round(4).tolist(),
    }
