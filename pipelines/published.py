#!/usr/bin/env python3
"""Writes the recipes of the published teacher-student pairs, one per method, each with its published figure.

    python3 pipelines/published.py            writes pipelines/{cifar100,tiny-imagenet,imagenet}/<pair>/<method>.toml
    python3 pipelines/published.py --check    says what differs from that, and exits 1 (tests/recipes.rs runs it)

Figures are copied as published, never recomputed. To change a recipe, change this file.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

LS = "README of sunshangquan/logit-standardization-KD@f6e5aa51"
MD = "README of megvii-research/mdistiller@a08d46f1"
DI = "README of hunto/DIST_KD@2418f18b"
SDD = '"Scale Decoupled Distillation", CVPR 2024'
RLD = "arXiv:2408.07703, by way of a note on it"
# Given without saying which of the two it is from.
EITHER = f"{MD} or {SDD}"
LDRLD = "arXiv:2507.15911, by way of a note on it"

# What a method is called in prose, by its file's name.
TITLES = {
    "ce": "Cross-entropy alone, the baseline",
    "kd": "KD (arXiv:1503.02531)",
    "dkd": "DKD (arXiv:2203.08679)",
    "mlkd": "MLKD (CVPR 2023), weak and strong views",
    "kd_lskd": "KD with logit standardization (LSKD, arXiv:2403.01427)",
    "dkd_lskd": "DKD with logit standardization (LSKD, arXiv:2403.01427)",
    "mlkd_lskd": "MLKD with logit standardization (LSKD, arXiv:2403.01427), weak and strong views",
    "rld": "RLD (arXiv:2408.07703)",
    "ldrld": "LDRLD (arXiv:2507.15911)",
    "dist": "DIST (arXiv:2205.10536)",
    "nkd": "NKD (arXiv:2303.13005)",
    "mcld": "MCLD (arXiv:2411.10693) in our default reading, without cross-entropy",
}

# Students: the zoo's name, by the papers' name; and those that the papers train with the small learning rate.
STUDENTS = {
    "resnet8x4": "resnet8x4", "resnet20": "resnet20", "resnet32": "resnet32", "VGG8": "vgg8", "WRN-40-1": "wrn_40_1",
    "WRN-16-2": "wrn_16_2", "WRN-40-2": "wrn_40_2", "MobileNetV2": "mobilenet_v2", "ShuffleNetV1": "shufflenet_v1",
    "ShuffleNetV2": "shufflenet_v2", "ResNet18": "resnet18", "MobileNetV1": "mobilenet_v1",
}
LIGHT = {"mobilenet_v2", "shufflenet_v1", "shufflenet_v2"}

COLUMNS = ["kd", "dkd", "mlkd", "kd_lskd", "dkd_lskd", "mlkd_lskd", "rld", "ldrld", "dist"]
# teacher, student, the teacher's top-1, the student's own, then the columns; "-" where nothing was published.
CIFAR100 = [
    ("resnet32x4", "resnet8x4", "79.42", "72.50", "73.33 76.32 77.08 76.62 77.01 78.28 76.64 77.20 76.31±0.19"),
    ("VGG13", "VGG8", "74.64", "70.36", "72.98 74.68 75.18 74.36 74.81 75.22 74.93 75.06 -"),
    ("WRN-40-2", "WRN-40-1", "75.61", "71.98", "73.54 74.81 75.35 74.37 74.89 75.56 74.88 - 74.43±0.24"),
    ("WRN-40-2", "WRN-16-2", "75.61", "-", "74.92 76.24 76.63 76.11 76.39 76.95 - 76.35 -"),
    ("resnet56", "resnet20", "72.34", "69.06", "70.66 71.97 72.19 71.43 72.32 72.33 72.00 72.20 71.75±0.30"),
    ("resnet110", "resnet32", "-", "-", "73.08 74.11 74.11 74.17 74.29 74.32 74.02 - -"),
    ("resnet110", "resnet20", "-", "69.06", "70.67 71.06 71.89 71.48 71.85 72.27 71.67 71.98 -"),
    ("resnet32x4", "ShuffleNetV2", "79.42", "71.82", "74.45 77.07 78.44 75.56 77.37 78.76 - - 77.35±0.25"),
    ("resnet32x4", "WRN-16-2", "79.42", "-", "74.90 75.70 76.52 75.26 76.19 77.53 - - -"),
    ("resnet32x4", "WRN-40-2", "79.42", "75.61", "77.70 78.46 79.26 77.92 78.95 79.66 - - -"),
    ("WRN-40-2", "resnet8x4", "75.61", "72.50", "73.97 75.56 77.33 77.11 76.75 77.68 - - -"),
    ("WRN-40-2", "MobileNetV2", "75.61", "64.60", "68.36 69.28 70.78 69.23 70.01 71.61 - - -"),
    ("VGG13", "MobileNetV2", "74.64", "64.60", "67.37 69.71 70.57 68.61 69.98 70.94 - - -"),
    ("ResNet50", "MobileNetV2", "-", "64.60", "67.35 70.35 71.04 69.02 70.45 71.19 - - 68.66±0.23"),
    ("resnet32x4", "ShuffleNetV1", "79.42", "70.50", "74.07 76.45 - - - - - 76.46 76.34±0.18"),
    ("WRN-40-2", "ShuffleNetV1", "75.61", "70.50", "74.83 76.70 - - - - - - -"),
]
# Who published a column. The last two pairs are not in LSKD's table.
SOURCES = {"rld": RLD, "ldrld": LDRLD, "dist": DI, "nkd": LDRLD}
NKD = {("resnet32x4", "resnet8x4"): "76.35", ("resnet32x4", "ShuffleNetV1"): "76.31"}
DKD_ELSEWHERE = {
    ("WRN-40-2", "WRN-16-2"): f"76.23 in the {MD}",
    ("resnet110", "resnet20"): f"70.91 in {LDRLD}",
}
# DKD's beta: 8 where nothing else is said. The codes of DKD, and of LSKD and RLD for resnet110 -> resnet20.
BETA = {
    ("VGG13", "VGG8"): 6, ("VGG13", "MobileNetV2"): 6, ("WRN-40-2", "WRN-16-2"): 6, ("WRN-40-2", "WRN-40-1"): 6,
    ("resnet56", "resnet20"): 2, ("resnet110", "resnet32"): 2, ("resnet110", "resnet20"): 2,
}
# LSKD's temperature and weight for KD where its logs name others than 2 and 9.
LSKD_KD = {("VGG13", "VGG8"): (3, 9), ("resnet110", "resnet20"): (4, 12), ("ResNet50", "MobileNetV2"): (3, 1)}

IMAGENET = {
    ("ResNet34", "ResNet18"): {
        "teacher": "73.31 (top-5 91.43)", "min_accuracy": 0.723, "beta": 0.5,
        "ce": ("69.75 (top-5 89.07); DIST's own baseline 69.76", f"{EITHER}; {DI}"),
        "kd": ("70.66 (top-5 89.88)", f"{SDD}; another run in circulation has 71.03, {MD}"),
        "dkd": ("71.70 (top-5 90.41)", EITHER),
        "rld": ("71.91", RLD), "ldrld": ("71.88", LDRLD), "dist": ("72.07", DI), "nkd": ("71.96", SDD),
    },
    ("ResNet50", "MobileNetV1"): {
        "teacher": "76.16 (top-5 92.86)", "min_accuracy": 0.751, "beta": 2,
        "ce": ("68.87 (top-5 88.76); DIST's own baseline 70.13", f"{EITHER}; {DI}"),
        "kd": ("70.50 (top-5 90.34)", f"{EITHER}; 70.49 in {LDRLD}"),
        "dkd": ("72.05 (top-5 91.05)", EITHER),
        "rld": ("72.75", RLD), "ldrld": ("73.12", LDRLD), "dist": ("73.24", DI), "nkd": ("72.58", SDD),
    },
}
TINY = {("ResNet18", "MobileNetV2"): "58.35", ("ResNet18", "ShuffleNetV2"): "62.26"}


def slug(name):
    return name.lower().replace("-", "_").replace("netv", "net_v")


def table(name, **options):
    parts = [f'name = "{name}"'] + [f"{key} = {value}" for key, value in options.items()]
    return "[[loss]]\n" + "\n".join(parts) + "\n"


def losses(method, pair, imagenet=None):
    """The [[loss]] entries, and what is to be said about their options."""
    beta = imagenet or BETA.get(pair, 8)
    t = 1 if imagenet else 4
    epochs = {"warmup_epochs": 1} if imagenet else {"warmup_epochs": 20}
    ce, weak_ce = table("ce"), table("ce", weight=0.5 if imagenet else 0.1)
    if method == "ce":
        return ce, ""
    if method == "kd":
        return weak_ce + "\n" + table("kd", weight=0.5 if imagenet else 0.9, temperature=t), ""
    if method == "dkd":
        return ce + "\n" + table("dkd", alpha=1, beta=beta, temperature=t, **epochs), ""
    if method == "kd_lskd":
        temperature, weight = LSKD_KD.get(pair, (2, 9))
        return weak_ce + "\n" + table("kd", weight=weight, temperature=temperature, standardize="true"), (
            "Temperature and weight are those that the README's log names give for this pair." if pair in LSKD_KD
            else "Temperature 2 and weight 9 are what most of the README's log names say; this pair's own are not known.")
    if method == "dkd_lskd":
        return ce + "\n" + table("dkd", alpha=9, beta=9 * beta, temperature=2, standardize="true", **epochs), (
            "DKD's weights times 9, at temperature 2: the code's default; this pair's own factor is not known.")
    if method == "mlkd":
        return table("ce", weight=0.1, strong="true") + "\n" + table("mlkd", two_view="true"), ""
    if method == "mlkd_lskd":
        parts = {part: "{ weight = 9.0 }" for part in ("kd", "cc", "bc")}
        return table("ce", weight=0.1, strong="true") + "\n" + table(
            "mlkd", two_view="true", standardize="true", temperatures="[2, 3, 5, 2, 6]", **parts), ""
    if method == "rld":
        if imagenet:
            return ce + "\n" + table("rld", alpha=1, beta=beta, temperature=1, scd_temperature=1, **epochs), ""
        return ce + "\n" + table("rld", alpha=1, beta=4, temperature=4, scd_temperature=4, **epochs), (
            "One temperature, alpha 1 and beta 4 are the paper's; what each pair was given is not known.\n"
            "The published figure is a mean of three runs.")
    if method == "ldrld":
        return ce + "\n" + table("ldrld"), "Depth, temperature and weights are the authors' for ResNet32x4 to ResNet8x4; they published none for other pairs."
    if method == "dist":
        return ce + "\n" + table("dist", temperature=t), (
            "" if imagenet else "The learning rate falls as in mdistiller, not as in DIST's own code base.")
    if method == "nkd":
        options = {"temperature": 1, "gamma": 1.5} if imagenet else {}
        return ce + "\n" + table("nkd", **options), ""
    if method == "mcld":
        return table("mcld"), "The paper's own figures are not known here."
    raise KeyError(method)


def comment(*paragraphs):
    lines = []
    for paragraph in paragraphs:
        if not paragraph:
            continue
        if lines and paragraph[0] != "\0":
            lines.append("#")
        lines += ["# " + line for line in paragraph.lstrip("\0").split("\n")]
    return "\n".join(lines) + "\n"


def header(method, teacher, student, dataset, place, published, remark):
    return comment(
        f"{TITLES[method]}: {teacher} -> {student} on {dataset}.\n"
        f"make teacher-logits student RECIPE={place}",
        published, remark, "Written by pipelines/published.py; change it there.")


def figure(method, value, source, teacher, alone):
    """The published figures, as published."""
    what = f"Published top-1, %: {value}\n({source})." if value != "-" else "Published top-1: not published."
    rest = []
    if method != "ce":
        rest.append("student alone " + (alone if alone != "-" else "not published"))
    rest.append("teacher " + (teacher if teacher != "-" else "not published"))
    told = "; ".join(rest)
    return f"{what}\n{told[0].upper()}{told[1:]}."


CIFAR_AUGMENT = '{ name = "random_crop", size = 32, padding = 4 }, { name = "horizontal_flip" }'


def cifar100(teacher, student, accuracy, alone, method, value, source):
    zoo = STUDENTS[student]
    pair = (teacher, student)
    place = f"pipelines/cifar100/{slug(teacher)}-{slug(student)}/{method}.toml"
    entries, remark = losses(method, pair)
    two_view = method.startswith("mlkd")
    lr = 0.01 if zoo in LIGHT else 0.025 if two_view else 0.05
    epochs = (960 if student == "ShuffleNetV2" else 480) if two_view else 240
    if two_view:
        strong = CIFAR_AUGMENT + ', { name = "fixmatch_rand_augment" }'
        remark += ("\n" if remark else "") + (
            f"The published runs used {epochs} epochs and a new strong view in each of them: not to be compared with the\n"
            "240 epochs of the other methods. 16 strong views stand for theirs here.")
        views = f'\n[views.strong]\ncount = 16\naugment = [{strong}]\n'
    else:
        views = ""
    gate = "" if accuracy == "-" else f"min_accuracy = {round(float(accuracy) / 100 - 0.01, 4)} # a point below the published one\n"
    text = header(method, teacher, student, "CIFAR-100", place, figure(method, value, source, accuracy, alone), remark)
    return place, text + f"""
