# SPDX-License-Identifier: Apache-2.0
"""Networks of every task lose channels: they stay what they were but for their widths, and cost what was said beforehand."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

TASKS = {
    "": "DetectionModel",
    "-seg": "SegmentationModel",
    "-pose": "PoseModel",
    "-obb": "OBBModel",
    "-cls": "ClassificationModel",
}
NAMES = [f"{base}{task}" for base in ("yolo11n", "yolov8n") for task in TASKS]
LARGER = ["yolo11s", "yolo11m", "yolov8s", "yolov8m-seg", "yolo11m-obb"]


def network_of(name: str) -> Any:
    import torch
    from ultralytics.nn import tasks

    torch.manual_seed(0)
    _, _, suffix = name.partition("-")
    network = getattr(tasks, TASKS[f"-{suffix}" if suffix else ""])(f"{name}.yaml", verbose=False)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            # As trained ones: no two channels matter alike.
            torch.nn.init.uniform_(module.weight, 0.2, 1.5)
            torch.nn.init.normal_(module.bias, std=0.2)
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2.0)
    return network.eval()


def answer(network: Any, size: int = 96) -> Any:
    import torch

    torch.manual_seed(1)
    with torch.no_grad():
        made = network(torch.rand(2, 3, size, size))
    while isinstance(made, list | tuple):
        made = made[0]
    return made


def counted(network: Any, size: int) -> int:
    """Multiply-adds of a run, from what the layers are."""
    import torch
    from torch import nn

    total = 0

    def note(module: Any, given: Any, made: Any) -> None:
        nonlocal total
        if isinstance(module, nn.Linear):
            total += module.in_features * module.out_features
            return
        on = given[0] if isinstance(module, nn.ConvTranspose2d) else made
        pairs = module.in_channels * module.out_channels // module.groups
        total += math.prod(on.shape[2:]) * math.prod(module.kernel_size) * pairs

    kinds = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
    hooks = [module.register_forward_hook(note) for module in network.modules() if isinstance(module, kinds)]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 3, size, size))
    for hook in hooks:
        hook.remove()
    return total


@pytest.mark.parametrize("name", NAMES)
def test_unfolding_and_folding_changes_nothing(name: str) -> None:
    import torch

    from shipsight.training._unfolding import fold, unfold

    network = network_of(name)
    before, state = answer(network), copy.deepcopy(network.state_dict())
    unfold(network)
    fold(network)
    assert torch.equal(before, answer(network.eval()))
    after = network.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[key], state[key]) for key in state)


@pytest.mark.parametrize("name", [*NAMES, *(pytest.param(one, marks=pytest.mark.slow) for one in LARGER)])
@pytest.mark.parametrize("multiple", [8, pytest.param(16, marks=pytest.mark.slow)])
def test_a_network_is_narrower_and_nothing_else(name: str, multiple: int) -> None:
    from shipsight.training._channels import Channels
    from shipsight.training._unfolding import fold, unfold
    from shipsight.training.planning import multiply_adds, plan_channels

    network = network_of(name)
    classes = {part: type(module) for part, module in network.named_modules()}
    shape, size = answer(network).shape, 96
    whole = counted(network, size)
    unfold(network)
    channels = Channels(network, size_hw=(size, size), multiple=multiple)
    assert multiply_adds(channels.layers, [unit.channels for unit in channels.units]) == whole
    plan = plan_channels(channels.units, channels.layers, share=0.55)
    channels.prune(plan.kept)
    fold(network)
    assert counted(network, size) == pytest.approx(multiply_adds(channels.layers, plan.kept))
    assert counted(network, size) / whole == pytest.approx(plan.share)
    assert plan.share <= 0.55
    assert {part: type(module) for part, module in network.named_modules()} == classes
    assert answer(network.eval()).shape == shape


def test_the_weakest_channels_go_and_the_others_stay_as_they_are() -> None:
    import torch

    from shipsight.training._channels import Channels
    from shipsight.training._unfolding import fold, unfold

    network = network_of("yolo11n")
    # Channels that give nothing and are read by nobody are the weakest there are: without them all answers are the same.
    first, second = network.model[0], network.model[1]
    with torch.no_grad():
        for channel in (1, 4, 6, 7, 9, 11, 12, 15):
            first.bn.weight[channel] = first.bn.bias[channel] = 0.0
            first.conv.weight[channel] = 0.0
            second.conv.weight[:, channel] = 0.0
    before = answer(network)
    unfold(network)
    channels = Channels(network, size_hw=(96, 96), multiple=8)
    kept = [unit.channels for unit in channels.units]
    place = next(place for place, unit in enumerate(channels.units) if unit.name == "model.0")
    kept[place] = 8
    channels.prune(kept)
    fold(network)
    assert network.model[0].conv.out_channels == 8
    torch.testing.assert_close(answer(network.eval()), before, rtol=1e-4, atol=1e-5)


def test_attention_loses_as_many_values_from_each_head() -> None:
    from ultralytics.nn.modules import Attention

    from shipsight.training._channels import Channels
    from shipsight.training._unfolding import fold, unfold

    network = network_of("yolo11m")
    heads = [module.num_heads for module in network.modules() if isinstance(module, Attention)]
    unfold(network)
    channels = Channels(network, size_hw=(96, 96), multiple=16)
    kept = [unit.counts()[-1] for unit in channels.units]
    channels.prune(kept)
    fold(network)
    found = [module for module in network.modules() if isinstance(module, Attention)]
    assert [one.num_heads for one in found] == heads
    for one in found:
        assert one.head_dim * one.num_heads == one.proj.conv.out_channels == one.pe.conv.groups
        assert one.qkv.conv.out_channels == one.num_heads * (2 * one.key_dim + one.head_dim)
    answer(network.eval())


def test_a_network_that_is_fused_is_refused() -> None:
    from shipsight.errors import UnsupportedError
    from shipsight.training._unfolding import unfold

    network = network_of("yolo11n").fuse(verbose=False)
    with pytest.raises(UnsupportedError, match="fused"):
        unfold(network)
