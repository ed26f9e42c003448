"""ViTPose and ViTPose++: a plain vision transformer with a small decoder; ViTPose++ serves several datasets.

Xu et al., "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation", NeurIPS 2022, and
"ViTPose++: Vision Transformer for Generic Body Pose Estimation", TPAMI 2024. Shapes, order of operations and
state-dict layout follow the authors' released code and weights.

Choices that the texts do not specify, or where this code differs:
1. The image is padded by 2 pixels before it is cut into patches of 16, so patch i is centered on 16 i + 5.5.
2. The position table has a row for a class token, although there is no such token. This row is added to every
   token.
3. The position table has 16 x 12 patches. For another input size, its grid is resized (bicubic) in each
   forward pass, so that the authors' files load at any size. Their code resizes it only when
   it loads square pre-training; their configurations for S to H are 256 x 192.
4. vitpose-s has 12 heads; other transformers of this width have 6.
5. A ViTPose++ layer runs each expert only on the samples of its own dataset. The authors' code runs all
   experts on all samples and masks the results. The outputs are the same.
6. A batch with several datasets gives as many heatmaps as the largest of the datasets has joints. The maps
   beyond the joints of a sample's dataset are zero.
7. For training from scratch, linear layers and positions are initialized from a normal distribution with
   standard deviation 0.02, truncated at two standard deviations.
8. Only the top-down models are built. The abstract also reports bottom-up results, but the repository of the
   authors (ViTAE-Transformer/ViTPose) has only top-down configurations, weights and results, and the abstract
   does not describe the bottom-up decoder.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from posebook.models.layers import PoseModel, check_sides, deconvolutions, init_weights
from posebook.models.transformer import Block
from posebook.skeletons import Skeleton

GRID = (16, 12)  # patches (rows, columns) of the position table
# Numbers of joints of AIC, MPII, AP-10K, APT-36K and COCO-WholeBody, the datasets after COCO.
EXTRA_NUM_JOINTS = (14, 16, 17, 17, 133)


class ExpertMlp(nn.Module):
    """Feed-forward layer (B, N, C) in which each dataset has its own last `expert_dim` output channels.

    dataset: the index of the dataset for the whole batch, or one index for each sample (B,).
    """

    def __init__(self, width: int, expert_dim: int, datasets: int):
        super().__init__()
        self.expert_dim = expert_dim
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width - expert_dim)
        self.experts = nn.ModuleList(nn.Linear(4 * width, expert_dim) for _ in range(datasets))

    def forward(self, x: Tensor, dataset: int | Tensor) -> Tensor:
        x = functional.gelu(self.fc1(x))  # (B, N, 4 C)
        if isinstance(dataset, int):
            expert_output = self.experts[dataset](x)  # (B, N, expert_dim)
        else:
            expert_output = x.new_zeros(*x.shape[:2], self.expert_dim)
            for index, expert in enumerate(self.experts):
                expert_output[dataset == index] = expert(x[dataset == index])
        return torch.cat([self.fc2(x), expert_output], -1)  # (B, N, C)


def resize_positions(table: Tensor, grid: tuple[int, int], new_grid: tuple[int, int]) -> Tensor:
    """A position table (1, N, C) of a grid (rows, columns), resized (bicubic) to another grid."""
    table = table.unflatten(1, grid).permute(0, 3, 1, 2)  # (1, C, rows, columns)
    table = functional.interpolate(table, new_grid, mode="bicubic")  # (1, C, new rows, new columns)
    return table.flatten(2).transpose(1, 2)  # (1, new N, C)


class ViT(nn.Module):
    """Images (B, 3, H, W) to features (B, C, H/16, W/16)."""

    def __init__(self, width: int, depth: int, heads: int, drop_path: float, expert_dim: int, datasets: int):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID[0] * GRID[1], width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 16, 16, 2)})
        self.blocks = nn.ModuleList()
        for layer in range(depth):
            rate = drop_path * layer / max(1, depth - 1)  # increases linearly with depth
            mlp = ExpertMlp(width, expert_dim, datasets) if expert_dim else None
            self.blocks.append(Block(width, heads, 4 * width, rate, mlp))
        self.last_norm = nn.LayerNorm(width, 1e-6)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position embedding (1, N, C) for a grid of patches (h, w)."""
        class_row, table = self.pos_embed.split([1, GRID[0] * GRID[1]], 1)  # (1, 1, C), (1, 192, C)
        if grid != GRID:
            table = resize_positions(table, GRID, grid)
        return table + class_row

    def forward(self, images: Tensor, *dataset: int | Tensor) -> Tensor:
        x = self.patch_embed["proj"](images)  # (B, C, h, w)
        grid = (x.shape[-2], x.shape[-1])
        x = x.flatten(2).transpose(1, 2) + self.positions(grid)  # (B, N, C)
        for block in self.blocks:
            x = block(x, *dataset)
        return self.last_norm(x).transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)


