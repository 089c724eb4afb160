# SPDX-License-Identifier: Apache-2.0
"""The channels of a network: which go together, what they cost, and how they are taken out.

Dependencies are found by torch-pruning on a trace of the unfolded network; what has to stay as wide as something else (halves of a
block, attention and what it is added to) is joined on top of that. Channels are chosen by the size of all weights that go with
them. Runs in the child process, where torch is. Private.

Sources: Fang et al., DepGraph: Towards Any Structural Pruning, CVPR 2023; Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch_pruning
from numpy.typing import NDArray
from torch import Tensor, nn
from ultralytics.nn.modules import Classify, Detect

from shipsight.errors import InternalError, UnsupportedError
from shipsight.training._unfolding import Halves, Heads, unfolded
from shipsight.training.planning import Layer, Unit, normalized

__all__ = ["Channels"]

_KINDS = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
_TRACE_PX = 64


@dataclass(eq=False)
class _Part:
    """Channels that torch-pruning removes together.

    Attributes:
        root: the layer that makes them.
        importance: one value a channel.
        heads: of attention whose values they are; 1 for all others.
        readers: layers that read them, with how often.
        makers: layers that have them as output.
    """

    root: nn.Module
    importance: NDArray[np.float64]
    heads: int
    readers: dict[nn.Module, float]
    makers: list[nn.Module]


class Channels:
    """The channels of an unfolded network.

    Args:
        network: of Ultralytics, unfolded.
        size_hw: of its input, height and width in pixels: what multiply-adds are counted for.
        multiple: of which numbers of channels shall be one.

    Attributes:
        units: what can be pruned.
        layers: what that saves.

    Raises:
        UnsupportedError: the network has layers whose channels cannot be followed.
    """

    def __init__(self, network: Any, *, size_hw: tuple[int, int], multiple: int) -> None:  # noqa: ANN401 - ultralytics is untyped
        self._network = network
        self._names = {module: name for name, module in network.named_modules()}
        self._stays = _outputs(network)
        was_training, grads = network.training, [one.requires_grad for one in network.parameters()]
        network.train()
        network.requires_grad_(True)
        norms = {
            m: (m.running_mean.clone(), m.running_var.clone())
            for m in network.modules()
            if isinstance(m, nn.BatchNorm2d)
        }
        try:
            self._graph = torch_pruning.DependencyGraph()
            self._graph.build_dependency(
                _Traced(network, self._stays), example_inputs=torch.zeros(2, 3, _TRACE_PX, _TRACE_PX)
            )
            parts = self._find_parts()
        finally:
            network.train(was_training)
            for parameter, had in zip(network.parameters(), grads, strict=True):
                parameter.requires_grad_(had)
            for norm, (mean, variance) in norms.items():
                norm.running_mean.copy_(mean)
                norm.running_var.copy_(variance)
        self._parts = _tied(parts, network)
        self.units = tuple(self._unit(some, multiple) for some in self._parts)
        self.layers = self._count(size_hw)

    def removed(self, place: int, kept: int) -> list[tuple[nn.Module, list[int]]]:
        """Returns what goes where a unit keeps so many channels: the layers that make them, and which."""
        return [(maker, _weakest(part, kept)) for part in self._parts[place] for maker in part.makers]

    def prune(self, kept: Sequence[int]) -> None:
        """Takes channels out of the network, in place.

        Args:
            kept: how many stay, by unit.
        """
        for some, count in zip(self._parts, kept, strict=True):
            for part in some:
                indices = _weakest(part, count)
                if not indices:
                    continue
                pruner = self._graph.get_pruner_of_module(part.root)
                self._graph.get_pruning_group(part.root, pruner.prune_out_channels, indices).prune()
        for module in self._network.modules():
            if isinstance(module, Heads):
                module.aside.clear()

    def _find_parts(self) -> list[_Part]:
        weigh = torch_pruning.importance.GroupMagnitudeImportance(p=2)
        keys = [one.queries_keys.conv for one in unfolded(self._network) if isinstance(one, Heads)]
        found = []
        for group in self._graph.get_all_groups(root_module_types=list(_KINDS)):
            makers, readers = [], defaultdict[nn.Module, float](float)
            root, count = group[0].dep.target.module, len(group[0].idxs)
            for dependency, indices in group:
                module = dependency.target.module
                if not isinstance(module, _KINDS):
                    continue
                if self._graph.is_out_channel_pruning_fn(dependency.handler):
                    makers.append(module)
                    if _is_depthwise(module):
                        continue
                else:
                    readers[module] += len(indices) / count
            if any(module in self._stays for module in makers):
                continue
            if any(module in keys for module in makers):
                continue  # queries and keys stay as wide as they are: attention is narrower by its values
            importance = weigh(group)
            if importance is None:
                continue
            found.append(_Part(root, importance.detach().double().numpy(), self._heads(makers), dict(readers), makers))
        return found

    def _heads(self, makers: Sequence[nn.Module]) -> int:
        for one in unfolded(self._network):
            if isinstance(one, Heads) and one.values.conv in makers:
                return int(one.heads)
        return 1

    def _unit(self, parts: Sequence[_Part], multiple: int) -> Unit:
        count = len(parts[0].importance)
        heads = math.lcm(*(part.heads for part in parts))
        shares = np.mean([normalized(part.importance) for part in parts], 0)
        name = self._names[parts[0].root].removesuffix(".conv")
        for taken_apart, stock in (("kept", "cv1"), ("worked", "cv1"), ("values", "qkv")):
            name = ".".join(stock if part == taken_apart else part for part in name.split("."))
        return Unit(name, count, math.lcm(multiple, heads), tuple(shares.tolist()))

    def _count(self, size_hw: tuple[int, int]) -> tuple[Layer, ...]:
        """Returns the layers with the multiply-adds that one pair of channels costs, counted on a run at that size."""
        areas: dict[nn.Module, int] = {}

        def note(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            # A transposed convolution works on what it reads.
            on = given[0] if isinstance(module, nn.ConvTranspose2d) else made
            areas[module] = areas.get(module, 0) + (math.prod(on.shape[2:]) if on.dim() == 4 else 1)

        watched = [module for module in self._network.modules() if isinstance(module, _KINDS)]
        hooks = [module.register_forward_hook(note) for module in watched]
        was_training = self._network.training
        self._network.eval()
        try:
            with torch.no_grad():
                _Traced(self._network, self._stays)(torch.zeros(1, 3, *size_hw))
        finally:
            self._network.train(was_training)
            for hook in hooks:
                hook.remove()
        outputs = {maker: place for place, some in enumerate(self._parts) for part in some for maker in part.makers}
        found = []
        for module in watched:
            if module in areas:
                found.append(self._layer(module, areas[module], outputs))
        return tuple(found)

    def _layer(self, module: Any, area: int, outputs: dict[nn.Module, int]) -> Layer:  # noqa: ANN401 - of three kinds
        is_linear = isinstance(module, nn.Linear)
        reads, makes = (
            (module.in_features, module.out_features) if is_linear else (module.in_channels, module.out_channels)
        )
        scale = float(area) if is_linear else float(area * math.prod(module.kernel_size))
        inputs = tuple(
            (place, sum(part.readers.get(module, 0.0) for part in some))
            for place, some in enumerate(self._parts)
            if any(module in part.readers for part in some)
        )
        known = sum(self.units[place].channels * times for place, times in inputs)
        is_depthwise = _is_depthwise(module)
        if not is_linear and module.groups != 1 and not is_depthwise:
            raise UnsupportedError(
                "a convolution in groups cannot be pruned", where=self._names[module], got=module.groups
            )
        if known > reads + 1e-6:
            raise InternalError("a layer reads more than it has", where=self._names[module], expected=reads, got=known)
        place = outputs.get(module)
        return Layer(
            self._names[module], scale, inputs, round(reads - known), place, makes if place is None else 0, is_depthwise
        )


class _Traced(nn.Module):  # type: ignore[misc] # torch is untyped here
    """Gives the layers that a head ends with, as they are: what it makes of them mixes channels with places."""

    def __init__(self, network: nn.Module, ends: Sequence[nn.Module]) -> None:
        super().__init__()
        self.network, self._ends = network, list(ends)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Runs the network."""
        found: list[Tensor] = []
        hooks = [one.register_forward_hook(lambda module, given, made: found.append(made)) for one in self._ends]
        heads = [one for one in unfolded(self.network) if isinstance(one, Heads)]
        for one in heads:
            one.aside.clear()
        try:
            self.network(x)
        finally:
            for hook in hooks:
                hook.remove()
        return found + [made for one in heads for made in one.aside]


