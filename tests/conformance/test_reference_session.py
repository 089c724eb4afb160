# SPDX-License-Identifier: Apache-2.0
"""The reference session, PyTorch in the sandboxed child, against the contract of every session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from engine_suite import SessionSuite

from shipsight.build.sources import Source, open_source
from shipsight.engines import EngineSession
from shipsight.errors import UsageError

pytestmark = pytest.mark.torch

SIZE_HW = (64, 96)


@pytest.fixture(scope="module")
def source(sample_dir: Path) -> Iterator[Source]:
    """The sample checkpoint; its child process serves every session of this file."""
    with open_source(sample_dir / "digits.pt") as opened:
        yield opened


class TestPyTorchReference(SessionSuite):
    @pytest.fixture
    def session(self, source: Source) -> Iterator[EngineSession]:
        with source.open_reference(SIZE_HW, threads=2) as session:
            yield session

    @pytest.fixture
    def tensor(self) -> np.ndarray:
        return np.random.default_rng(6).random((1, 3, *SIZE_HW), dtype=np.float32)

    def test_two_sessions_of_one_source_answer_for_their_own_size(self, source: Source) -> None:
        sizes = (SIZE_HW, (96, 64))
        with source.open_reference(sizes[0]) as one, source.open_reference(sizes[1]) as other:
            for session, size_hw in zip((one, other, one), (*sizes, sizes[0]), strict=True):
                assert session.input.shape == (1, 3, *size_hw)
                session.infer(np.zeros(session.input.shape, np.float32))

    def test_session_outlives_the_others_when_they_are_closed(
        self, source: Source, session: EngineSession, tensor: np.ndarray
    ) -> None:
        before = session.infer(tensor)
        source.open_reference(SIZE_HW).close()
        for name, array in session.infer(tensor).items():
            np.testing.assert_array_equal(array, before[name])

    def test_layer_times_are_refused_since_none_are_collected(self, session: EngineSession) -> None:
        with pytest.raises(UsageError, match="times of layers"):
            session.layer_times()

    @pytest.mark.parametrize("threads", [0, -1, 1025])
    def test_open_refuses_a_number_of_threads_out_of_range(self, source: Source, threads: int) -> None:
        with pytest.raises(UsageError, match="threads"):
            source.open_reference(SIZE_HW, threads=threads)