seed = 1

[data]
format = "cifar100"
root = "data/datasets/cifar100"
eval = "test"

[views]
count = "all" # 162: drawn with replacement, that is online training
draw = "uniform"
augment = [{CIFAR_AUGMENT}]
{views}
[[teacher]]
onnx = "data/teachers/cifar100_{slug(teacher)}.onnx"
mean = [0.5071, 0.4867, 0.4408]
std = [0.2675, 0.2565, 0.2761]
encoding = "f16"
{gate}
[student]
name = "{zoo}"

{entries}
[train]
epochs = {epochs}
batch_size = 64
optimizer = {{ name = "sgd", lr = {lr}, momentum = 0.9, weight_decay = 5e-4 }}
schedule = {{ name = "step", milestones = [150, 180, 210], gamma = 0.1 }}
"""


def imagenet(pair, method, known):
    teacher, student = pair
    place = f"pipelines/imagenet/{slug(teacher)}-{slug(student)}/{method}.toml"
    entries, remark = losses(method, pair, imagenet=known["beta"])
    remark += ("\n" if remark else "") + (
        "The published runs drew a new view in each epoch; 10 captured ones (26 GB) stand for theirs here.")
    value, source = known.get(method, ("-", ""))
    alone = known["ce"][0].split(";")[0]
    text = header(method, teacher, student, "ImageNet", place, figure(method, value, source, known["teacher"], alone), remark)
    return place, text + f"""
