"""Check models_torch.py against the code it follows: same names in the same order, same shapes, same logits.

    python models_check.py [--mdistiller CHECKOUT]

torchvision and timm are needed; a checkout of megvii-research/mdistiller, for the CIFAR networks and MobileNetV1, is
optional, and what it would have checked is said to be skipped. Weights are the reference's own random ones, its
running statistics are moved by a few batches first.
"""

import argparse
import contextlib
import io
import sys
import types

import timm
import torch
import torchvision
from models_torch import MODELS, build
from torch import nn


def references(mdistiller_path):
    """name -> the reference model with the usual number of classes, for all references at hand."""
    found = {name: getattr(torchvision.models, name)() for name in ["resnet18", "resnet34", "resnet50"]}
    found["deit_tiny"] = timm.create_model("deit_tiny_patch16_224")
    if mdistiller_path is None:
        return found
    # The package's own __init__ imports trainers and their dependencies, so only its models are imported.
    for package in ["mdistiller", "mdistiller.models"]:
        sys.modules[package] = types.ModuleType(package)
        sys.modules[package].__path__ = [f"{mdistiller_path}/{package.replace('.', '/')}"]
    from mdistiller.models.cifar import cifar_model_dict as cifar
    from mdistiller.models.cifar.resnetv2 import ResNet34
    from mdistiller.models.imagenet.mobilenetv1 import MobileNetV1

    theirs = {"mobilenet_v2": "MobileNetV2", "shufflenet_v1": "ShuffleV1", "shufflenet_v2": "ShuffleV2"}
    theirs |= {"resnet18_cifar": "ResNet18", "resnet50_cifar": "ResNet50"}
    with contextlib.redirect_stdout(io.StringIO()):
        for name in MODELS.keys() - found.keys() - {"resnet34_cifar", "mobilenet_v1"}:
            found[name] = cifar[theirs.get(name, name)][0](num_classes=100)
    found["resnet34_cifar"] = ResNet34(num_classes=100)
    found["mobilenet_v1"] = MobileNetV1()
    return found


def logits(model, images):
    output = model(images)
    return output[0] if isinstance(output, tuple) else output  # mdistiller returns (logits, features)


def check(name, reference):
    _, image_size, n_classes, _ = MODELS[name]
    images = torch.randn(4, 3, image_size, image_size)
    with torch.no_grad():
        for parameter in reference.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))  # fresh scales and shifts are all 1 and 0
        reference.train()
        for _ in range(3):
            logits(reference, images)
        reference.eval()
        ours = build(name, n_classes).eval()
        theirs = reference.state_dict()
        same_order = list(ours.state_dict()) == list(theirs)
        ours.load_state_dict(theirs, strict=True)
        expected = logits(reference, images)
        error = ((ours(images) - expected).abs().max() / expected.abs().max()).item()
        ours.train(), reference.train()
        expected = logits(reference, images)
        error_train = ((ours(images) - expected).abs().max() / expected.abs().max()).item()
    assert error < 1e-4 and error_train < 1e-4, f"{name}: logits differ by {error:.1e}, {error_train:.1e} of their largest"
    print(f"{name:16} same names{'' if same_order else ' (in another order)'}; logits differ by {error:.0e}, {error_train:.0e}")


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mdistiller", metavar="CHECKOUT")
    found = references(arguments.parse_args().mdistiller)
    torch.manual_seed(0)
    for name in MODELS:
        if name in found:
            check(name, found[name])
        else:
            print(f"{name:16} SKIPPED: no mdistiller checkout given")


if __name__ == "__main__":
    main()
