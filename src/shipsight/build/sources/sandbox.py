# SPDX-License-Identifier: Apache-2.0
"""What a process that opens an untrusted model file may do: nothing but compute.

Applied by the child to itself before it reads the first byte of a file. Layers, outermost first:

    - user and network namespace (`unshare`): no interface but a dead loopback, no capabilities outside;
    - seccomp filter: no sockets, no new programs, no new processes, no tracing, no signals to others, no mounts,
      no io_uring (which could open sockets behind the filter);
    - no new privileges, not dumpable, no core files;
    - limits on memory, CPU time, file size, open files and (in the namespace) threads.

At least one of the first two must work, else `SandboxError`; `Sandbox.OFF` leaves those two out and keeps the rest.
Leaves to others: time limits by the wall clock (`_process`), what may be unpickled (`_pickle_walk`). Sources:
seccomp(2), user_namespaces(7), setrlimit(2), linux/filter.h. Stable: `Sandbox`, `Limits`; the rest private.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import resource
import struct
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from shipsight.errors import SandboxError

__all__ = ["DEFAULT_LIMITS", "Limits", "Sandbox", "arm_cpu_limit", "isolate", "limit_memory"]


class Sandbox(StrEnum):
    """Whether a model file may be opened without isolation."""

    REQUIRED = "required"
    OFF = "off"


@dataclass(frozen=True)
class Limits:
    """Limits of the child process.

    Attributes:
        memory_bytes: address space beyond what the interpreter and its libraries map themselves (default 4 GiB;
            torch with CUDA maps 3.3 GiB by itself without using them, so an absolute limit would say little).
        library_memory_bytes: address space while the libraries are imported, before anything untrusted is read.
        cpu_s: processor seconds one request may take, all threads together (default 300).
        load_s: wall-clock seconds to start, check and load (default 600: what ends a hostile file is `cpu_s`; this one
            only ends a process that sleeps, and must not end an honest one on a crowded machine).
        export_s: wall-clock seconds of one export (default 900).
        infer_s: wall-clock seconds of one inference (default 600).
        file_bytes: largest file the child may write (default 2 GiB).
        open_files: most open files (default 256).
        threads: most threads of the child, held where it has a namespace of its own (default 256).
    """

    memory_bytes: int = 4 << 30
    library_memory_bytes: int = 16 << 30
    cpu_s: int = 300
    load_s: float = 600.0
    export_s: float = 900.0
    infer_s: float = 600.0
    file_bytes: int = 2 << 30
    open_files: int = 256
    threads: int = 256


DEFAULT_LIMITS = Limits()
"""What holds unless the caller says otherwise."""

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_CLONE_THREAD = 0x00010000
_PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 4, 22, 38
_EPERM, _ENOSYS = 1, 38

# Machine -> (AUDIT_ARCH, clone, clone3, system calls answered with EPERM). Numbers: asm/unistd_64.h and
# asm-generic/unistd.h. Denied, in this order: socket, socketpair, connect, accept, bind, listen, sendto, sendmsg,
# execve, execveat, fork, vfork, ptrace, kill, tkill, process_vm_readv, process_vm_writev, mount, umount2, unshare,
# setns, bpf, keyctl, add_key, request_key, io_uring_setup, pidfd_open, pidfd_getfd, pidfd_send_signal, userfaultfd,
# perf_event_open, init_module, finit_module, chroot, pivot_root, rt_sigqueueinfo.
_MACHINES: dict[str, tuple[int, int, int, tuple[int, ...]]] = {
    "x86_64": (
        0xC000003E, 56, 435,
        (
            41, 53, 42, 43, 49, 50, 44, 46, 59, 322, 57, 58, 101, 62, 200, 310, 311, 165,
            166, 272, 308, 321, 250, 248, 249, 425, 434, 438, 424, 323, 298, 175, 313, 161, 155, 129,
        ),
    ),
    "aarch64": (
        0xC00000B7, 220, 435,
        (
            198, 199, 203, 202, 200, 201, 206, 211, 221, 281, 117, 129, 130, 270, 271, 40, 39,
            97, 268, 280, 219, 217, 218, 425, 434, 438, 424, 282, 241, 105, 273, 51, 41, 138,
        ),
    ),
}  # fmt: skip


def isolate(sandbox: Sandbox, limits: Limits) -> list[str]:
    """Isolates the calling process; it must have one thread.

    Returns:
        The layers that hold: of `user+network namespace` and `seccomp`; empty with `Sandbox.OFF`.

    Raises:
        SandboxError: isolation is required and neither layer works here.
    """
    layers: list[str] = []
    failures: list[str] = []
    if sandbox is Sandbox.REQUIRED:
        for name, enter in (("user+network namespace", _enter_namespace), ("seccomp", _filter_system_calls)):
            try:
                enter()
                layers.append(name)
            except OSError as error:
                failures.append(f"{name}: {error.strerror}")
        if not layers:
            raise SandboxError(
                "a model file is opened only in a process without network, and this machine allows none",
                got="; ".join(failures),
                hint="Allow unprivileged user namespaces or seccomp, or pass --unsandboxed if you trust the file",
            )
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        _prctl(_PR_SET_DUMPABLE, 0)
    _limit_resources(limits, own_namespace="user+network namespace" in layers)
    return layers


def limit_memory(limit_bytes: int) -> None:
    """Allows that much address space beyond what is mapped now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0]) if sys.platform == "linux" else 0
    soft = pages * resource.getpagesize() + limit_bytes
    _set_limit(resource.RLIMIT_AS, soft, keep_hard=True)


