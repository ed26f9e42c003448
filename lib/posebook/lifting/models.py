"""MixSTE, MotionBERT and KTPFormer: lifters with one interface, so that frame pruning works with each.

MixSTE: Zhang et al., CVPR 2022. MotionBERT (its DSTformer): Zhu et al., ICCV 2023. KTPFormer: Peng et al.,
CVPR 2024. Shapes and order of operations follow the authors' code; key_mapping.py loads their files.

A lifter maps 2D sequences x (B, F, J, C) to 3D poses (B, F, J, 3). It has `embed(x) -> tokens`, `depth`,
`layer(i, tokens) -> tokens` and `head(tokens) -> poses`; tokens are (B, F, J, width). Layers from 1 on accept
any number of frames.

Choices where the papers give no detail, or where the code differs from what a reader expects:
1. MixSTE shares its two norms between all layers. It adds the temporal position embedding once, within the
   first layer.
2. KTPFormer's two prior blocks replace MixSTE's first spatial and first temporal block. The norm before their
   attention and that of the head have epsilon 1e-5; all other norms have 1e-6. The prior blocks have no
   stochastic depth.
3. Here MotionBERT's last norm is part of its last layer, because frame recovery follows it.
"""

import inspect
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from posebook.lifting.skeleton import BONES, H36M, adjacency
from posebook.models.transformer import Attention, Block, DropPath, FeedForward
from posebook.utils import check_name