seed = 1

[data]
format = "image_folder"
root = "data/datasets/imagenet"
train = "train"
eval = "val"

[views]
count = 10
augment = [{{ name = "random_resized_crop", size = 224 }}, {{ name = "horizontal_flip" }}]
clean = [{{ name = "resize", size = 256 }}, {{ name = "center_crop", size = 224 }}]

[[teacher]]
onnx = "data/teachers/imagenet_{slug(teacher)}.onnx"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
encoding = "f16"
min_accuracy = {known["min_accuracy"]} # a point below the published one

[student]
name = "{STUDENTS[student]}"

{entries}
[train]
epochs = 100
batch_size = 512
optimizer = {{ name = "sgd", lr = 0.2, momentum = 0.9, weight_decay = 1e-4 }}
schedule = {{ name = "step", milestones = [30, 60, 90], gamma = 0.1 }}
"""


def tiny_imagenet(pair, method):
    teacher, student = pair
    place = f"pipelines/tiny-imagenet/{slug(teacher)}-{slug(student)}/{method}.toml"
    entries, remark = losses(method, pair)
    value = TINY[pair] if method == "kd" else "-"
    remark += ("\n" if remark else "") + (
        "200 epochs and the learning rate are the source's; batch, decay, views and the images' size (64) are ours.")
    text = header(method, teacher, student, "Tiny-ImageNet", place, figure(method, value, MD, "-", "-"), remark)
    return place, text + f"""