def arm_cpu_limit(seconds: int) -> None:
    """Allows that many processor seconds from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    _set_limit(resource.RLIMIT_CPU, int(used.ru_utime + used.ru_stime) + 1 + seconds, keep_hard=True)


def _limit_resources(limits: Limits, *, own_namespace: bool) -> None:
    _set_limit(resource.RLIMIT_CORE, 0)
    _set_limit(resource.RLIMIT_AS, limits.library_memory_bytes)
    _set_limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _set_limit(resource.RLIMIT_NOFILE, limits.open_files)
    arm_cpu_limit(limits.cpu_s)
    if own_namespace:  # elsewhere the limit would count all processes of the user
        _set_limit(resource.RLIMIT_NPROC, limits.threads)


def _set_limit(kind: int, value: int, *, keep_hard: bool = False) -> None:
    hard = resource.getrlimit(kind)[1]
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (value, hard if keep_hard else value))


def _libc() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError(_ENOSYS, "only Linux has it")
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int, pointer: object = 0) -> None:
    arguments = (ctypes.c_ulong(value), pointer if pointer else ctypes.c_ulong(0), ctypes.c_ulong(0), ctypes.c_ulong(0))
    if _libc().prctl(option, *arguments) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _enter_namespace() -> None:
    uid, gid = os.getuid(), os.getgid()
    if _libc().unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    # Only for looks (the process keeps its own user id); a kernel that refuses it leaves the overflow id, which is as safe.
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))


def _filter_system_calls() -> None:
    known = _MACHINES.get(platform.machine())
    if known is None or sys.maxsize < 2**32:
        raise OSError(_ENOSYS, f"no table of system calls for {platform.machine()}")
    code = _assemble(*known)
    program = _Program(len(code) // 8, code)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _prctl(_PR_SET_SECCOMP, 2, ctypes.byref(program))


def _assemble(arch: int, clone: int, clone3: int, denied: tuple[int, ...]) -> bytes:
    """Returns the classic BPF program: struct sock_filter {code, jump if true, jump if false, constant}."""
    load, equal, greater_equal, bit_set, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    deny, unknown, kill, allow = 0x00050000 | _EPERM, 0x00050000 | _ENOSYS, 0x80000000, 0x7FFF0000
    lines: list[tuple[int, int, int, int]] = [
        (load, 0, 0, 4),  # seccomp_data.arch
        (equal, 1, 0, arch),
        (answer, 0, 0, kill),
        (load, 0, 0, 0),  # seccomp_data.nr
        (greater_equal, 0, 1, 0x40000000),  # the x32 entry points of x86-64
        (answer, 0, 0, deny),
        (equal, 0, 1, clone3),  # its flags lie in memory; glibc falls back to clone
        (answer, 0, 0, unknown),
    ]
    for number in denied:
        lines += [(equal, 0, 1, number), (answer, 0, 0, deny)]
    lines += [
        (equal, 0, 3, clone),
        (load, 0, 0, 16),  # first argument, low half
        (bit_set, 1, 0, _CLONE_THREAD),  # threads may start, processes not
        (answer, 0, 0, deny),
        (answer, 0, 0, allow),
    ]
    return b"".join(struct.pack("<HBBI", *line) for line in lines)
