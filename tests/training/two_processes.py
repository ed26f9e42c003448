"""Script for torchrun: all processes compute the gradient of one batch, and the first one writes it."""

import sys

import safetensors.torch
import torch

from posebook import datasets, models
from posebook.training import checkpoints, data, loop, recipes, runtime
from posebook.training.config import TrainConfig

root, out = sys.argv[1:]
dataset = datasets.load("synthetic", root, "train")
recipe = recipes.get("fast", input_size=[64, 64], batch_size=7)
settings = runtime.make_runtime(TrainConfig())
torch.manual_seed(0)
model = models.build(
    "starnet-pose-t", dataset.skeleton, (64, 64)
).eval()  # eval: batch norm must not depend on the split of the batch
optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
state = checkpoints.TrainState(model, model, optimizer, torch.amp.GradScaler("cpu", enabled=False), {})
batch = next(iter(loop.batch_iterator(data.TrainDataset(dataset, recipe, 0), 0, settings)))
loop.train_step(state, loop.wrap_model(state, recipe, 0, settings), batch, 7, recipe, settings, 2)
if settings.rank == 0:
    gradients = {name: p.grad.contiguous() for name, p in model.named_parameters() if p.grad is not None}
    safetensors.torch.save_file(gradients, out)
settings.barrier()
