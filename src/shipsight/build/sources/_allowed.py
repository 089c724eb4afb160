# SPDX-License-Identifier: Apache-2.0
"""The names that a checkpoint's pickle may use: an explicit list, taken from YOLOv8, YOLO11 and YOLO26 checkpoints.

Made by saving each of the three in all five tasks, stripped and unstripped, and listing what their pickles name (a test
does it again and fails on a name that is missing here). A class here may be made empty and given a state, never called;
only the functions here may be called, with arguments that their check accepts. Adding a class: it must have no
`__setstate__`, `__new__` or property setter that reaches files, processes or the network. Private.
"""

from __future__ import annotations

import re
from collections.abc import Callable

__all__ = ["CLASSES", "FUNCTIONS", "HEADS", "MODELS", "TRAINING_ONLY", "family_of"]

Name = tuple[str, str]

MODELS = {
    "DetectionModel": "detect",
    "SegmentationModel": "segment",
    "PoseModel": "pose",
    "OBBModel": "obb",
    "ClassificationModel": "classify",
}
"""Model classes -> task."""

HEADS = {
    "Detect": "detect",
    "Segment": "segment",
    "Segment26": "segment",
    "Pose": "pose",
    "Pose26": "pose",
    "OBB": "obb",
    "OBB26": "obb",
    "Classify": "classify",
}
"""Head classes -> task."""

_BLOCKS = "Attention Bottleneck C2PSA C2f C3k C3k2 DFL PSABlock Proto Proto26 RealNVP SPPF"
_LOSSES = (
    "BCEDiceLoss BboxLoss DFLoss E2ELoss KeypointLoss MultiChannelDiceLoss PoseLoss26 RLELoss RotatedBboxLoss "
    "SegmentLoss26 v8ClassificationLoss v8DetectionLoss v8OBBLoss v8PoseLoss v8SegmentationLoss"
)
_ASSIGNERS = "PoseTaskAlignedAssigner RotatedTaskAlignedAssigner SegTaskAlignedAssigner TaskAlignedAssigner"


def _in(module: str, names: str) -> set[Name]:
    return {(module, name) for name in names.split()}


TRAINING_ONLY: frozenset[Name] = frozenset(
    _in("ultralytics.utils.loss", _LOSSES)
    | _in("ultralytics.utils.tal", _ASSIGNERS)
    | _in("ultralytics.utils", "IterableSimpleNamespace")
    | _in("torch.nn.modules.loss", "BCEWithLogitsLoss BCELoss CrossEntropyLoss")
)
"""What an unstripped checkpoint holds beside its network; loaded and dropped."""

CLASSES: frozenset[Name] = frozenset(
    TRAINING_ONLY
    | _in("ultralytics.nn.tasks", " ".join(MODELS))
    | _in("ultralytics.nn.modules.head", " ".join(HEADS))
    | _in("ultralytics.nn.modules.block", _BLOCKS)
    | _in("ultralytics.nn.modules.conv", "Concat Conv DWConv")
    | _in("ultralytics.nn.modules", f"{_BLOCKS} Concat Conv DWConv {' '.join(HEADS)}")  # early 8.0 releases
    | _in("torch.nn.modules.activation", "SiLU Tanh ReLU LeakyReLU Sigmoid Hardswish Mish GELU")
    | _in("torch.nn.modules.batchnorm", "BatchNorm2d")
    | _in("torch.nn.modules.container", "ModuleList Sequential")
    | _in("torch.nn.modules.conv", "Conv2d ConvTranspose2d")
    | _in("torch.nn.modules.dropout", "Dropout")
    | _in("torch.nn.modules.linear", "Identity Linear")
    | _in("torch.nn.modules.pooling", "AdaptiveAvgPool2d MaxPool2d")
    | _in("torch.nn.modules.upsampling", "Upsample")
    | _in("torchvision.transforms.transforms", "CenterCrop Compose Normalize Resize ToTensor")
    | _in("torch", "FloatStorage HalfStorage BFloat16Storage DoubleStorage")
    | _in("torch", "LongStorage IntStorage ShortStorage CharStorage ByteStorage BoolStorage")
    | _in("torch", "float32 float16 bfloat16 float64 int64 int32 uint8 bool")
)
"""Classes (and torch's storage and number types, which are looked up but never made by the pickle)."""


def _plain(arguments: tuple[object, ...]) -> bool:
    return all(value is None or isinstance(value, (bool, int, float, str)) for value in arguments)


def _is_device(arguments: tuple[object, ...]) -> bool:
    return _plain(arguments) and 1 <= len(arguments) <= 2


def _is_shape(arguments: tuple[object, ...]) -> bool:
    return len(arguments) == 1 and isinstance(arguments[0], tuple) and _plain(arguments[0])


