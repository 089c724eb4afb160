# SPDX-License-Identifier: Apache-2.0
"""Proof: what a model did where it was built, and whether it does the same here.

Golden sets (`golden`, `scenes`), a variant against its own recording (`replay`), against the source model (`parity`,
`layers`), statistics of the training images (`statistics`), the machine (`environment`). Leaves to others: labelled
accuracy and speed (`build.measure`). Importing this loads neither a runtime nor OpenCV. Stable.
"""

from shipsight.proof.answers import Answer, ask
from shipsight.proof.calibration import Calibration, calibrate, calibration_of
from shipsight.proof.embedding import Embed, open_embedding
from shipsight.proof.environment import cpu_class, describe_environment
from shipsight.proof.golden import (
    GoldenFiles,
    GoldenInput,
    GoldenSet,
    VariantRecording,
    choose_golden,
    golden_files,
    synthetic_half,
)
from shipsight.proof.layers import compare_layers
from shipsight.proof.matching import MatchCriteria, MatchReport
from shipsight.proof.parity import GATES, ParityGate, ParityReport, compare_answers
from shipsight.proof.replay import Preparation, ReplayReport, check_preparation, record, record_variant, replay
from shipsight.proof.scenes import make_scene
from shipsight.proof.statistics import StatisticsCollector, TrainingImage, collect_statistics
from shipsight.proof.subject import Subject

__all__ = [
    "GATES",
    "Answer",
    "Calibration",
    "Embed",
    "GoldenFiles",
    "GoldenInput",
    "GoldenSet",
    "MatchCriteria",
    "MatchReport",
    "ParityGate",
    "ParityReport",
    "Preparation",
    "ReplayReport",
    "StatisticsCollector",
    "Subject",
    "TrainingImage",
    "VariantRecording",
    "ask",
    "calibrate",
    "calibration_of",
    "check_preparation",
    "choose_golden",
    "collect_statistics",
    "compare_answers",
    "compare_layers",
    "cpu_class",
    "describe_environment",
    "golden_files",
    "make_scene",
    "open_embedding",
    "record",
    "record_variant",
    "replay",
    "synthetic_half",
]