def attend_joints(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block to the joints of each frame; x and the result are (B, F, J, C)."""
    return block(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # through (B F, J, C)


def attend_frames(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block to the frames of each joint; x and the result are (B, F, J, C)."""
    return attend_joints(block, x.transpose(1, 2)).transpose(1, 2)  # through (B J, F, C)


class Lifter(nn.Module):
    """Base class of all lifters: sequences (B, F, J, C) to poses (B, F, J, 3) in meters.

    Subclasses define `embed`, `layer` and `head`, see the module's docstring.
    """

    head: nn.Module

    def __init__(self, frames: int, channels: int, width: int, depth: int):
        super().__init__()
        self.frames, self.joints, self.channels = frames, len(H36M.keypoints), channels
        self.width, self.depth = width, depth

    def embed(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def layer(self, i: int, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x)
        for i in range(self.depth):
            tokens = self.layer(i, tokens)
        return self.head(tokens)


def drop_path_rates(drop_path: float, depth: int) -> list[float]:
    """The stochastic depth rate of each layer: it grows linearly from 0 to `drop_path`."""
    return [drop_path * layer / max(1, depth - 1) for layer in range(depth)]


def make_blocks(width: int, depth: int, heads: int, drop_path: float) -> nn.ModuleList:
    """Transformer blocks with an MLP ratio of 2 and `drop_path_rates`."""
    return nn.ModuleList(Block(width, heads, 2 * width, rate) for rate in drop_path_rates(drop_path, depth))


def make_head(width: int) -> nn.Sequential:
    """The regression head: tokens (..., width) to coordinates (..., 3) in meters."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))


class MixSTE(Lifter):
    """Alternating spatial and temporal transformer blocks. frames: the longest sequence it accepts."""

    def __init__(
        self,
        frames: int = 243,
        channels: int = 2,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        drop_path: float = 0.1,
    ):
        super().__init__(frames, channels, width, depth)
        self.start = nn.Linear(channels, width)  # input projection
        self.places = nn.Parameter(torch.zeros(1, self.joints, width))  # spatial position embedding
        self.times = nn.Parameter(torch.zeros(1, frames, width))  # temporal position embedding
        self.spatial = make_blocks(width, depth, heads, drop_path)
        self.temporal = make_blocks(width, depth, heads, drop_path)
        self.spatial_norm, self.temporal_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.head = make_head(width)

    def embed(self, x: Tensor) -> Tensor:
        return self.start(x) + self.places  # (B, F, J, C)

    def layer(self, i: int, x: Tensor) -> Tensor:
        x = self.spatial_norm(attend_joints(self.spatial[i], x))
        if i == 0:
            x = x + self.times[:, : x.shape[1], None]
        return self.temporal_norm(attend_frames(self.temporal[i], x))


class GraphConv(nn.Module):
    """A modulated graph convolution: (B, N, Cin) to (B, N, Cout).

    Zou and Tang, "Modulated Graph Convolutional Network for 3D Human Pose Estimation", ICCV 2021: the graph
    is the sum of a fixed and a learned one, the features of a node and of its neighbors have separate
    weights, and each node modulates the features that it passes on. graph: the fixed one, (N, N).
    """

    graph: Tensor

    def __init__(self, graph: Tensor, in_channels: int, out_channels: int):
        super().__init__()
        nodes, bound = len(graph), out_channels**-0.5
        self.register_buffer("graph", graph, persistent=False)
        self.weights = nn.Parameter(torch.empty(2, in_channels, out_channels))  # of the node, of neighbors
        self.modulation = nn.Parameter(torch.ones(nodes, out_channels))
        self.learned = nn.Parameter(torch.full((nodes, nodes), 1e-6))
        self.bias = nn.Parameter(torch.empty(out_channels).uniform_(-bound, bound))
        self.norm = nn.BatchNorm1d(out_channels)
        nn.init.xavier_uniform_(self.weights, gain=1.414)

    def links(self) -> Tensor:
        """The sum of the fixed and the learned graph (N, N), made symmetric."""
        links = self.graph + self.learned
        return (links + links.T) / 2

    def forward(self, x: Tensor) -> Tensor:
        own, neighbors = (self.modulation * (x @ weight) for weight in self.weights)  # (B, N, Cout) each
        links = self.links()
        diagonal = torch.diag(links.diagonal())
        x = diagonal @ own + (links - diagonal) @ neighbors + self.bias
        return torch.relu(self.norm(x.transpose(1, 2))).transpose(1, 2)  # batch norm wants (B, Cout, N)


class GraphPriorBlock(nn.Module):
    """A transformer block on tokens (B, N, C) that first pass through graph convolutions."""

    def __init__(self, graph: nn.Module, nodes: int, width: int, heads: int, residual: bool):
        super().__init__()
        self.graph, self.residual = graph, residual
        self.positions = nn.Parameter(torch.zeros(1, nodes, width))
        self.block = Block(width, heads, 2 * width)
        self.block.norm1 = nn.LayerNorm(width)  # choice 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.graph(x)  # (B, N, C)
        return self.block((x + y if self.residual else y) + self.positions)


class KTPFormer(Lifter):
    """MixSTE whose first blocks use the graph of the skeleton and the chain of a joint's frames.

    frames: the exact length of the sequences, because the chain has this many nodes; links: pairs of joints
    that form the skeleton's graph.
    """

    def __init__(
        self,
        frames: int = 243,
        channels: int = 2,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        drop_path: float = 0.1,
        links: Sequence[Sequence[int]] = BONES,
    ):
        super().__init__(frames, channels, width, depth)
        chain = adjacency([(t, t + 1) for t in range(frames - 1)], frames)
        body = nn.Sequential(GraphConv(adjacency(links, self.joints), channels, width))
        self.kinematic = GraphPriorBlock(body, self.joints, width, heads, residual=False)
        path = nn.Sequential(*(GraphConv(chain, width, width) for _ in range(2)))
        self.trajectory = GraphPriorBlock(path, frames, width, heads, residual=True)
        self.spatial = make_blocks(width, depth, heads, drop_path)[1:]  # choice 2
        self.temporal = make_blocks(width, depth, heads, drop_path)[1:]
        self.spatial_norm, self.temporal_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.head = make_head(width)

    def embed(self, x: Tensor) -> Tensor:
        return attend_joints(self.kinematic, x)  # (B, F, J, C)

    def layer(self, i: int, x: Tensor) -> Tensor:
        x = self.spatial_norm(attend_joints(self.spatial[i - 1], x) if i else x)
        return self.temporal_norm(attend_frames(self.temporal[i - 1] if i else self.trajectory, x))


class DualAttentionStream(nn.Module):
    """One of the two streams of a MotionBERT layer. order: "st" for joints before frames, or "ts"."""

    def __init__(self, width: int, heads: int, hidden: int, rate: float, order: str):
        super().__init__()
        self.order = order
        for axis in "st":
            self.add_module(f"norm1_{axis}", nn.LayerNorm(width, 1e-6))
            self.add_module(f"attn_{axis}", Attention(width, heads))
            self.add_module(f"norm2_{axis}", nn.LayerNorm(width, 1e-6))
            self.add_module(f"mlp_{axis}", FeedForward(width, hidden))
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        for axis in self.order:
            attend = attend_joints if axis == "s" else attend_frames
            attention, norm = getattr(self, f"attn_{axis}"), getattr(self, f"norm1_{axis}")
            x = x + self.drop_path(attend(attention, norm(x)))
            x = x + self.drop_path(getattr(self, f"mlp_{axis}")(getattr(self, f"norm2_{axis}")(x)))
        return x


class MotionBERT(Lifter):
    """Two streams per layer, fused by weights for each token. The third input channel is the joint's
    score."""

    def __init__(
        self,
        frames: int = 243,
        channels: int = 3,
        width: int = 256,
        depth: int = 5,
        heads: int = 8,
        hidden: int = 1024,
        features: int = 512,
        drop_path: float = 0.0,
    ):
        super().__init__(frames, channels, width, depth)
        self.start = nn.Linear(channels, width)  # input projection
        self.places = nn.Parameter(torch.zeros(1, self.joints, width))  # spatial position embedding
        self.times = nn.Parameter(torch.zeros(1, frames, 1, width))  # temporal position embedding
        rates = drop_path_rates(drop_path, depth)
        self.spatial_first, self.temporal_first = (
            nn.ModuleList(DualAttentionStream(width, heads, hidden, rate, order) for rate in rates)
            for order in ("st", "ts")
        )
        fusion = [nn.Linear(2 * width, 2) for _ in rates]
        self.fusion = nn.ModuleList(fusion)
        self.norm = nn.LayerNorm(width, 1e-6)
        layers = {"features": nn.Linear(width, features), "act": nn.Tanh(), "out": nn.Linear(features, 3)}
        self.head = nn.Sequential(OrderedDict(layers))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for embedding in (self.places, self.times):
            nn.init.trunc_normal_(embedding, std=0.02)
        for linear in fusion:  # both streams start with equal weights
            nn.init.zeros_(linear.weight)
            nn.init.constant_(linear.bias, 0.5)

    def embed(self, x: Tensor) -> Tensor:
        return self.start(x) + self.places + self.times[:, : x.shape[1]]  # (B, F, J, C)

    def layer(self, i: int, x: Tensor) -> Tensor:
        streams = self.spatial_first[i](x), self.temporal_first[i](x)
        weights = self.fusion[i](torch.cat(streams, -1)).softmax(-1)  # (B, F, J, 2)
        x = streams[0] * weights[..., :1] + streams[1] * weights[..., 1:]
        return self.norm(x) if i == self.depth - 1 else x  # choice 3


LIFTERS: dict[str, type[Lifter]] = {"mixste": MixSTE, "motionbert": MotionBERT, "ktpformer": KTPFormer}


def build_plain(name: str, frames: int = 243, **options: Any) -> Lifter:
    """Build an untrained lifter without pruning for windows of `frames`; options: its keyword arguments.

    Raises ValueError with suggestions for an unknown name or option, and for values that cannot be used.
    """
    check_name(name, LIFTERS, "lifter")
    known = {key: p.default for key, p in inspect.signature(LIFTERS[name]).parameters.items()}
    for key, value in {"frames": frames, **options}.items():
        check_name(key, known, f"option of {name}")
        if isinstance(known[key], int) and (not isinstance(value, int) or value < 1):
            raise ValueError(f"{key} of {name} must be a positive integer, not {value!r}")
    try:
        return LIFTERS[name](frames=frames, **options)
    except (TypeError, IndexError) as error:  # such as a link of a joint that does not exist
        raise ValueError(f"{name} cannot be built with {options}: {error}") from error
