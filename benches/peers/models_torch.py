"""The student zoo in PyTorch: what our Candle models are checked against, and timed against.

    from models_torch import MODELS, build
    model = build("resnet20", n_classes=100)

Parameters are named, and registered, as in the code that people have checkpoints from: mdistiller for the CIFAR
networks and MobileNetV1, torchvision for the ImageNet ResNets, timm for DeiT. Where those differ from each other
(`downsample` or `shortcut`, `fc` or `linear`), so do ours. `python models_torch.py` counts parameters and multiply-adds
and compares them with the published figures.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import nn


def conv(in_channels, out_channels, kernel=3, stride=1, groups=1, bias=False):
    """A convolution that keeps the size (for stride 1)."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=bias)


def depthwise(channels, stride=1):
    return conv(channels, channels, 3, stride, groups=channels)


def global_avg_pool(x):
    return x.mean(dim=(2, 3))


def shuffle(x, groups):
    """Deal the channels of each group round in turn: channel g * n + i goes to i * groups + g."""
    return x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2)


# --- Residual networks (arXiv:1512.03385) ---------------------------------------------------------------------------


class BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, in_channels, width, stride, shortcut):
        super().__init__()
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut_name = shortcut
        add_shortcut(self, in_channels, width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + getattr(self, self.shortcut_name)(x))


class Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, in_channels, width, stride, shortcut):
        super().__init__()
        self.conv1 = conv(in_channels, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.shortcut_name = shortcut
        add_shortcut(self, in_channels, 4 * width, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + getattr(self, self.shortcut_name)(x))


def add_shortcut(block, in_channels, out_channels, stride):
    """The identity, or a 1x1 convolution with batch norm where the shape changes."""
    module = nn.Identity()
    if stride != 1 or in_channels != out_channels:
        module = nn.Sequential(conv(in_channels, out_channels, 1, stride), nn.BatchNorm2d(out_channels))
    block.add_module(block.shortcut_name, module)


class ResNet(nn.Module):
    """A stem, stages of residual blocks (stride 2 at the head of all but the first), global pooling, one linear layer."""

    def __init__(self, n_classes, in_channels, *, block, stem, widths, repeats, imagenet_stem, shortcut, head):
        super().__init__()
        self.imagenet_stem = imagenet_stem
        self.conv1 = conv(in_channels, stem, 7, 2) if imagenet_stem else conv(in_channels, stem)
        self.bn1 = nn.BatchNorm2d(stem)
        channels = stem
        self.n_stages = len(widths)
        for stage, (width, n_blocks) in enumerate(zip(widths, repeats)):
            blocks = []
            for index in range(n_blocks):
                stride = 2 if stage > 0 and index == 0 else 1
                blocks.append(block(channels, width, stride, shortcut))
                channels = width * block.expansion
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.head_name = head
        self.add_module(head, nn.Linear(channels, n_classes))
        kaiming_fan_out(self)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        if self.imagenet_stem:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(self.n_stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return getattr(self, self.head_name)(global_avg_pool(x))


def kaiming_fan_out(model):
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def resnet_cifar(depth, widths, n_classes, in_channels, image_size):
    """Three stages of (depth - 2) / 6 basic blocks after a 3x3 stem."""
    stem, *widths = widths
    return ResNet(
        n_classes, in_channels, block=BasicBlock, stem=stem, widths=widths, repeats=[(depth - 2) // 6] * 3,
        imagenet_stem=False, shortcut="downsample", head="fc",
    )  # fmt: skip


def resnet_wide_cifar(block, repeats, n_classes, in_channels, image_size):
    """The ImageNet plan after a 3x3 stem of stride 1, as mdistiller's ResNet18 and ResNet50."""
    return ResNet(
        n_classes, in_channels, block=block, stem=64, widths=[64, 128, 256, 512], repeats=repeats,
        imagenet_stem=False, shortcut="shortcut", head="linear",
    )  # fmt: skip


def resnet_imagenet(block, repeats, n_classes, in_channels, image_size):
    """torchvision's: the stride of a bottleneck is at its 3x3 convolution."""
    return ResNet(
        n_classes, in_channels, block=block, stem=64, widths=[64, 128, 256, 512], repeats=repeats,
        imagenet_stem=True, shortcut="downsample", head="fc",
    )  # fmt: skip


# --- Wide residual networks (arXiv:1605.07146) ----------------------------------------------------------------------


class WideBlock(nn.Module):
    """Pre-activation. Where the width changes, the shortcut too sees the activated input."""

    def __init__(self, in_channels, width, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv(in_channels, width, 3, stride)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv2 = conv(width, width)
        self.convShortcut = conv(in_channels, width, 1, stride) if in_channels != width else None

    def forward(self, x):
        activated = F.relu(self.bn1(x))
        y = self.conv2(F.relu(self.bn2(self.conv1(activated))))
        return y + (x if self.convShortcut is None else self.convShortcut(activated))


class WideStage(nn.Module):
    def __init__(self, n_blocks, in_channels, width, stride):
        super().__init__()
        head = WideBlock(in_channels, width, stride)
        self.layer = nn.Sequential(head, *(WideBlock(width, width, 1) for _ in range(n_blocks - 1)))

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, depth, widen, n_classes, in_channels, image_size):
        super().__init__()
        n_blocks = (depth - 4) // 6
        widths = [16 * widen, 32 * widen, 64 * widen]
        self.conv1 = conv(in_channels, 16)
        self.block1 = WideStage(n_blocks, 16, widths[0], 1)
        self.block2 = WideStage(n_blocks, widths[0], widths[1], 2)
        self.block3 = WideStage(n_blocks, widths[1], widths[2], 2)
        self.bn1 = nn.BatchNorm2d(widths[2])
        self.fc = nn.Linear(widths[2], n_classes)
        kaiming_fan_out(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x):
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(global_avg_pool(F.relu(self.bn1(x))))


# --- VGG with batch norm (arXiv:1409.1556) --------------------------------------------------------------------------


class Vgg(nn.Module):
    """Five blocks of 3x3 convolutions (with biases), a 2x2 max pool after the first three, and a fourth at 64x64."""

    def __init__(self, repeats, n_classes, in_channels, image_size):
        super().__init__()
        self.pool_four_times = image_size == 64
        for index, (n_convs, width) in enumerate(zip(repeats, [64, 128, 256, 512, 512])):
            layers = []
            for _ in range(n_convs):
                layers += [conv(in_channels, width, bias=True), nn.BatchNorm2d(width), nn.ReLU()]
                in_channels = width
            # The last ReLU stands outside in mdistiller; it has no parameters, so only the numbers before it matter.
            self.add_module(f"block{index}", nn.Sequential(*layers))
        self.classifier = nn.Linear(512, n_classes)
        kaiming_fan_out(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.zeros_(module.bias)
        small_classifier(self.classifier)

    def forward(self, x):
        for index in range(5):
            x = getattr(self, f"block{index}")(x)
            if index < 3 or (index == 3 and self.pool_four_times):
                x = F.max_pool2d(x, 2)
        return self.classifier(global_avg_pool(x))


def small_classifier(linear):
    nn.init.normal_(linear.weight, 0, 0.01)
    nn.init.zeros_(linear.bias)


# --- MobileNets (arXiv:1801.04381, arXiv:1704.04861) ----------------------------------------------------------------


def conv_bn_relu(in_channels, out_channels, kernel, stride=1):
    return nn.Sequential(conv(in_channels, out_channels, kernel, stride), nn.BatchNorm2d(out_channels), nn.ReLU())


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; the first convolution is there even where it expands by 1."""

    def __init__(self, in_channels, out_channels, stride, expansion):
        super().__init__()
        hidden = in_channels * expansion
        self.conv = nn.Sequential(
            *(conv(in_channels, hidden, 1), nn.BatchNorm2d(hidden), nn.ReLU()),
            *(depthwise(hidden, stride), nn.BatchNorm2d(hidden), nn.ReLU()),
            *(conv(hidden, out_channels, 1), nn.BatchNorm2d(out_channels)),
        )
        self.has_skip = stride == 1 and in_channels == out_channels

    def forward(self, x):
        return x + self.conv(x) if self.has_skip else self.conv(x)


class MobileNetV2Half(nn.Module):
    """Half width, expansion 6, ReLU: mdistiller's `MobileNetV2`."""

    # (expansion, width before halving, blocks, stride of the first)
    PLAN = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

    def __init__(self, n_classes, in_channels, image_size):
        super().__init__()
        channels = 16
        self.conv1 = conv_bn_relu(in_channels, channels, 3, 2)
        self.blocks = nn.ModuleList()
        for expansion, width, n_blocks, first_stride in self.PLAN:
            blocks = []
            for stride in [first_stride] + [1] * (n_blocks - 1):
                blocks.append(InvertedResidual(channels, width // 2, stride, expansion))
                channels = width // 2
            self.blocks.append(nn.Sequential(*blocks))
        self.conv2 = conv_bn_relu(channels, 1280, 1)
        self.classifier = nn.Sequential(nn.Linear(1280, n_classes))
        kaiming_fan_out_ungrouped(self)
        small_classifier(self.classifier[0])

    def forward(self, x):
        x = self.conv1(x)
        for stage in self.blocks:
            x = stage(x)
        return self.classifier(global_avg_pool(self.conv2(x)))


def kaiming_fan_out_ungrouped(model):
    """As kaiming_fan_out, except that a depthwise convolution too counts all output channels, as mdistiller does."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.kernel_size[0] * module.kernel_size[1] * module.out_channels
            nn.init.normal_(module.weight, 0, (2 / fan_out) ** 0.5)


class MobileNetV1(nn.Module):
    PLAN = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)] + [(512, 1)] * 5 + [(1024, 2), (1024, 1)]

    def __init__(self, n_classes, in_channels, image_size):
        super().__init__()
        stages, channels = [conv_bn_relu(in_channels, 32, 3, 2)], 32
        for width, stride in self.PLAN:
            stages.append(
                nn.Sequential(
                    *(depthwise(channels, stride), nn.BatchNorm2d(channels), nn.ReLU()),
                    *(conv(channels, width, 1), nn.BatchNorm2d(width), nn.ReLU()),
                )
            )
            channels = width
        self.model = nn.Sequential(*stages)
        self.fc = nn.Linear(channels, n_classes)

    def forward(self, x):
        return self.fc(global_avg_pool(self.model(x)))


# --- ShuffleNets (arXiv:1707.01083, arXiv:1807.11164) ---------------------------------------------------------------


class ShuffleV1Block(nn.Module):
    def __init__(self, in_channels, out_channels, stride, groups):
        super().__init__()
        # A block of stride 2 keeps its pooled input beside what it makes.
        made = out_channels - in_channels if stride == 2 else out_channels
        middle = made // 4
        self.stride = stride
        self.groups = 1 if in_channels == 24 else groups
        self.conv1 = conv(in_channels, middle, 1, groups=self.groups)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = depthwise(middle, stride)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = conv(middle, made, 1, groups=groups)
        self.bn3 = nn.BatchNorm2d(made)

    def forward(self, x):
        y = shuffle(F.relu(self.bn1(self.conv1(x))), self.groups)
        y = self.bn3(self.conv3(F.relu(self.bn2(self.conv2(y)))))
        if self.stride == 2:
            # The pool counts the zeros at the border (PyTorch's default).
            return F.relu(torch.cat([y, F.avg_pool2d(x, 3, 2, 1)], 1))
        return F.relu(y + x)


class ShuffleV2Down(nn.Module):
    def __init__(self, in_channels, out_channels):
        super().__init__()
        half = out_channels // 2
        self.conv1 = depthwise(in_channels, 2)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = conv(in_channels, half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(in_channels, half, 1)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = depthwise(half, 2)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = conv(half, half, 1)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, x):
        left = F.relu(self.bn2(self.conv2(self.bn1(self.conv1(x)))))
        right = self.bn4(self.conv4(F.relu(self.bn3(self.conv3(x)))))
        right = F.relu(self.bn5(self.conv5(right)))
        return shuffle(torch.cat([left, right], 1), 2)


class ShuffleV2Block(nn.Module):
    """The first half of the channels passes untouched."""

    def __init__(self, channels):
        super().__init__()
        half = channels // 2
        self.conv1 = conv(half, half, 1)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = depthwise(half)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = conv(half, half, 1)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, x):
        kept, y = x.chunk(2, dim=1)
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(y)))))
        y = F.relu(self.bn3(self.conv3(y)))
        return shuffle(torch.cat([kept, y], 1), 2)


class ShuffleNet(nn.Module):
    """1x1 stem to 24 channels, three stages, for version 2 a last 1x1 convolution, one linear layer."""

    def __init__(self, version, n_classes, in_channels, image_size):
        super().__init__()
        self.conv1 = conv(in_channels, 24, 1)
        self.bn1 = nn.BatchNorm2d(24)
        channels = 24
        for stage, n_blocks in enumerate([4, 8, 4]):
            width = {1: 240, 2: 116}[version] << stage
            if version == 1:
                rest = [ShuffleV1Block(width, width, 1, groups=3) for _ in range(n_blocks - 1)]
                blocks = [ShuffleV1Block(channels, width, 2, groups=3), *rest]
            else:
                blocks = [ShuffleV2Down(channels, width), *(ShuffleV2Block(width) for _ in range(n_blocks - 1))]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
            channels = width
        self.has_last = version == 2
        if self.has_last:
            self.conv2 = conv(channels, 1024, 1)
            self.bn2 = nn.BatchNorm2d(1024)
            channels = 1024
        self.linear = nn.Linear(channels, n_classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        if self.has_last:
            x = F.relu(self.bn2(self.conv2(x)))
        return self.linear(global_avg_pool(x))


# --- DeiT-Ti (arXiv:2012.12877) -------------------------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.n_heads = n_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x):
        query, key, value = self.qkv(x).unflatten(2, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x)))  # the exact GELU, by erf


class TransformerBlock(nn.Module):
    def __init__(self, width, n_heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, n_heads)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width)

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class PatchEmbed(nn.Module):
    def __init__(self, in_channels, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(in_channels, width, patch, patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class DeitTiny(nn.Module):
    """Width 192, 12 blocks, 3 heads, patches of 16, a class token and learned positions; no distillation token."""

    def __init__(self, n_classes, in_channels, image_size, width=192, depth=12, n_heads=3, patch=16):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + (image_size // patch) ** 2, width))
        self.patch_embed = PatchEmbed(in_channels, width, patch)
        self.blocks = nn.Sequential(*(TransformerBlock(width, n_heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, n_classes)
        for module in [self, *self.modules()]:
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.trunc_normal_(self.cls_token, std=0.02)
        nn.init.trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x):
        tokens = self.patch_embed(x)
        tokens = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(tokens))[:, 0])


# --- The table ------------------------------------------------------------------------------------------------------

THIN, WIDE = [16, 16, 32, 64], [32, 64, 128, 256]

# name -> (build(n_classes, in_channels, image_size), image size, classes, parameters for 3 channels and those classes)
MODELS = {
    "resnet8": (partial(resnet_cifar, 8, THIN), 32, 100, 83_892),
    "resnet14": (partial(resnet_cifar, 14, THIN), 32, 100, 181_108),
    "resnet20": (partial(resnet_cifar, 20, THIN), 32, 100, 278_324),
    "resnet32": (partial(resnet_cifar, 32, THIN), 32, 100, 472_756),
    "resnet44": (partial(resnet_cifar, 44, THIN), 32, 100, 667_188),
    "resnet56": (partial(resnet_cifar, 56, THIN), 32, 100, 861_620),
    "resnet110": (partial(resnet_cifar, 110, THIN), 32, 100, 1_736_564),
    "resnet8x4": (partial(resnet_cifar, 8, WIDE), 32, 100, 1_233_540),
    "resnet32x4": (partial(resnet_cifar, 32, WIDE), 32, 100, 7_433_860),
    "wrn_16_1": (partial(WideResNet, 16, 1), 32, 100, 180_916),
    "wrn_16_2": (partial(WideResNet, 16, 2), 32, 100, 703_284),
    "wrn_40_1": (partial(WideResNet, 40, 1), 32, 100, 569_780),
    "wrn_40_2": (partial(WideResNet, 40, 2), 32, 100, 2_255_156),
    "vgg8": (partial(Vgg, [1, 1, 1, 1, 1]), 32, 100, 3_965_028),
    "vgg11": (partial(Vgg, [1, 1, 2, 2, 2]), 32, 100, 9_277_284),
    "vgg13": (partial(Vgg, [2, 2, 2, 2, 2]), 32, 100, 9_462_180),
    "vgg16": (partial(Vgg, [2, 2, 3, 3, 3]), 32, 100, 14_774_436),
    "vgg19": (partial(Vgg, [2, 2, 4, 4, 4]), 32, 100, 20_086_692),
    "mobilenet_v2": (MobileNetV2Half, 32, 100, 812_836),
    "shufflenet_v1": (partial(ShuffleNet, 1), 32, 100, 949_258),
    "shufflenet_v2": (partial(ShuffleNet, 2), 32, 100, 1_355_528),
    "resnet18_cifar": (partial(resnet_wide_cifar, BasicBlock, [2, 2, 2, 2]), 32, 100, 11_220_132),
    "resnet34_cifar": (partial(resnet_wide_cifar, BasicBlock, [3, 4, 6, 3]), 32, 100, 21_328_292),
    "resnet50_cifar": (partial(resnet_wide_cifar, Bottleneck, [3, 4, 6, 3]), 32, 100, 23_705_252),
    "resnet18": (partial(resnet_imagenet, BasicBlock, [2, 2, 2, 2]), 224, 1000, 11_689_512),
    "resnet34": (partial(resnet_imagenet, BasicBlock, [3, 4, 6, 3]), 224, 1000, 21_797_672),
    "resnet50": (partial(resnet_imagenet, Bottleneck, [3, 4, 6, 3]), 224, 1000, 25_557_032),
    "mobilenet_v1": (MobileNetV1, 224, 1000, 4_231_976),
    "deit_tiny": (DeitTiny, 224, 1000, 5_717_416),
}


def build(name, n_classes, in_channels=3, image_size=None):
    constructor, usual_size, _, _ = MODELS[name]
    return constructor(n_classes, in_channels, image_size or usual_size)


def mult_adds(model, in_channels, image_size):
    """Multiply-adds of one image in convolutions and linear layers."""
    total = 0

    def count(module, _, output):
        nonlocal total
        per_output = module.weight[0].numel()
        total += per_output * output.numel()

    hooks = [m.register_forward_hook(count) for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    with torch.no_grad():
        model.eval()(torch.zeros(1, in_channels, image_size, image_size))
    for hook in hooks:
        hook.remove()
    return total


def main():
    for name, (_, image_size, n_classes, published) in MODELS.items():
        model = build(name, n_classes)
        n_parameters = sum(parameter.numel() for parameter in model.parameters())
        verdict = "as published" if n_parameters == published else f"PUBLISHED {published:,}"
        millions = mult_adds(model, 3, image_size) / 1e6
        print(f"{name:16} {n_parameters:>12,} parameters, {verdict}; {millions:9.2f} M multiply-adds")


if __name__ == "__main__":
    main()
