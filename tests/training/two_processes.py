"""Started by torchrun: the gradient of one batch, by all processes together, written by the first."""

import sys

import safetensors.torch
import torch

from posebook import datasets, models
from posebook.training import checkpoints, data, loop, recipes, runtime
from posebook.training.config import TrainConfig

root, out = sys.argv[1:]
people = datasets.load("synthetic", root, "train")
recipe = recipes.get("fast", input_size=[64, 64], batch_size=7)
how = runtime.make_runtime(TrainConfig())
torch.manual_seed(0)
net = models.build("starnet-pose-t", people.skeleton, (64, 64)).eval()  # eval: batch norm sees no batch
optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
run = checkpoints.TrainState(net, net, optimizer, torch.amp.GradScaler("cpu", enabled=False), {})
batch = next(iter(loop.batch_iterator(data.TrainDataset(people, recipe, 0), 0, how)))
loop.train_step(run, loop.wrap_model(run, recipe, 0, how), batch, 7, recipe, how, 2)
if how.rank == 0:
    gradients = {name: p.grad.contiguous() for name, p in net.named_parameters() if p.grad is not None}
    safetensors.torch.save_file(gradients, out)
how.barrier()
