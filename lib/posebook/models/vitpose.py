"""ViTPose and ViTPose++: a plain vision transformer and a small decoder; several datasets in one net.

Xu et al., "ViTPose: Simple Vision Transformer Baselines for Human Pose Estimation", NeurIPS 2022, and
"ViTPose++: Vision Transformer for Generic Body Pose Estimation", TPAMI 2024. Shapes and order as in the
authors' released code and weights, whose layout this is.

Where the texts are silent or ours differs:
1. The picture is padded by 2 pixels before it is cut into patches of 16, so patch i is centered on 16 i +
   5.5.
2. The table of positions has a row for a class token that is not there; it is added to every token.
3. That table is of 16 x 12 patches. For another input its grid is resized (bicubic) in every forward, so
   that the authors' files load at any size; their code takes 256 x 192 alone.
4. vitpose-s has 12 heads, not the 6 that other transformers of this width have.
5. A ViTPose++ layer runs each expert on the samples of its own dataset. The authors' code runs every expert
   on every sample and masks; the answers are the same.
6. A batch of several datasets gives as many maps as the largest of them has joints, zero where a dataset has
   fewer.
7. From scratch, linear layers and positions start from a normal of 0.02, cut off at two deviations.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from posebook.models.layers import PoseModel, check_sides
from posebook.models.transformer import Block
from posebook.skeletons import Skeleton

GRID = (16, 12)  # patches of the table of positions
EXTRA_NUM_JOINTS = (
    14,
    16,
    17,
    17,
    133,
)  # joints of AIC, MPII, AP-10K, APT-36K, COCO-WholeBody; COCO's come first


class ExpertMlp(nn.Module):
    """A feed-forward (B, N, C) whose second layer has a slice for all datasets and one for each."""

    def __init__(self, width: int, expert_dim: int, datasets: int):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width - expert_dim)
        self.experts = nn.ModuleList(nn.Linear(4 * width, expert_dim) for _ in range(datasets))

    def forward(self, x: Tensor, dataset: int | Tensor) -> Tensor:
        x = functional.gelu(self.fc1(x))  # (B, N, 4 C)
        if isinstance(dataset, int):
            own = self.experts[dataset](x)  # (B, N, expert_dim)
        else:
            own = x.new_zeros(*x.shape[:2], self.experts[0].out_features)
            for number, expert in enumerate(self.experts):
                own[dataset == number] = expert(x[dataset == number])
        return torch.cat([self.fc2(x), own], -1)  # (B, N, C)


class ViT(nn.Module):
    """Images (B, 3, H, W) to features (B, C, H/16, W/16)."""

    def __init__(self, width: int, depth: int, heads: int, drop_path: float, expert_dim: int, datasets: int):
        super().__init__()
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + GRID[0] * GRID[1], width))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, 16, 16, 2)})
        self.blocks = nn.ModuleList(
            Block(
                width,
                heads,
                4 * width,
                rate,
                mlp=ExpertMlp(width, expert_dim, datasets) if expert_dim else None,
            )
            for rate in (drop_path * layer / max(1, depth - 1) for layer in range(depth))
        )
        self.last_norm = nn.LayerNorm(width, 1e-6)

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """What is added to the tokens (1, N, C) of a grid of patches (h, w)."""
        first, table = self.pos_embed.split([1, GRID[0] * GRID[1]], 1)
        if grid != GRID:
            table = table.unflatten(1, GRID).permute(0, 3, 1, 2)  # (1, C, 16, 12)
            table = functional.interpolate(table, grid, mode="bicubic")  # (1, C, h, w)
            table = table.flatten(2).transpose(1, 2)  # (1, N, C)
        return table + first

    def forward(self, images: Tensor, *dataset: int | Tensor) -> Tensor:
        x = self.patch_embed["proj"](images)  # (B, C, h, w)
        grid = tuple(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2) + self.positions(grid)  # (B, N, C)
        for block in self.blocks:
            x = block(x, *dataset)
        return self.last_norm(x).transpose(1, 2).unflatten(2, grid)  # (B, C, h, w)


class ClassicDecoder(nn.Module):
    """Features (B, C, h, w) to heatmaps (B, K, 4 h, 4 w) by two transposed convolutions."""

    def __init__(self, width: int, joints: int):
        super().__init__()
        layers = []
        for in_channels in (width, 256):
            layers += [
                nn.ConvTranspose2d(in_channels, 256, 4, 2, 1, bias=False),
                nn.BatchNorm2d(256),
                nn.ReLU(),
            ]
        self.deconv_layers = nn.Sequential(*layers)
        self.final_layer = nn.Conv2d(256, joints, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_layer(self.deconv_layers(x))


class SimpleDecoder(nn.Module):
    """Features (B, C, h, w) to heatmaps (B, K, 4 h, 4 w): enlarged as they are, then one convolution."""

    def __init__(self, width: int, joints: int):
        super().__init__()
        self.final_layer = nn.Conv2d(width, joints, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.final_layer(functional.interpolate(x.relu(), scale_factor=4, mode="bilinear"))


DECODERS = {"classic": ClassicDecoder, "simple": SimpleDecoder}


class ViTPose(PoseModel):
    """Images (B, 3, H, W), normalized, to [heatmaps (B, K, H/4, W/4)].

    decoder: classic or simple. extra_num_joints: the numbers of joints of further datasets, each with its
    own decoder; `skeleton` is the first's. expert_dim: channels of a feed-forward that belong to an expert,
    one a dataset; 0 for none. Raises ValueError for another decoder and for sides that are no multiples of
    16.
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
        self.joints = len(skeleton.keypoints), *extra_num_joints
        self.backbone = ViT(width, depth, heads, drop_path, expert_dim, len(self.joints))
        self.keypoint_head = DECODERS[decoder](width, self.joints[0])
        if extra_num_joints:
            self.associate_keypoint_heads = nn.ModuleList(
                DECODERS[decoder](width, count) for count in extra_num_joints
            )
        self.experts = bool(expert_dim)
        self._start()

    def _start(self) -> None:
        nn.init.trunc_normal_(self.backbone.pos_embed, std=0.02, a=-0.04, b=0.04)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02, a=-0.04, b=0.04)
                nn.init.zeros_(module.bias)
        for head in self.heads:
            for module in head.modules():
                if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                    nn.init.normal_(module.weight, std=0.001)
            nn.init.zeros_(head.final_layer.bias)

    @property
    def heads(self) -> list[nn.Module]:
        """The decoders, a dataset each."""
        return [self.keypoint_head, *getattr(self, "associate_keypoint_heads", ())]

    def forward(self, images: Tensor, dataset: int | Tensor = 0) -> list[Tensor]:
        """dataset: which of its datasets the images are of: one number, or one an image (B,)."""
        x = self.backbone(images, *([dataset] if self.experts else []))  # (B, C, H/16, W/16)
        if isinstance(dataset, int):
            return [self.heads[dataset](x)]  # (B, K, H/4, W/4)
        maps = x.new_zeros(len(x), max(self.joints), 4 * x.shape[2], 4 * x.shape[3])
        for number, head in enumerate(self.heads):
            if (mine := dataset == number).any():
                maps[mine, : self.joints[number]] = head(x[mine]).to(maps.dtype)
        return [maps]

    def layer_of(self, parameter: str) -> int:
        """How deep a parameter of this name lies: 0 before the blocks, then 1 to L, L + 1 after them."""
        parts = parameter.split(".")
        if parts[1] in ("pos_embed", "patch_embed"):
            return 0
        return int(parts[2]) + 1 if parts[1] == "blocks" else len(self.backbone.blocks) + 1