def _outputs(network: Any) -> list[nn.Module]:  # noqa: ANN401
    """Returns the layers whose outputs are the network's: these stay as wide as they are."""
    head = network.model[-1]
    if isinstance(head, Classify):
        return [head.linear]
    if not isinstance(head, Detect):
        raise UnsupportedError("a head of this kind cannot be pruned", got=type(head).__name__)
    named = ("cv2", "cv3", "cv4", "one2one_cv2", "one2one_cv3", "one2one_cv4")
    ends = [tower[-1] for name in named for tower in getattr(head, name, None) or ()]
    return [*ends, head.proto.cv3.conv] if hasattr(head, "proto") else ends


def _tied(parts: Sequence[_Part], network: nn.Module) -> list[list[_Part]]:
    """Joins parts that have to keep the same number of channels."""
    of = {maker: part for part in parts for maker in part.makers}
    groups = {id(part): [part] for part in parts}

    def tie(one: nn.Module, other: nn.Module) -> None:
        first, second = of.get(one), of.get(other)
        if first is None or second is None:
            # One of them stays as it is, so both do.
            for part in (first, second):
                if part is not None:
                    groups[id(part)].clear()
            return
        mine, theirs = groups[id(first)], groups[id(second)]
        if mine is not theirs:
            mine += theirs
            for part in theirs:
                groups[id(part)] = mine

    for one in unfolded(network):
        if isinstance(one, Halves):
            tie(one.kept.conv, one.worked.conv)
        else:
            tie(one.values.conv, one.proj.conv)
    return list({id(some): some for some in groups.values() if some}.values())


def _weakest(part: _Part, kept: int) -> list[int]:
    """Returns the channels that go where so many stay: of attention as many from each head."""
    by_head = part.importance.reshape(part.heads, -1)
    each = by_head.shape[1] - kept // part.heads
    order = np.argsort(by_head, axis=1, kind="stable")[:, :each]
    offsets = np.arange(part.heads)[:, None] * by_head.shape[1]
    return sorted((order + offsets).ravel().tolist())


def _is_depthwise(module: nn.Module) -> bool:
    return isinstance(module, nn.Conv2d) and module.groups == module.out_channels == module.in_channels > 1
