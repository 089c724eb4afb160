# SPDX-License-Identifier: Apache-2.0
"""How many files a server may open: its connections are files, too. Stable."""

from __future__ import annotations

import resource

from shipsight.errors import UsageError

__all__ = ["allow_descriptors"]

_DESCRIPTORS_BESIDE = 256  # libraries, logs, engines


def allow_descriptors(connections: int) -> None:
    """Lets this process and its children open as many descriptors as its connections need.

    Raises:
        UsageError: it may not open as many.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + _DESCRIPTORS_BESIDE
    if resource.RLIM_INFINITY != hard < needed:
        raise UsageError(
            "more connections than this account may open files",
            where="--max-connections",
            expected=f"at most {hard - _DESCRIPTORS_BESIDE}",
            got=connections,
            hint="Raise the limit on open files (ulimit -n), or allow fewer connections.",
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))
