# SPDX-License-Identifier: Apache-2.0
"""Measuring: data sets, accuracy with intervals, speed, memory and size. Stable."""

from shipsight.build.measure.accuracy import Accuracy, ClassAccuracy, ImageScore, evaluate
from shipsight.build.measure.dataset import Dataset, DatasetWarning, Sample, label_file, load_dataset
from shipsight.build.measure.inference import (
    PreparedImages,
    evaluation_settings,
    iterate_predictions,
    predict_samples,
)
from shipsight.build.measure.intervals import Interval, Outcome, compare, outcome, pooled_interval
from shipsight.build.measure.labels import Labels
from shipsight.build.measure.speed import (
    ColdStart,
    Speed,
    SpeedSubject,
    measure_cold_start,
    measure_size_mb,
    measure_speed,
)
from shipsight.build.measure.splits import CALIBRATION_COUNT, Splits, choose_calibration, split_dataset
from shipsight.build.measure.timing import (
    Alternation,
    Percentiles,
    WarmUp,
    alternate,
    measure_throughput,
    warm_up,
)

__all__ = [
    "CALIBRATION_COUNT",
    "Accuracy",
    "Alternation",
    "ClassAccuracy",
    "ColdStart",
    "Dataset",
    "DatasetWarning",
    "ImageScore",
    "Interval",
    "Labels",
    "Outcome",
    "Percentiles",
    "PreparedImages",
    "Sample",
    "Speed",
    "SpeedSubject",
    "Splits",
    "WarmUp",
    "alternate",
    "choose_calibration",
    "compare",
    "evaluate",
    "evaluation_settings",
    "iterate_predictions",
    "label_file",
    "load_dataset",
    "measure_cold_start",
    "measure_size_mb",
    "measure_speed",
    "measure_throughput",
    "outcome",
    "pooled_interval",
    "predict_samples",
    "split_dataset",
    "warm_up",
]
