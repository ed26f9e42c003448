"""State dict keys and shapes of mmpose's models, written from its classes and not from our models or rules.

Sources, at the named commits: open-mmlab/mmpose mmpose/models/backbones/hrnet.py@070110ea (HRNet, HRModule),
mmpose/models/backbones/resnet.py@019ad706 (ResLayer, BasicBlock, Bottleneck),
mmpose/models/heads/heatmap_heads/heatmap_head.py@016ee429, mmpose/models/heads/coord_cls_heads/simcc_head.py
@08748bcc, and open-mmlab/mmpretrain mmpretrain/models/backbones/vision_transformer.py@00030e3f with mmcv's
PatchEmbed and FFN.
"""

Layout = list[tuple[str, tuple[int, ...]]]  # keys and shapes, in the order of the classes


def conv(name: str, out: int, inner: int, kernel: int, bias: bool = False) -> Layout:
    return [(f"{name}.weight", (out, inner, kernel, kernel)), *([(f"{name}.bias", (out,))] if bias else [])]


def norm(name: str, channels: int) -> Layout:
    values = [(f"{name}.{part}", (channels,)) for part in ("weight", "bias", "running_mean", "running_var")]
    return [*values, (f"{name}.num_batches_tracked", ())]


def linear(name: str, out: int, inner: int) -> Layout:
    return [(f"{name}.weight", (out, inner)), (f"{name}.bias", (out,))]


def layer_norm(name: str, channels: int) -> Layout:
    return [(f"{name}.weight", (channels,)), (f"{name}.bias", (channels,))]


def res_layer(name: str, inner: int, out: int, blocks: int, stride: int) -> Layout:
    """ResLayer of Bottlenecks; the first block has a downsample if the shape changes."""
    keys, middle = [], out // 4
    for i in range(blocks):
        block = f"{name}.{i}"
        keys += conv(f"{block}.conv1", middle, inner, 1) + norm(f"{block}.bn1", middle)
        keys += conv(f"{block}.conv2", middle, middle, 3) + norm(f"{block}.bn2", middle)
        keys += conv(f"{block}.conv3", out, middle, 1) + norm(f"{block}.bn3", out)
        if i == 0 and (stride != 1 or inner != out):
            keys += conv(f"{block}.downsample.0", out, inner, 1) + norm(f"{block}.downsample.1", out)
        inner = out
    return keys


def resnet(blocks: tuple[int, ...]) -> Layout:
    keys = conv("backbone.conv1", 64, 3, 7) + norm("backbone.bn1", 64)
    inner = 64
    for i, number in enumerate(blocks):
        out = 256 * 2**i
        keys += res_layer(f"backbone.layer{i + 1}", inner, out, number, 1 if i == 0 else 2)
        inner = out
    return keys


def deconvolutions(name: str, inner: int, number: int) -> Layout:
    """HeatmapHead._make_deconv_layers: a deconvolution, a norm and a ReLU, three places each."""
    keys: Layout = []
    for i in range(number):
        keys += [(f"{name}.deconv_layers.{3 * i}.weight", (inner, 256, 4, 4))]
        keys += norm(f"{name}.deconv_layers.{3 * i + 1}", 256)
        inner = 256
    return keys


def heatmap_head(name: str, inner: int, number: int, joints: int, kernel: int = 1) -> Layout:
    last = conv(f"{name}.final_layer", joints, 256 if number else inner, kernel, bias=True)
    return deconvolutions(name, inner, number) + last


def simcc_head(inner: int, joints: int, input_size: tuple[int, int], ratio: float) -> Layout:
    height, width = input_size
    cells = height * width // 16
    keys = heatmap_head("head.deconv_head", inner, 3, joints)
    keys += linear("head.mlp_head_x", int(width * ratio), cells)
    return keys + linear("head.mlp_head_y", int(height * ratio), cells)


def hr_module(name: str, widths: list[int], outputs: int) -> Layout:
    """HRModule: four BasicBlocks for each branch, then _make_fuse_layers."""
    keys: Layout = []
    for branch, width in enumerate(widths):
        for i in range(4):
            block = f"{name}.branches.{branch}.{i}"
            keys += conv(f"{block}.conv1", width, width, 3) + norm(f"{block}.bn1", width)
            keys += conv(f"{block}.conv2", width, width, 3) + norm(f"{block}.bn2", width)
    for i in range(outputs):
        for j in range(len(widths)):
            fuse = f"{name}.fuse_layers.{i}.{j}"
            if j > i:
                keys += conv(f"{fuse}.0", widths[i], widths[j], 1) + norm(f"{fuse}.1", widths[i])
            for k in range(i - j):
                out = widths[i] if k == i - j - 1 else widths[j]
                keys += conv(f"{fuse}.{k}.0", out, widths[j], 3) + norm(f"{fuse}.{k}.1", out)
    return keys


def hrnet(width: int) -> Layout:
    keys = conv("backbone.conv1", 64, 3, 3) + norm("backbone.bn1", 64)
    keys += conv("backbone.conv2", 64, 64, 3) + norm("backbone.bn2", 64)
    keys += res_layer("backbone.layer1", 64, 256, 4, 1)
    before = [256]
    for stage, modules in ((2, 1), (3, 4), (4, 3)):
        widths = [width * 2**i for i in range(stage)]
        for i, out in enumerate(widths):
            transition = f"backbone.transition{stage - 1}.{i}"
            if i >= len(before):
                keys += conv(f"{transition}.0.0", out, before[-1], 3) + norm(f"{transition}.0.1", out)
            elif before[i] != out:
                keys += conv(f"{transition}.0", out, before[i], 3) + norm(f"{transition}.1", out)
        for i in range(modules):
            is_last = stage == 4 and i == modules - 1
            keys += hr_module(f"backbone.stage{stage}.{i}", widths, 1 if is_last else stage)
        before = widths
    return keys


def vision_transformer(width: int, depth: int, tokens: int, class_token: bool) -> Layout:
    """mmpretrain's VisionTransformer; earlier versions have a class token that ViTPose does not use."""
    keys: Layout = [("backbone.cls_token", (1, 1, width))] if class_token else []
    keys += [("backbone.pos_embed", (1, tokens + class_token, width))]
    keys += conv("backbone.patch_embed.projection", width, 3, 16, bias=True)
    for i in range(depth):
        layer = f"backbone.layers.{i}"
        keys += layer_norm(f"{layer}.ln1", width) + linear(f"{layer}.attn.qkv", 3 * width, width)
        keys += linear(f"{layer}.attn.proj", width, width) + layer_norm(f"{layer}.ln2", width)
        keys += linear(f"{layer}.ffn.layers.0.0", 4 * width, width)
        keys += linear(f"{layer}.ffn.layers.1", width, 4 * width)
    return keys + layer_norm("backbone.ln1", width)
