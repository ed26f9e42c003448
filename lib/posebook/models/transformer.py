"""Transformer layers that ViTPose and the lifters share.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, in the pre-norm form of Dosovitskiy et al., "An
Image is Worth 16x16 Words", ICLR 2021.

Choice that the texts do not specify: stochastic depth (Huang et al., ECCV 2016) drops a branch separately for
each sample.
"""

from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head self-attention over tokens (B, N, C). Raises ValueError if C is no multiple of `heads`."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"a width of {width} cannot be divided into {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the tokens (B, N, C), each (B, heads, N, C / heads)."""
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def weights(self, x: Tensor) -> Tensor:
        """Attention weights (B, heads, N, N): each row is a distribution over the attended tokens."""
        q, k, _ = self.split(x)
        return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, N, N)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.scaled_dot_product_attention(*self.split(x))  # (B, heads, N, C / heads)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, C)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them, applied to each token."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """Stochastic depth: in training, zero a branch (B, ...) for each sample with the given probability.

    The remaining samples are scaled by 1 / (1 - probability), so that the expected value stays the same.
    """

    def __init__(self, probability: float):
        super().__init__()
        if not 0 <= probability < 1:
            raise ValueError(f"a branch is dropped with a probability from 0 to below 1, not {probability}")
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        keep = 1 - self.probability
        return x * x.new_empty(len(x), *[1] * (x.ndim - 1)).bernoulli_(keep) / keep


class Block(nn.Module):
    """Pre-norm transformer block (B, N, C): attention, then a feed-forward layer, each with a shortcut.

    mlp: a replacement for the feed-forward layer with `hidden` units. `forward` passes its additional
    arguments to this layer.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        drop_path: float = 0.0,
        mlp: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, 1e-6)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, 1e-6)
        self.mlp = mlp or FeedForward(width, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *mlp_args: object) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x), *mlp_args))