def _is_dtype(arguments: tuple[object, ...]) -> bool:
    return (
        bool(arguments)
        and isinstance(arguments[0], str)
        and re.fullmatch(r"[<>=|]?[bfiu][1248]", arguments[0]) is not None
    )


def _is_latin1(arguments: tuple[object, ...]) -> bool:
    return len(arguments) == 2 and isinstance(arguments[0], str) and arguments[1] == "latin1"


def _has_path_parts(arguments: tuple[object, ...]) -> bool:
    return all(isinstance(part, str) for part in arguments)


def _anything(_arguments: tuple[object, ...]) -> bool:
    return True


def _nothing(arguments: tuple[object, ...]) -> bool:
    return arguments == ()


FUNCTIONS: dict[Name, Callable[[tuple[object, ...]], bool]] = {
    ("torch._utils", "_rebuild_tensor_v2"): _anything,  # torch bounds-checks size and stride against the storage
    ("torch._utils", "_rebuild_parameter"): _anything,
    ("collections", "OrderedDict"): _nothing,
    ("__builtin__", "set"): _anything,
    ("builtins", "set"): _anything,
    ("torch", "Size"): _is_shape,
    ("torch", "device"): _is_device,
    ("torchvision.transforms.functional", "InterpolationMode"): _is_device,
    ("pathlib", "PosixPath"): _has_path_parts,
    ("pathlib", "WindowsPath"): _has_path_parts,
    ("pathlib._local", "PosixPath"): _has_path_parts,
    ("pathlib._local", "WindowsPath"): _has_path_parts,
    ("numpy.core.multiarray", "scalar"): _anything,  # of a dtype that passed its own check
    ("numpy._core.multiarray", "scalar"): _anything,
    ("numpy", "dtype"): _is_dtype,
    ("_codecs", "encode"): _is_latin1,
}
"""Functions -> whether they may be called with these (symbolic) arguments."""

_FAMILIES: tuple[tuple[str, str, str], ...] = (
    (r"models\.(yolo|common|experimental)", r"\w+", "YOLOv5 or YOLOv7 of the original repository"),
    (r"ultralytics\.nn\.modules\.head", "v10Detect", "YOLOv10"),
    (r"ultralytics\.nn\.modules\.block", "SCDown|C2fCIB|CIB|PSA|RepVGGDW", "YOLOv10"),
    (
        r"ultralytics\.nn\.modules\.\w+",
        r"RTDETRDecoder|AIFI|HG\w+|RepC3|Deformable\w+|TransformerEncoderLayer|MLP\w*",
        "RT-DETR",
    ),
    (r"ultralytics\.nn\.tasks", "RTDETRDetectionModel", "RT-DETR"),
    (
        r"ultralytics\.nn\.\w+(\.\w+)?",
        r"World\w+|C2fAttn|ContrastiveHead|BNContrastiveHead|ImagePoolingAttn|MaxSigmoidAttnBlock",
        "YOLO-World",
    ),
    (r"ultralytics\.nn\.\w+(\.\w+)?", r"YOLOE\w+|LRPCHead|SAVPE|SwiGLUFFN|Residual", "YOLOE"),
    (r"ultralytics\.nn\.modules\.block", "A2C2f|AAttn|ABlock", "YOLO12"),
    (
        r"ultralytics\.nn\.modules\.block",
        r"Rep\w+|ELAN1|ADown|AConv|SPPELAN|CBFuse|CBLinear|C3Ghost|Ghost\w+",
        "YOLOv9 or another network",
    ),
    (r"ultralytics\.nn\.modules\.block", "C3|SPP|BottleneckCSP", "YOLOv5 or YOLOv3"),
    (r"ultralytics\.nn\.(tasks|modules\.\w+)", r"Semantic\w+|Depth\w*", "semantic segmentation or depth"),
    (r"ultralytics\.nn\.(tasks|modules)(\.\w+)?", r"[A-Z]\w*", "another network of Ultralytics"),
    (r"ultralytics\.models\.(sam|fastsam|nas|rtdetr)[\w.]*", r"[A-Z]\w*", "SAM, FastSAM or YOLO-NAS"),
    (r"super_gradients[\w.]*", r"\w+", "YOLO-NAS"),
)


def family_of(module: str, name: str) -> str | None:
    """Names the kind of network a class belongs to that is known but not handled; None for everything else.

    Nothing named here is ever loaded; this only decides which error a person reads.
    """
    if (module, name) in CLASSES or (module, name) in FUNCTIONS:
        return None
    for module_pattern, name_pattern, family in _FAMILIES:
        if re.fullmatch(module_pattern, module) and re.fullmatch(name_pattern, name):
            return family
    return None
