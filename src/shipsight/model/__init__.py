# SPDX-License-Identifier: Apache-2.0
"""The nouns: card, variant, bundle, predictions. No I/O beyond reading and writing a bundle. Stable."""

from shipsight.model.bundle import Bundle, open_bundle, write_bundle, zip_bundle
from shipsight.model.card import Card, Fit, Head, InputContract, Origin, OutputContract, Task, TrainingRecord
from shipsight.model.manifest import FileEntry, GoldenInfo, Manifest, parse_manifest
from shipsight.model.predictions import ImagePredictions, Predictions, decode_rle, encode_rle
from shipsight.model.variant import OutputForm, Precision, TensorLayout, Variant, format_size, parse_size

__all__ = [
    "Bundle",
    "Card",
    "FileEntry",
    "Fit",
    "GoldenInfo",
    "Head",
    "ImagePredictions",
    "InputContract",
    "Manifest",
    "Origin",
    "OutputContract",
    "OutputForm",
    "Precision",
    "Predictions",
    "Task",
    "TensorLayout",
    "TrainingRecord",
    "Variant",
    "decode_rle",
    "encode_rle",
    "format_size",
    "open_bundle",
    "parse_manifest",
    "parse_size",
    "write_bundle",
    "zip_bundle",
]
