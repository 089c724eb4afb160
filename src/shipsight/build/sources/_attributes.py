# SPDX-License-Identifier: Apache-2.0
"""A loaded network, checked before its code runs: nothing but numbers, texts and tensors may hang on its modules.

A pickle cannot bring code past `_pickle_walk`, but it can set attributes: a `forward` that is another callable, a hook,
a text that the framework later evaluates or takes for a path. So callables and hooks are refused, and every attribute
that leads outside (paths, training arguments, the architecture's own description, which Ultralytics' parser would
evaluate) is dropped. Runs in the child only. Private.
"""

from __future__ import annotations

from typing import Any

from shipsight.errors import LimitError, UntrustedError

__all__ = ["check_modules", "plain"]

MAX_MODULES = 20_000
_MAX_DEPTH = 8
_MAX_ITEMS = 100_000
_HOOKS = (
    "_backward_pre_hooks",
    "_backward_hooks",
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)
_CONTAINERS = ("_parameters", "_buffers", "_modules")
_DROPPED = ("criterion", "pt_path", "yaml_file", "transforms", "args", "loss", "clip_model", "session")


def check_modules(model: Any, *, where: str) -> None:  # noqa: ANN401 - torch.nn.Module, which is not imported here
    """Checks every module of a network and drops what training left behind.

    Raises:
        UntrustedError: a module carries a hook, a callable or an object.
        LimitError: too many modules.
    """
    import torch

    for name in _DROPPED:
        model.__dict__.pop(name, None)
        model.__dict__["_modules"].pop(name, None)
    for count, (path, module) in enumerate(model.named_modules()):
        if count > MAX_MODULES:
            raise LimitError("too many modules", where=where, expected=f"<= {MAX_MODULES}")
        for key, value in vars(module).items():
            if key in _HOOKS:
                is_plain = value is None or len(value) == 0
            elif key in _CONTAINERS:
                is_plain = all(isinstance(item, (type(None), torch.Tensor, torch.nn.Module)) for item in value.values())
            else:
                shadows = key != "type" and callable(getattr(type(module), key, None))  # Ultralytics itself sets `type`
                is_plain = _is_plain(value, torch.Tensor, _MAX_DEPTH) and not shadows
            if not is_plain:
                raise UntrustedError(
                    "a module carries something that is neither number, text nor tensor; it was not run",
                    where=where,
                    got=f"{path or 'model'}.{key}: {type(value).__name__}",
                )


def plain(value: Any, *, depth: int = 4) -> Any:  # noqa: ANN401 - any value of an untrusted dictionary
    """Reduces a value to plain scalars and lists, paths to their last part; None where nothing plain is left."""
    if isinstance(value, (bool, int, type(None))):
        return value if not isinstance(value, int) or abs(value) < 2**53 else None
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, str):
        return _without_folder(value)
    if isinstance(value, (list, tuple)) and depth and len(value) <= 1000:
        return [plain(item, depth=depth - 1) for item in value]
    if hasattr(value, "parts") and hasattr(value, "name"):
        return str(value.name)
    if hasattr(value, "item") and getattr(value, "ndim", getattr(value, "dim", lambda: 1)) in (0,):
        return plain(value.item(), depth=0)
    return None


def _without_folder(text: str) -> str:
    """Keeps the last part of what may be a path or an address (folders and addresses are private)."""
    text = text[:500].replace("\\", "/")
    if "://" in text:
        text = text.split("?")[0].split("#")[0]
    return text.rstrip("/").rsplit("/", 1)[-1]


def _is_plain(value: object, tensor: type, depth: int) -> bool:
    if isinstance(value, (type(None), bool, int, float, complex, str, bytes, tensor)):
        return True
    if type(value).__module__ == "torch" and type(value).__name__ in ("device", "dtype", "Size"):
        return True
    if depth == 0:
        return False
    if isinstance(value, dict):
        return len(value) <= _MAX_ITEMS and all(
            _is_plain(item, tensor, depth - 1) for pair in value.items() for item in pair
        )
    if isinstance(value, (list, tuple, set, frozenset)):
        return len(value) <= _MAX_ITEMS and all(_is_plain(item, tensor, depth - 1) for item in value)
    return False
