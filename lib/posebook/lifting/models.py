"""Three lifters of one protocol, so that what prunes their frames need not know which one it is.

MixSTE: Zhang et al., CVPR 2022. MotionBERT (its DSTformer): Zhu et al., ICCV 2023. KTPFormer: Peng et al.,
CVPR 2024. Shapes and order of operations as in the authors' code, whose files weights.py loads.

A lifter has `embed(x) -> tokens`, `depth`, `layer(i, tokens) -> tokens` and `head(tokens) -> poses`; x is
(B, F, J, C), tokens (B, F, J, width), poses (B, F, J, 3). From layer 1 on any number of frames will do.

Where the texts are silent or surprise:
1. MixSTE's two norms are the same in all layers; its table of times is added once, within the first layer.
2. KTPFormer's two prior blocks are MixSTE's first spatial and first temporal block. The norm before their
   attention has another epsilon (1e-5) than all others (1e-6), and nothing is dropped in them.
3. MotionBERT's last norm belongs to its last layer here: what recovers frames comes after it.
"""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from posebook.lifting.skeleton import BONES, adjacency
from posebook.models.transformer import Attention, Block, DropPath, FeedForward
from posebook.utils import unknown_name_error


def attend_joints(block: nn.Module, x: Tensor) -> Tensor:
    """A block among the joints of each frame: (B, F, J, C) to the same."""
    return block(x.flatten(0, 1)).unflatten(0, x.shape[:2])  # through (B F, J, C)


def attend_frames(block: nn.Module, x: Tensor) -> Tensor:
    """A block among the frames of each joint: (B, F, J, C) to the same."""
    return attend_joints(block, x.transpose(1, 2)).transpose(1, 2)  # through (B J, F, C)


class Lifter(nn.Module):
    """What all lifters say of themselves, and do: poses (B, F, J, 3) of sequences (B, F, J, C)."""

    def __init__(self, frames: int, joints: int, channels: int, width: int, depth: int):
        super().__init__()
        self.frames, self.joints, self.channels, self.width, self.depth = (
            frames,
            joints,
            channels,
            width,
            depth,
        )

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x)
        for i in range(self.depth):
            tokens = self.layer(i, tokens)
        return self.head(tokens)


def blocks(width: int, depth: int, heads: int, drop_path: float, hidden: int) -> nn.ModuleList:
    """Transformer blocks whose branches are dropped the more often the deeper they are."""
    return nn.ModuleList(Block(width, heads, hidden, rate) for rate in rates_of(drop_path, depth))


def rates_of(drop_path: float, depth: int) -> list[float]:
    """How often each layer's branches are dropped: from never to drop_path."""
    return [drop_path * layer / max(1, depth - 1) for layer in range(depth)]


