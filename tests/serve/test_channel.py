# SPDX-License-Identifier: Apache-2.0
"""Messages between a server and its workers: what goes in comes out, and what cannot be a message is refused."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from shipsight.serve.isolation import Channel, ChannelClosedError


def sockets() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    ours, theirs = map(Channel, sockets())
    yield ours, theirs
    ours.close()
    theirs.close()


def shared_memory() -> int:
    """Bytes of shared memory that this process maps."""
    found = 0
    for line in Path("/proc/self/maps").read_text(encoding="ascii", errors="replace").splitlines():
        if "memfd:shipsight" in line:
            begin, end = (int(one, 16) for one in line.split()[0].split("-"))
            found += end - begin
    return found


arrays = st.dictionaries(
    st.text(max_size=20),
    st_numpy.arrays(
        st.sampled_from([np.dtype(one) for one in ("u1", "i8", "f2", "f4", "f8", "?")]),
        st_numpy.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9),
    ),
    max_size=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(sent=st.lists(arrays, min_size=1, max_size=4), message=st.dictionaries(st.text(max_size=9), st.integers()))
def test_what_is_sent_arrives(
    ends: tuple[Channel, Channel], sent: list[dict[str, np.ndarray]], message: dict[str, int]
) -> None:
    for one in sent:
        ends[0].send(message, one)
        told, got = ends[1].receive(20)
        assert told == message
        assert list(got) == list(one)
        for name, array in one.items():
            assert got[name].dtype == array.dtype
            assert got[name].shape == array.shape
            np.testing.assert_array_equal(got[name], array)


def test_memory_is_used_again_and_large_memory_is_given_back(ends: tuple[Channel, Channel]) -> None:
    handles = len(list(Path("/proc/self/fd").iterdir()))
    before = shared_memory()
    for size in (1000, 3_000_000, 10, 3_000_000):
        ends[0].send("", {"a": np.zeros(size, np.uint8)})
        ends[1].receive(20)
    assert shared_memory() - before < 2 * 3_100_000
    ends[0].send("", {"a": np.zeros(100 << 20, np.uint8)})
    ends[1].receive(20)
    assert shared_memory() - before >= 200 << 20
    ends[0].send("", {"a": np.zeros(5, np.uint8)})
    ends[1].receive(20)
    assert shared_memory() - before < 2 << 20
    assert len(list(Path("/proc/self/fd").iterdir())) == handles + 2, "Python holds one for each mapping"


def test_an_array_that_is_not_contiguous_arrives(ends: tuple[Channel, Channel]) -> None:
    array = np.arange(24).reshape(4, 6)[::2, ::-1].T
    ends[0].send(None, {"a": array})
    np.testing.assert_array_equal(ends[1].receive(20)[1]["a"], array)


def test_waiting_ends_when_the_other_end_closes_and_when_time_is_up(ends: tuple[Channel, Channel]) -> None:
    with pytest.raises(TimeoutError):
        ends[0].receive(0.01)
    ends[1].close()
    with pytest.raises(ChannelClosedError):
        ends[0].receive(20)
    with pytest.raises(ChannelClosedError):
        ends[0].send("anybody there?", {"a": np.zeros(5)})


def test_what_cannot_be_sent_is_refused_and_the_channel_goes_on(ends: tuple[Channel, Channel]) -> None:
    for message, given_arrays in (("x" * 100_000, {}), ("", {"a": np.array([object()])}), (float("nan"), {})):
        with pytest.raises(ValueError, match=r"."):
            ends[0].send(message, given_arrays)
    ends[0].send("still here", {"a": np.ones(3)})
    assert ends[1].receive(20)[0] == "still here"


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b"[1]",
        b"[1, 2]",
        b'["", [["a", "float32", [10], 0]]]',  # no memory at all
        b'["", [["a", "object", [1], 0]]]',
        b'["", [["a", "O", [1], 0]]]',
        b'["", [["a", "uint8", [-1], 0]]]',
        b'["", [["a", "uint8", [true], 0]]]',
        b'["", [["a", "uint8", [4], -8]]]',
        b'["", [["a", "uint8"]]]',
        b"\xff\xfe",
        b"[" * 50_000,
        json.dumps(["", [["a", "uint8", [0], 0]] * 100]).encode(),
    ],
    ids=lambda data: data[:40].decode(errors="replace"),
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    raw, theirs = sockets()
    with raw:
        channel = Channel(theirs)
        raw.send(data)
        with pytest.raises(ChannelClosedError):
            channel.receive(20)
        channel.close()


@pytest.mark.parametrize(("size", "offset"), [(65537, 0), (1, 65536), (10, 2**62)])
def test_an_array_beyond_its_memory_is_refused(ends: tuple[Channel, Channel], size: int, offset: int) -> None:
    raw, theirs = sockets()
    writer, reader = Channel(raw.dup()), Channel(theirs)
    writer.send("", {"a": np.zeros(10, np.uint8)})
    reader.receive(20)
    raw.send(json.dumps(["", [["a", "uint8", [size], offset]]]).encode())
    with pytest.raises(ChannelClosedError):
        reader.receive(20)
    for one in (raw, writer, reader):
        one.close()


def test_memory_that_its_owner_could_shrink_is_refused() -> None:
    raw, theirs = sockets()
    reader = Channel(theirs)
    handle = os.memfd_create("loose", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(handle, 4096)
    socket.send_fds(raw, [b'["", [["a", "uint8", [4096], 0]]]'], [handle])
    os.close(handle)
    with pytest.raises(ChannelClosedError, match="shrink"):
        reader.receive(20)
    raw.close()
    reader.close()
