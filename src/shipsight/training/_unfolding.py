# SPDX-License-Identifier: Apache-2.0
"""Blocks that cut one convolution's channels in parts, taken apart so that each part can lose channels, and put together again.

`C2f` and its kin, `C2PSA` and `PSA` halve the output of their first convolution; `Attention` cuts one convolution into queries,
keys and values, head by head. What follows such a cut is hidden from a trace of channels, so each part gets a convolution of its
own while the network is pruned. Unfolding changes no prediction, and folding gives back the stock classes of Ultralytics with other
numbers of channels: nothing else than these is ever saved. Runs in the child process, where torch is. Private.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import C2PSA, PSA, Attention, C2f, Conv

from shipsight.errors import UnsupportedError

__all__ = ["Halves", "Heads", "fold", "unfold", "unfolded"]

_PLACE = ("f", "i", "type", "np")
"""What Ultralytics keeps on each layer of a network: where it reads from, its number, its name, its parameters."""


class Heads(nn.Module):  # type: ignore[misc] # torch is untyped here
    """Attention whose values have a convolution apart from queries and keys.

    Its output is not that of attention: it has the same channels in the same places, which is all that a trace looks at.

    Attributes:
        stock: the block that it was made of; its queries and keys follow when it is folded.
        queries_keys: makes them, for all heads one after the other: of each its queries, then its keys.
        values: makes the values, for all heads one after the other.
        aside: what `queries_keys` gave, for the trace.
    """

    def __init__(self, stock: Attention) -> None:
        super().__init__()
        per_head, keys = stock.key_dim * 2 + stock.head_dim, stock.key_dim * 2
        rows = torch.arange(stock.num_heads * per_head).view(stock.num_heads, per_head)
        self.queries_keys = _rows_of(stock.qkv, rows[:, :keys].reshape(-1))
        self.values = _rows_of(stock.qkv, rows[:, keys:].reshape(-1))
        self.pe, self.proj = stock.pe, stock.proj
        self.heads, self.key_dim, self.scale = stock.num_heads, stock.key_dim, stock.scale
        self.aside: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        """Passes channels on as attention does."""
        self.aside.append(self.queries_keys(x))
        values = self.values(x)
        out: Tensor = self.proj(values + self.pe(values))
        return out

    def stock(self) -> Attention:
        """Returns attention with the channels that are left."""
        count = self.values.conv.out_channels
        stock = Attention(count, self.heads, attn_ratio=0.5)
        stock.key_dim, stock.scale, stock.head_dim = self.key_dim, self.scale, count // self.heads
        first = _per_head(self.queries_keys, self.heads)
        second = _per_head(self.values, self.heads)
        order = torch.cat((first, second + self.queries_keys.conv.out_channels), 1).reshape(-1)
        stock.qkv = _rows_of(_joined(self.queries_keys, self.values), order)
        stock.pe, stock.proj = self.pe, self.proj
        return stock


class Halves(nn.Module):  # type: ignore[misc]
    """A block whose first convolution is two: of what is passed on as it is, and of what goes through the inner blocks.

    Attributes:
        kept: makes the first half.
        worked: makes the second half.
        cv2: joins all.
        m: the inner blocks; None for `PSA`, which has `attn` and `ffn` instead.
    """

    def __init__(self, stock: C2f | C2PSA | PSA) -> None:
        super().__init__()
        count = stock.cv1.conv.out_channels
        rows = torch.arange(count)
        self.kept, self.worked = _rows_of(stock.cv1, rows[: count // 2]), _rows_of(stock.cv1, rows[count // 2 :])
        self.cv2 = stock.cv2
        self.is_chain = isinstance(stock, C2f)
        if isinstance(stock, PSA):
            self.attn, self.ffn = stock.attn, stock.ffn
        else:
            self.m = stock.m
        # The stock block gives its class and settings again; its convolutions are replaced when it is folded.
        self._shell = [stock]
        for name in _PLACE:
            if hasattr(stock, name):
                setattr(self, name, getattr(stock, name))

    def forward(self, x: Tensor) -> Tensor:
        """Does what the stock block does."""
        kept, worked = self.kept(x), self.worked(x)
        if self.is_chain:
            parts = [kept, worked]
            for inner in self.m:
                parts.append(inner(parts[-1]))
            return self.cv2(torch.cat(parts, 1))
        if hasattr(self, "m"):
            worked = self.m(worked)
        else:
            worked = worked + self.attn(worked)
            worked = worked + self.ffn(worked)
        return self.cv2(torch.cat((kept, worked), 1))

    def stock(self) -> nn.Module:
        """Returns the stock block with the channels that are left."""
        block = copy.copy(self._shell[0])
        block._modules = dict(block._modules)  # noqa: SLF001 - a copy that shares no table of parts
        block.cv1, block.cv2 = _joined(self.kept, self.worked), self.cv2
        block.c = self.kept.conv.out_channels
        if hasattr(self, "m"):
            block.m = self.m
        else:
            block.attn, block.ffn = self.attn, self.ffn
        return block


def unfold(network: nn.Module) -> None:
    """Takes blocks apart, in place.

    Raises:
        UnsupportedError: the network is fused, or cuts channels in a way that is not known here.
    """
    for name, module in network.named_modules():
        if isinstance(module, Conv) and not hasattr(module, "bn"):
            raise UnsupportedError("the network is fused", where=name, hint="Give the checkpoint that training wrote.")
    _replace(network, Attention, Heads)
    for kind in (C2f, C2PSA, PSA):
        _replace(network, kind, Halves)


def fold(network: nn.Module) -> None:
    """Puts together what `unfold` took apart, in place.

    Raises:
        UnsupportedError: two halves, or attention and what it is added to, differ in channels.
    """
    for name, module in network.named_modules():
        if isinstance(module, Halves):
            _require_same(name, module.kept.conv.out_channels, module.worked.conv.out_channels)
        elif isinstance(module, Heads):
            _require_same(name, module.values.conv.out_channels, module.proj.conv.out_channels)
            _require_same(name, module.values.conv.out_channels % module.heads, 0)
    for kind in (Heads, Halves):
        _replace(network, kind, lambda one: one.stock())


def unfolded(network: nn.Module) -> Iterator[Halves | Heads]:
    """Yields the parts that were taken apart."""
    for module in network.modules():
        if isinstance(module, Halves | Heads):
            yield module


def _require_same(name: str, one: int, other: int) -> None:
    if one != other:
        raise UnsupportedError("parts of a block differ in channels", where=name, expected=one, got=other)


def _replace(network: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]) -> None:
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, kind):
                setattr(parent, name, make(child))


def _per_head(conv: Conv, heads: int) -> Tensor:
    return torch.arange(conv.conv.out_channels).view(heads, -1)


def _rows_of(conv: Conv, rows: Tensor) -> Conv:
    """Returns a convolution with its normalization that makes some of the channels of another."""
    some = copy.deepcopy(conv)
    some.act = conv.act  # layers of Ultralytics share theirs
    some.conv.weight = nn.Parameter(conv.conv.weight.detach()[rows].clone())
    some.conv.out_channels = some.bn.num_features = len(rows)
    for name in ("weight", "bias"):
        setattr(some.bn, name, nn.Parameter(getattr(conv.bn, name).detach()[rows].clone()))
    for name in ("running_mean", "running_var"):
        setattr(some.bn, name, getattr(conv.bn, name)[rows].clone())
    return some


def _joined(first: Conv, second: Conv) -> Conv:
    """Returns a convolution that makes the channels of two, one after the other."""
    joined = copy.deepcopy(first)
    joined.act = first.act
    joined.conv.weight = nn.Parameter(torch.cat((first.conv.weight.detach(), second.conv.weight.detach())))
    joined.conv.out_channels = joined.bn.num_features = len(joined.conv.weight)
    for name in ("weight", "bias"):
        both = (getattr(one.bn, name).detach() for one in (first, second))
        setattr(joined.bn, name, nn.Parameter(torch.cat(tuple(both))))
    for name in ("running_mean", "running_var"):
        setattr(joined.bn, name, torch.cat((getattr(first.bn, name), getattr(second.bn, name))))
    return joined