def regression(width: int) -> nn.Sequential:
    """Tokens to meters."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 3))


class MixSTE(Lifter):
    """A spatial and a temporal block in turn. frames: the longest sequence it takes."""

    def __init__(
        self,
        frames: int = 243,
        joints: int = 17,
        channels: int = 2,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        drop_path: float = 0.1,
    ):
        super().__init__(frames, joints, channels, width, depth)
        self.start = nn.Linear(channels, width)
        self.places = nn.Parameter(torch.zeros(1, joints, width))
        self.times = nn.Parameter(torch.zeros(1, frames, width))
        self.spatial = blocks(width, depth, heads, drop_path, 2 * width)
        self.temporal = blocks(width, depth, heads, drop_path, 2 * width)
        self.spatial_norm, self.temporal_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.head = regression(width)

    def embed(self, x: Tensor) -> Tensor:
        return self.start(x) + self.places  # (B, F, J, C)

    def layer(self, i: int, x: Tensor) -> Tensor:
        x = self.spatial_norm(attend_joints(self.spatial[i], x))
        if i == 0:
            x = x + self.times[:, : x.shape[1], None]
        return self.temporal_norm(attend_frames(self.temporal[i], x))


class GraphConv(nn.Module):
    """A convolution on a graph whose links are partly given, partly learned: (B, N, Cin) to (B, N, Cout).

    Zou and Tang, "Modulated Graph Convolutional Network for 3D Human Pose Estimation", ICCV 2021: a node's
    own features and its neighbors' have their own weights, and each node modulates what it hands on.
    """

    def __init__(self, graph: Tensor, inputs: int, outputs: int):
        super().__init__()
        nodes = len(graph)
        self.register_buffer("graph", graph, persistent=False)  # (N, N)
        self.weights = nn.Parameter(torch.empty(2, inputs, outputs))
        self.modulation = nn.Parameter(torch.ones(nodes, outputs))
        self.learned = nn.Parameter(torch.full((nodes, nodes), 1e-6))
        self.bias = nn.Parameter(torch.empty(outputs).uniform_(-(outputs**-0.5), outputs**-0.5))
        self.norm = nn.BatchNorm1d(outputs)
        nn.init.xavier_uniform_(self.weights, gain=1.414)

    def links(self) -> Tensor:
        """The graph in use (N, N), symmetric."""
        links = self.graph + self.learned
        return (links + links.T) / 2

    def forward(self, x: Tensor) -> Tensor:
        own, others = (self.modulation * (x @ weight) for weight in self.weights)  # (B, N, Cout) each
        links = self.links()
        itself = torch.diag(links.diagonal())
        x = itself @ own + (links - itself) @ others + self.bias
        return torch.relu(self.norm(x.transpose(1, 2))).transpose(1, 2)


class GraphPriorBlock(nn.Module):
    """A transformer block whose tokens (B, N, C) first pass a graph that is known beforehand."""

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
    """MixSTE that begins with the skeleton's graph and with that of a joint's path through time.

    frames: the sequence's length, no more and no less: the path's graph is of it; links: pairs of joints that
    make up the skeleton's graph.
    """

    def __init__(
        self,
        frames: int = 243,
        joints: int = 17,
        channels: int = 2,
        width: int = 512,
        depth: int = 8,
        heads: int = 8,
        drop_path: float = 0.1,
        links: Sequence[Sequence[int]] = BONES,
    ):
        super().__init__(frames, joints, channels, width, depth)
        path = adjacency([(t, t + 1) for t in range(frames - 1)], frames)
        body = GraphConv(adjacency(links, joints), channels, width)
        self.kinematic = GraphPriorBlock(nn.Sequential(body), joints, width, heads, residual=False)
        paths = nn.Sequential(*(GraphConv(path, width, width) for _ in range(2)))
        self.trajectory = GraphPriorBlock(paths, frames, width, heads, residual=True)
        self.spatial = blocks(width, depth, heads, drop_path, 2 * width)[1:]
        self.temporal = blocks(width, depth, heads, drop_path, 2 * width)[1:]
        self.spatial_norm, self.temporal_norm = nn.LayerNorm(width, 1e-6), nn.LayerNorm(width, 1e-6)
        self.head = regression(width)

    def embed(self, x: Tensor) -> Tensor:
        return attend_joints(self.kinematic, x)  # (B, F, J, C)

    def layer(self, i: int, x: Tensor) -> Tensor:
        x = self.spatial_norm(attend_joints(self.spatial[i - 1], x) if i else x)
        return self.temporal_norm(attend_frames(self.temporal[i - 1] if i else self.trajectory, x))


class DualAttentionStream(nn.Module):
    """One of MotionBERT's two ways through a layer: joints first and then frames, or the other way round."""

    def __init__(self, width: int, heads: int, hidden: int, rate: float, order: str):
        super().__init__()
        self.order = order
        for part in "st":
            self.add_module(f"norm1_{part}", nn.LayerNorm(width, 1e-6))
            self.add_module(f"attn_{part}", Attention(width, heads))
            self.add_module(f"norm2_{part}", nn.LayerNorm(width, 1e-6))
            self.add_module(f"mlp_{part}", FeedForward(width, hidden))
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor) -> Tensor:
        for part in self.order:
            over = attend_joints if part == "s" else attend_frames
            attention, norm = getattr(self, f"attn_{part}"), getattr(self, f"norm1_{part}")
            x = x + self.drop_path(over(attention, norm(x)))
            x = x + self.drop_path(getattr(self, f"mlp_{part}")(getattr(self, f"norm2_{part}")(x)))
        return x


class MotionBERT(Lifter):
    """Two streams a layer, weighed against each other token by token. Takes scores as a third channel."""

    def __init__(
        self,
        frames: int = 243,
        joints: int = 17,
        channels: int = 3,
        width: int = 256,
        depth: int = 5,
        heads: int = 8,
        hidden: int = 1024,
        features: int = 512,
        drop_path: float = 0.0,
    ):
        super().__init__(frames, joints, channels, width, depth)
        self.start = nn.Linear(channels, width)
        self.places = nn.Parameter(torch.zeros(1, joints, width))
        self.times = nn.Parameter(torch.zeros(1, frames, 1, width))
        rates = rates_of(drop_path, depth)
        self.spatial_first = nn.ModuleList(
            DualAttentionStream(width, heads, hidden, rate, "st") for rate in rates
        )
        self.temporal_first = nn.ModuleList(
            DualAttentionStream(width, heads, hidden, rate, "ts") for rate in rates
        )
        self.fusion = nn.ModuleList(nn.Linear(2 * width, 2) for _ in rates)
        self.norm = nn.LayerNorm(width, 1e-6)
        parts = {"features": nn.Linear(width, features), "act": nn.Tanh(), "out": nn.Linear(features, 3)}
        self.head = nn.Sequential(OrderedDict(parts))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for table in (self.places, self.times):
            nn.init.trunc_normal_(table, std=0.02)
        for fusion in self.fusion:  # both streams count alike at first
            nn.init.zeros_(fusion.weight)
            nn.init.constant_(fusion.bias, 0.5)

    def embed(self, x: Tensor) -> Tensor:
        return self.start(x) + self.places + self.times[:, : x.shape[1]]  # (B, F, J, C)

    def layer(self, i: int, x: Tensor) -> Tensor:
        streams = self.spatial_first[i](x), self.temporal_first[i](x)
        shares = self.fusion[i](torch.cat(streams, -1)).softmax(-1)  # (B, F, J, 2)
        x = streams[0] * shares[..., :1] + streams[1] * shares[..., 1:]
        return self.norm(x) if i == self.depth - 1 else x


LIFTERS = {"mixste": MixSTE, "motionbert": MotionBERT, "ktpformer": KTPFormer}


def build_plain(name: str, frames: int = 243, **options: object) -> Lifter:
    """A lifter, untrained, for sequences of so many frames; options: its own keyword arguments.

    Raises ValueError, with the near names, for one it does not know.
    """
    if name not in LIFTERS:
        raise unknown_name_error(name, LIFTERS, "lifter")
    return LIFTERS[name](frames=frames, **options)