def merge_experts(state: dict[str, Tensor], dataset: int = 0) -> dict[str, Tensor]:
    """The plain ViTPose's weights for one dataset, out of those of a ViTPose++ by their names; exact.

    An expert's rows follow the shared rows of its layer, and the dataset's decoder is the only one left: a
    plain net at a plain net's cost. Raises ValueError for weights of one dataset or without that decoder.
    """
    if not any(".mlp.experts." in key or key.startswith("associate_") for key in state):
        raise ValueError("these weights have neither experts nor further decoders: there is nothing to merge")
    head = f"associate_keypoint_heads.{dataset - 1}." if dataset else "keypoint_head."
    if not any(key.startswith(head) for key in state):
        raise ValueError(f"these weights have no decoder for dataset {dataset}")
    plain = {}
    for key, value in state.items():
        if (expert := key.replace(".fc2.", f".experts.{dataset}.")) in state and expert != key:
            plain[key] = torch.cat([value, state[expert]])
        elif key.startswith(head):
            plain["keypoint_head." + key.removeprefix(head)] = value
        elif key.startswith("backbone.") and ".experts." not in key:
            plain[key] = value
    return plain


def extract_dataset(model: ViTPose, dataset: int = 0, skeleton: Skeleton | None = None) -> ViTPose:
    """The plain ViTPose that answers as `model`, a ViTPose++, does for one of its datasets.

    skeleton: the dataset's, the model's own where dataset is 0. Raises ValueError where it has other joints
    than the dataset's decoder.
    """
    skeleton = skeleton or model.skeleton
    if len(skeleton.keypoints) != model.joints[dataset]:
        raise ValueError(
            f"dataset {dataset} of this net has {model.joints[dataset]} joints; "
            f"{skeleton.name} has {len(skeleton.keypoints)}"
        )
    blocks, head = model.backbone.blocks, model.heads[dataset]
    decoder = next(name for name, kind in DECODERS.items() if isinstance(head, kind))
    width, rate = model.backbone.pos_embed.shape[-1], blocks[-1].drop_path.probability
    plain = ViTPose(skeleton, model.input_size, width, len(blocks), blocks[0].attn.heads, rate, decoder)
    plain.load_state_dict(merge_experts(model.state_dict(), dataset))
    return plain.to(model.backbone.pos_embed).train(model.training)


