"""The plain transformer that ViTPose and the lifters are built of.

Vaswani et al., "Attention Is All You Need", NeurIPS 2017, in the pre-norm form of Dosovitskiy et al., "An
Image is Worth 16x16 Words", ICLR 2021.

Where the texts are silent: stochastic depth (Huang et al., ECCV 2016) drops a branch sample by sample.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Attention(nn.Module):
    """Multi-head attention among tokens (B, N, C)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of tokens, each (B, heads, N, C / heads)."""
        return self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def weights(self, x: Tensor) -> Tensor:
        """Who attends to whom (B, heads, N, N): each row a distribution over the tokens it looks at."""
        q, k, _ = self.split(x)
        return (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)  # (B, heads, N, N)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.scaled_dot_product_attention(*self.split(x))  # (B, heads, N, C / heads)
        return self.proj(x.transpose(1, 2).flatten(2))  # (B, N, C)


class FeedForward(nn.Module):
    """Two linear layers with an exact GELU between them, token by token."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(functional.gelu(self.fc1(x)))


class DropPath(nn.Module):
    """In training a branch (B, ...) is left out with a probability, sample by sample, and made up for."""

    def __init__(self, probability: float):
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.probability:
            return x
        keep = 1 - self.probability
        return x * torch.empty(len(x), *[1] * (x.ndim - 1), device=x.device).bernoulli_(keep) / keep


class Block(nn.Module):
    """Attention, then a feed-forward, each after a layer norm and added to what came in, (B, N, C).

    mlp: another feed-forward than one of `hidden` units; what more a forward is given goes to it.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        drop_path: float = 0.0,
        eps: float = 1e-6,
        mlp: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps)
        self.mlp = mlp or FeedForward(width, hidden)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor, *more: object) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x), *more))