class ClassicDecoder(nn.Module):
    """Features (B, C, h, w) to heatmaps (B, K, 4 h, 4 w) by two transposed convolutions."""

    def __init__(self, width: int, joints: int):
        super().__init__()
        self.deconv_layers = deconvolutions(width, 2)
        self.final_layer = nn.Conv2d(256, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(x))


class SimpleDecoder(nn.Module):
    """Features (B, C, h, w) to heatmaps (B, K, 4 h, 4 w): ReLU, bilinear upsampling, one convolution."""

    def __init__(self, width: int, joints: int):
        super().__init__()
        self.final_layer = nn.Conv2d(width, joints, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_layer(functional.interpolate(x.relu(), scale_factor=4, mode="bilinear"))


DECODERS: dict[str, type[ClassicDecoder] | type[SimpleDecoder]] = {
    "classic": ClassicDecoder,
    "simple": SimpleDecoder,
}


class ViTPose(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    decoder: 'classic' or 'simple'. extra_num_joints: the number of joints of each further dataset, which has
    its own decoder; `skeleton` is that of the first dataset. expert_dim: output channels of a feed-forward
    layer that are specific to a dataset; 0 for none. There are more than eight parameters because the models
    differ in all of them. Raises ValueError for another decoder or if a side is not a multiple of 16.
    """

    def __init__(
        self,
        skeleton: Skeleton,
        input_size: tuple[int, int],
        width: int = 384,
        depth: int = 12,
        heads: int = 12,
        drop_path: float = 0.1,
        decoder: str = "classic",
        expert_dim: int = 0,
        extra_num_joints: tuple[int, ...] = (),
    ):
        super().__init__(skeleton, input_size)
        check_sides("ViTPose", input_size, 16)
        if decoder not in DECODERS:
            raise ValueError(f"ViTPose has decoder classic or simple, not {decoder!r}")
        self.joints = len(skeleton.keypoints), *extra_num_joints  # numbers of joints of the datasets
        self.backbone = ViT(width, depth, heads, drop_path, expert_dim, len(self.joints))
        self.keypoint_head = DECODERS[decoder](width, self.joints[0])
        if extra_num_joints:
            self.associate_keypoint_heads = nn.ModuleList(
                DECODERS[decoder](width, joints) for joints in extra_num_joints
            )
        self.experts = bool(expert_dim)
        nn.init.trunc_normal_(self.backbone.pos_embed, std=0.02, a=-0.04, b=0.04)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                nn.init.zeros_(module.bias)
        for head in self.heads:
            init_weights(head)

    @property
    def heads(self) -> list[nn.Module]:
        """The decoders, one for each dataset."""
        return [self.keypoint_head, *getattr(self, "associate_keypoint_heads", ())]

    def forward(self, images: Tensor, dataset: int | Tensor = 0) -> list[Tensor]:
        """dataset: the index of the images' dataset, or one index for each image (B,)."""
        x = self.backbone(images, *([dataset] if self.experts else []))  # (B, C, H/16, W/16)
        if isinstance(dataset, int):
            return [self.heads[dataset](x)]  # (B, K, H/4, W/4)
        maps = x.new_zeros(len(x), max(self.joints), 4 * x.shape[2], 4 * x.shape[3])
        for index, head in enumerate(self.heads):
            if (selected := dataset == index).any():
                maps[selected, : self.joints[index]] = head(x[selected]).to(maps.dtype)
        return [maps]

    def layer_of(self, parameter: str) -> int:
        """Index of the layer of a named parameter: 0 before the blocks, 1 to L for them, L + 1 after them."""
        path = parameter.split(".")
        if path[1] in ("pos_embed", "patch_embed"):
            return 0
        return int(path[2]) + 1 if path[1] == "blocks" else len(self.backbone.blocks) + 1


def merge_experts(state: dict[str, Tensor], dataset: int = 0) -> dict[str, Tensor]:
    """The weights of a plain ViTPose with the same outputs as a ViTPose++ for one dataset.

    The rows of the expert follow the shared rows of its layer, and only the dataset's decoder remains.
    Inference then costs as much as with any plain ViTPose. Raises ValueError if the weights have neither
    experts nor further decoders, or no decoder for this dataset.
    """
    if not any(".mlp.experts." in key or key.startswith("associate_") for key in state):
        raise ValueError("nothing to merge: these weights have neither experts nor further decoders")
    head = f"associate_keypoint_heads.{dataset - 1}." if dataset else "keypoint_head."
    if not any(key.startswith(head) for key in state):
        raise ValueError(f"these weights have no decoder for dataset {dataset}")
    merged = {}
    for key, value in state.items():
        if (expert := key.replace(".fc2.", f".experts.{dataset}.")) in state and expert != key:
            merged[key] = torch.cat([value, state[expert]])
        elif key.startswith(head):
            merged["keypoint_head." + key.removeprefix(head)] = value
        elif key.startswith("backbone.") and ".experts." not in key:
            merged[key] = value
    return merged


def extract_dataset(model: ViTPose, dataset: int = 0, skeleton: Skeleton | None = None) -> ViTPose:
    """A plain ViTPose with the same outputs as the ViTPose++ `model` for one of its datasets.

    skeleton: the skeleton of this dataset; by default that of the model, which is the one of dataset 0.
    Raises ValueError for a dataset that the model does not have, or if the skeleton does not have as many
    joints as the dataset's decoder.
    """
    skeleton = skeleton or model.skeleton
    if dataset not in range(len(model.joints)):
        raise ValueError(f"this model has datasets 0 to {len(model.joints) - 1}, not {dataset}")
    if len(skeleton.keypoints) != model.joints[dataset]:
        raise ValueError(
            f"dataset {dataset} of this model has {model.joints[dataset]} joints; "
            f"{skeleton.name} has {len(skeleton.keypoints)}"
        )
    blocks, head = model.backbone.blocks, model.heads[dataset]
    decoder = next(name for name, decoder_class in DECODERS.items() if isinstance(head, decoder_class))
    last_block = blocks[-1]
    assert isinstance(last_block, Block)
    plain = ViTPose(
        skeleton,
        model.input_size,
        width=model.backbone.pos_embed.shape[-1],
        depth=len(blocks),
        heads=last_block.attn.heads,
        drop_path=last_block.drop_path.probability,
        decoder=decoder,
    )
    plain.load_state_dict(merge_experts(model.state_dict(), dataset))
    plain.udp, plain.dark = model.udp, model.dark
    return plain.to(model.backbone.pos_embed).train(model.training)


def from_mae(state: dict[str, Tensor], backbone: ViT) -> dict[str, Tensor]:
    """The initial state dict of `backbone` from a masked autoencoder's ImageNet weights.

    He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022. The position table is resized to
    this grid (bicubic). A smaller patch kernel is padded with zeros. Each expert is initialized from the last
    rows of the layer that it is a part of. The last norm, which these weights lack, keeps its initialization.
    """
    new = {key: value for key, value in backbone.state_dict().items() if key.startswith("last_norm")}
    new |= {key: value for key, value in state.items() if key.startswith(("pos_", "patch_", "blocks"))}
    class_row, table = new["pos_embed"][:, :1], new["pos_embed"][:, 1:]  # (1, 1, C), (1, N, C)
    side = round(table.shape[1] ** 0.5)  # ImageNet's images are square
    new["pos_embed"] = torch.cat([class_row, resize_positions(table, (side, side), GRID)], 1)
    kernel = new["patch_embed.proj.weight"]  # (C, 3, side, side)
    missing = 16 - kernel.shape[-1]
    before = missing // 2
    new["patch_embed.proj.weight"] = functional.pad(kernel, [before, missing - before] * 2)
    for name, module in backbone.named_modules():
        if isinstance(module, ExpertMlp):
            for parameter in ("weight", "bias"):
                rows = state[f"{name}.fc2.{parameter}"]
                new[f"{name}.fc2.{parameter}"] = rows[: -module.expert_dim]
                for index in range(len(module.experts)):
                    new[f"{name}.experts.{index}.{parameter}"] = rows[-module.expert_dim :]
    return new
