# SPDX-License-Identifier: Apache-2.0
"""Label lines of every task, and the ones that are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shipsight.build.measure.labels import LabelFormat, read_labels
from shipsight.errors import DatasetError
from shipsight.model import Task

DETECT = LabelFormat(Task.DETECT, 3)
SEGMENT = LabelFormat(Task.SEGMENT, 3)
OBB = LabelFormat(Task.OBB, 3)
POSE2 = LabelFormat(Task.POSE, 3, (2, 2))
POSE3 = LabelFormat(Task.POSE, 3, (2, 3))


def write(folder: Path, text: str) -> Path:
    file = folder / "a.txt"
    file.write_text(text, encoding="utf-8")
    return file


def test_labels_are_empty_when_the_file_is_missing(tmp_path: Path) -> None:
    assert len(read_labels(tmp_path / "none.txt", DETECT)) == 0


@pytest.mark.parametrize("layout", [DETECT, SEGMENT, OBB, POSE3], ids=lambda layout: layout.task.value)
def test_labels_are_empty_when_the_file_is_empty(tmp_path: Path, layout: LabelFormat) -> None:
    labels = read_labels(write(tmp_path, "\n \n"), layout)
    assert labels.class_ids.shape == (0,)
    assert labels.boxes_cxcywh.shape == (0, 4)


def test_detect_reads_boxes_and_polygons(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "2 0.5 0.5 0.2 0.4\n0 0.1 0.2 0.3 0.2 0.3 0.6\n"), DETECT)
    assert labels.class_ids.tolist() == [2, 0]
    np.testing.assert_allclose(labels.boxes_cxcywh, [[0.5, 0.5, 0.2, 0.4], [0.2, 0.4, 0.2, 0.4]])


def test_segment_reads_polygons_of_different_lengths(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "0 0.1 0.1 0.3 0.1 0.3 0.5\n1 0 0 1 0 1 1 0 1.005"), SEGMENT)
    assert labels.polygons_xy is not None
    assert [len(polygon) for polygon in labels.polygons_xy] == [3, 4]
    assert labels.polygons_xy[1].max() == 1.0
    np.testing.assert_allclose(labels.boxes_cxcywh[0], [0.2, 0.3, 0.2, 0.4])


def test_pose_reads_visibility_when_written_and_infers_it_when_not(tmp_path: Path) -> None:
    written = read_labels(write(tmp_path, "0 .5 .5 .2 .2 .1 .2 2 .3 .4 1"), POSE3)
    assert written.keypoints_xyv is not None
    np.testing.assert_allclose(written.keypoints_xyv[0], [[0.1, 0.2, 2], [0.3, 0.4, 1]])
    inferred = read_labels(write(tmp_path, "0 .5 .5 .2 .2 .1 .2 0 0"), POSE2)
    assert inferred.keypoints_xyv is not None
    np.testing.assert_allclose(inferred.keypoints_xyv[0], [[0.1, 0.2, 2], [0, 0, 0]])


def test_obb_reads_corners_that_lie_outside_the_image(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "1 -0.1 0 0.5 -0.2 0.6 0.3 0 0.5"), OBB)
    assert labels.corners_xy is not None
    np.testing.assert_allclose(labels.corners_xy[0, 1], [0.5, -0.2])


def test_repeated_lines_count_once(tmp_path: Path) -> None:
    labels = read_labels(write(tmp_path, "0 .5 .5 .2 .2\n0 .5 .5 .2 .2\n1 .5 .5 .2 .2\n"), DETECT)
    assert (len(labels), labels.repeated_lines) == (2, 1)


@pytest.mark.parametrize(
    ("layout", "line", "expected"),
    [
        pytest.param(DETECT, "0 .5 .5 .2", "expected 5 values", id="short"),
        pytest.param(DETECT, "0 .5 .5 .2 .2 .9", "expected 5 values", id="score-column"),
        pytest.param(DETECT, "3 .5 .5 .2 .2", "expected 0 to 2; got 3", id="class-too-high"),
        pytest.param(DETECT, "-1 .5 .5 .2 .2", "expected 0 to 2; got -1", id="class-negative"),
        pytest.param(DETECT, "0.5 .5 .5 .2 .2", "class id out of range", id="class-fraction"),
        pytest.param(DETECT, "0 320 240 40 40", "expected 0 to 1, relative to the image; got 320", id="pixels"),
        pytest.param(DETECT, "0 .5 .5 -0.005 .2", "negative width", id="negative-width"),
        pytest.param(DETECT, "0 nan .5 .2 .2", "not finite", id="nan"),
        pytest.param(DETECT, "person .5 .5 .2 .2", "not made of numbers", id="word"),
        pytest.param(SEGMENT, "0 .5 .5 .2 .2", "polygon of 3 or more points", id="box-for-segment"),
        pytest.param(SEGMENT, "0 .5 .5 .2 .2 .1 .1 .3", "got 8 values", id="odd-coordinate"),
        pytest.param(OBB, "0 .5 .5 .2 .2", "9 values: class and four corners", id="box-for-obb"),
        pytest.param(OBB, "0 .5 .5 .2 .2 .1 .1 5 5", "coordinate outside", id="corner-far-out"),
        pytest.param(POSE3, "0 .5 .5 .2 .2 .1 .1 2", "expected 11 values", id="keypoint-missing"),
    ],
)
def test_bad_line_is_refused_with_file_and_number(
    tmp_path: Path, layout: LabelFormat, line: str, expected: str
) -> None:
    good = {Task.DETECT: "0 .5 .5 .2 .2", Task.SEGMENT: "0 0 0 1 0 1 1", Task.OBB: "0 0 0 1 0 1 1 0 1"}
    first = good.get(layout.task, "0 .5 .5 .2 .2 .1 .1 2 .1 .1 2")
    file = write(tmp_path, f"{first}\n{line}\n")
    with pytest.raises(DatasetError) as caught:
        read_labels(file, layout)
    assert f"{file}:2: " in str(caught.value)
    assert expected in str(caught.value)


def test_binary_label_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_labels(file, DETECT)