seed = 1

[data]
format = "image_folder"
root = "data/datasets/tiny-imagenet"
train = "train"
eval = "val"

[views]
count = 16
augment = [{{ name = "random_crop", size = 64, padding = 8 }}, {{ name = "horizontal_flip" }}]

[[teacher]]
onnx = "data/teachers/tiny_imagenet_{slug(teacher)}.onnx"
mean = [0.485, 0.456, 0.406]
std = [0.229, 0.224, 0.225]
encoding = "f16"

[student]
name = "{STUDENTS[student]}"

{entries}
[train]
epochs = 200
batch_size = 256
optimizer = {{ name = "sgd", lr = 0.2, momentum = 0.9, weight_decay = 5e-4 }}
schedule = {{ name = "step", milestones = [100, 150], gamma = 0.1 }}
"""


def recipes():
    """Every recipe, by its path."""
    found = {}
    for teacher, student, accuracy, alone, figures in CIFAR100:
        pair = (teacher, student)
        values = dict(zip(COLUMNS, figures.split(), strict=True))
        values |= {"ce": alone, "nkd": NKD.get(pair, "-"), "mcld": "-"}
        for method, value in values.items():
            source = SOURCES.get(method, LS)
            if method == "ce":
                source = SDD if student in ("VGG8",) else DI
            elif student == "ShuffleNetV1" and method in ("kd", "dkd"):
                source = f"{MD} or {DI}"
            elif method in ("kd", "dkd"):
                source += f";\nalso {MD}"
            if method == "dkd" and pair in DKD_ELSEWHERE:
                source = f"{LS}; {DKD_ELSEWHERE[pair]}"
            place, text = cifar100(*pair, accuracy, alone, method, value, source)
            found[place] = text
    for pair, known in IMAGENET.items():
        for method in ("ce", "kd", "dkd", "rld", "ldrld", "dist", "nkd", "mcld"):
            place, text = imagenet(pair, method, known)
            found[place] = text
    for pair in TINY:
        for method in ("ce", "kd", "mcld"):
            place, text = tiny_imagenet(pair, method)
            found[place] = text
    return found


def main():
    wanted = recipes()
    folders = [ROOT / "pipelines" / name for name in ("cifar100", "imagenet", "tiny-imagenet")]
    there = {str(path.relative_to(ROOT)) for folder in folders for path in folder.glob("*/*.toml")}
    if sys.argv[1:] == ["--check"]:
        wrong = [f"{place} is not of pipelines/published.py" for place in sorted(there - wanted.keys())]
        for place, text in sorted(wanted.items()):
            path = ROOT / place
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                wrong.append(f"{place} is not what pipelines/published.py writes")
        print("\n".join(wrong) or f"{len(wanted)} recipes are in step")
        return 1 if wrong else 0
    for place, text in wanted.items():
        path = ROOT / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    print(f"{len(wanted)} recipes written")
    return 0


if __name__ == "__main__":
    sys.exit(main())
