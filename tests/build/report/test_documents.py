# SPDX-License-Identifier: Apache-2.0
"""The model card and the bill of materials."""

from __future__ import annotations

import json
from dataclasses import replace

from shipsight.build.report import ReportData, render_model_card, render_sbom


def test_model_card_states_the_facts(full_data: ReportData) -> None:
    text = render_model_card(full_data)
    assert text.startswith("# yolo11n, version 1\n")
    assert "| openvino-int8-640-u8 \\(default\\) | 0.482 |" in text
    assert "onnxruntime-fp16-640-u8" not in text, "what is not kept is not in the bundle"
    assert "few-calibration-images" in text
    assert "96 calibration images" in text


def test_model_card_says_that_accuracy_was_not_measured(unmeasured_data: ReportData) -> None:
    assert "Accuracy was not measured" in render_model_card(unmeasured_data)


def test_model_card_shows_markup_as_letters(full_data: ReportData) -> None:
    card = {**full_data.card, "licence": "a|b <img src=x> [c](http://d)\nnew"}
    text = render_model_card(replace(full_data, card=card))
    assert "a\\|b \\<img src=x\\> \\[c\\]\\(http://d\\) new" in text


def test_sbom_lists_files_with_their_digests_and_the_runtime(full_data: ReportData) -> None:
    document = json.loads(render_sbom(full_data))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    parts = {part["name"]: part for part in document["components"]}
    model = parts["variants/openvino-int8-640-u8/model.bin"]
    assert model["type"] == "machine-learning-model"
    assert model["hashes"] == [{"alg": "SHA-256", "content": "0f" * 32}]
    assert parts["openvino"]["purl"] == "pkg:pypi/openvino@2026.4.1"
    assert document["metadata"]["component"]["licenses"] == [{"license": {"id": "AGPL-3.0-only"}}]
    references = [part["bom-ref"] for part in document["components"]]
    assert len(set(references)) == len(references)
    assert document["dependencies"][0]["dependsOn"] == references


def test_sbom_has_neither_time_nor_random_number(full_data: ReportData) -> None:
    text = render_sbom(full_data)
    assert text == render_sbom(replace(full_data))
    assert "serialNumber" not in text
    assert "timestamp" not in text


def test_sbom_guesses_no_licence(full_data: ReportData) -> None:
    for given, expected in (("unknown", []), ("Ask Bob", [{"license": {"name": "Ask Bob"}}])):
        document = json.loads(render_sbom(replace(full_data, card={**full_data.card, "licence": given})))
        assert document["metadata"]["component"]["licenses"] == expected