def from_mae(state: dict[str, Tensor], backbone: ViT) -> dict[str, Tensor]:
    """A backbone's start from a masked autoencoder's ImageNet weights (He et al., CVPR 2022).

    The table of positions is resized to this grid (bicubic), a smaller patch kernel padded with zeros, and
    each expert starts as the last rows of the layer it is a part of; the last norm, which has none, stays.
    """
    taken = {key: value for key, value in backbone.state_dict().items() if key.startswith("last_norm")}
    taken |= {key: value for key, value in state.items() if key.startswith(("pos_", "patch_", "blocks"))}
    first, table = taken["pos_embed"][:, :1], taken["pos_embed"][:, 1:]
    side = round(table.shape[1] ** 0.5)  # ImageNet's grid is square
    table = table.unflatten(1, (side, side)).permute(0, 3, 1, 2)  # (1, C, side, side)
    table = functional.interpolate(table, GRID, mode="bicubic").flatten(2).transpose(1, 2)  # (1, N, C)
    taken["pos_embed"] = torch.cat([first, table], 1)
    kernel = taken["patch_embed.proj.weight"]
    missing = 16 - kernel.shape[-1]
    before = missing // 2
    taken["patch_embed.proj.weight"] = functional.pad(kernel, [before, missing - before] * 2)
    for key in [key for key in backbone.state_dict() if ".experts." in key]:
        whole, kind = state[key.split("experts")[0] + "fc2." + key.split(".")[-1]], key.split(".")[-1]
        part = backbone.get_submodule(key.rsplit(".", 1)[0]).out_features
        taken[key] = whole[-part:]
        taken[key.split("experts")[0] + f"fc2.{kind}"] = whole[:-part]
    return taken


def remap_keys(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of transformers' VitPoseForPoseEstimation, under the authors' names."""
    names = {
        "backbone.embeddings.patch_embeddings.projection": "backbone.patch_embed.proj",
        "backbone.embeddings.position_embeddings": "backbone.pos_embed",
        "backbone.encoder.layer.": "backbone.blocks.",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "backbone.layernorm": "backbone.last_norm",
        "attention.output.dense": "attn.proj",
        "attention.attention.query": "attn.qkv",
        "head.deconv1": "keypoint_head.deconv_layers.0",
        "head.batchnorm1": "keypoint_head.deconv_layers.1",
        "head.deconv2": "keypoint_head.deconv_layers.3",
        "head.batchnorm2": "keypoint_head.deconv_layers.4",
        "head.conv.": "keypoint_head.final_layer.",
    }
    theirs = {}
    for key, value in state.items():
        if "attention.attention.query" in key:  # theirs are three layers, the authors' one
            value = torch.cat([state[key.replace("query", part)] for part in ("query", "key", "value")])
        elif "attention.attention." in key:
            continue
        for old, new in names.items():
            key = key.replace(old, new)
        theirs[key] = value
    return theirs
