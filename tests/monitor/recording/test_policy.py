# SPDX-License-Identifier: Apache-2.0
"""Recording policies: read whole, refused by the name of the clause."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from shipsight.errors import UsageError
from shipsight.monitor.recording.policy import (
    ImageForm,
    Leaves,
    Mode,
    Policy,
    Redaction,
    Residency,
    Retention,
    SamplingRules,
    read_policy,
)

WHOLE = """
schema: 1
mode: samples
purposes: ["to find out why the gate misses trucks at dusk"]
samples:
  rate: 0.01
  every: 1000
  below_score: 0.4
  on_drift: true
  per_class_day: 50
  most_day: 500
  image: reencoded
retention:
  days: 14
  most_bytes: 1000000000
residency:
  region: eu-central
  within: ["/srv/eu"]
leaves: redacted-images
redaction:
  classes: [face, plate]
  score: 0.05
  margin: 0.3
  bundle: faces.bundle
subject_header: x-subject-id
"""
READ = Policy(
    mode=Mode.SAMPLES,
    purposes=("to find out why the gate misses trucks at dusk",),
    samples=SamplingRules(0.01, 1000, 0.4, True, 50, 500, ImageForm.REENCODED),
    retention=Retention(14, 1_000_000_000),
    residency=Residency("eu-central", ("/srv/eu",)),
    leaves=Leaves.REDACTED_IMAGES,
    redaction=Redaction(("face", "plate"), 0.05, 0.3, "faces.bundle"),
    subject_header="x-subject-id",
)


def write(folder: Path, text: str) -> Path:
    file = folder / "policy.yaml"
    file.write_text(text, encoding="utf-8")
    return file


def test_policy_file_is_read_whole(tmp_path: Path) -> None:
    assert read_policy(write(tmp_path, WHOLE)) == READ


def test_least_policy_keeps_statistics_and_lets_nothing_out(tmp_path: Path) -> None:
    policy = read_policy(write(tmp_path, "schema: 1\n"))
    assert policy == Policy()
    assert (policy.mode, policy.leaves, policy.retention.days) == (Mode.STATISTICS, Leaves.NOTHING, 30)


def test_policy_comes_back_from_what_it_tells_of_itself() -> None:
    assert Policy.from_dict(json.loads(json.dumps(READ.to_dict()))) == READ


@pytest.mark.parametrize(
    ("name", "policy"),
    [
        ("mode", replace(READ, mode=Mode.STATISTICS)),
        ("purposes", replace(READ, purposes=("another",))),
        *((name, replace(READ, samples=replace(READ.samples, **{name: value}))) for name, value in {
            "rate": 0.02, "every": 999, "below_score": 0.5, "on_drift": False, "per_class_day": 51, "most_day": 501,
            "image": ImageForm.NONE,
        }.items()),
        ("days", replace(READ, retention=replace(READ.retention, days=15))),
        ("most_bytes", replace(READ, retention=replace(READ.retention, most_bytes=1 << 21))),
        ("region", replace(READ, residency=replace(READ.residency, region="us"))),
        ("within", replace(READ, residency=replace(READ.residency, within=()))),
        ("leaves", replace(READ, leaves=Leaves.STATISTICS)),
        *((name, replace(READ, redaction=replace(READ.redaction, **{name: value}))) for name, value in {
            "classes": ("face",), "score": 0.1, "margin": 0.2, "bundle": None,
        }.items()),
        ("subject_header", replace(READ, subject_header=None)),
    ],
)  # fmt: skip
def test_digest_names_every_clause(name: str, policy: Policy) -> None:
    assert policy.digest != READ.digest, name


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("mode: samples", "schema"),
        ("schema: 2", "schema"),
        ("schema: 1\nmood: samples", "policy.yaml"),
        ("schema: 1\nmode: sample", "mode"),
        ("schema: 1\nmode: off", "policy.yaml line 2"),
        ("schema: 1\nmode: samples\nsamples: {rate: 1.0}", "purposes"),
        ('schema: 1\nmode: samples\npurposes: [" "]\nsamples: {rate: 1.0}', "purposes"),
        ("schema: 1\nmode: samples\npurposes: [tests]", "samples"),
        ("schema: 1\nsamples: {rate: 1.5}", "samples.rate"),
        ("schema: 1\nsamples: {rate: true}", "samples.rate"),
        ("schema: 1\nsamples: {every: 0}", "samples.every"),
        ("schema: 1\nsamples: {every: 1.5}", "samples.every"),
        ("schema: 1\nsamples: {below_score: -0.1}", "samples.below_score"),
        ("schema: 1\nsamples: {on_drift: 1}", "samples.on_drift"),
        ("schema: 1\nsamples: {per_class_day: 0}", "samples.per_class_day"),
        ("schema: 1\nsamples: {most_day: 0}", "samples.most_day"),
        ("schema: 1\nsamples: {image: raw}", "samples.image"),
        ("schema: 1\nsamples: {rates: 0.1}", "samples"),
        ("schema: 1\nsamples: 0.1", "samples"),
        ("schema: 1\nretention: {days: 0}", "retention.days"),
        ("schema: 1\nretention: {days: 3651}", "retention.days"),
        ("schema: 1\nretention: {most_bytes: 1}", "retention.most_bytes"),
        ('schema: 1\nresidency: {region: "a b"}', "residency.region"),
        ("schema: 1\nresidency: {within: [srv]}", "residency.within"),
        ("schema: 1\nresidency: {within: srv}", "residency.within"),
        ("schema: 1\nleaves: images", "leaves"),
        ("schema: 1\nleaves: redacted-images", "redaction.classes"),
        ("schema: 1\nredaction: {classes: [face]}\nsamples: {image: received}", "samples.image"),
        ("schema: 1\nredaction: {bundle: b}", "redaction.classes"),
        ("schema: 1\nredaction: {classes: [1]}", "redaction.classes"),
        ("schema: 1\nredaction: {classes: [face], score: 2}", "redaction.score"),
        ("schema: 1\nredaction: {classes: [face], margin: 3}", "redaction.margin"),
        ("schema: 1\nsubject_header: X-Subject", "subject_header"),
        ("schema: 1\nleaves: statistics\nleaves: nothing", "policy.yaml line 3"),
        ("schema: 1\nretention: &a {days: 1}", "policy.yaml"),
        ("[]", "policy.yaml"),
    ],
)
def test_policy_is_refused_by_the_name_of_its_clause(tmp_path: Path, text: str, where: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_policy(write(tmp_path, text))
    assert where in str(caught.value.where)


def test_policy_that_is_not_there_or_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a file that can be read"):
        read_policy(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="too large"):
        read_policy(write(tmp_path, "schema: 1\n" + "#" * 70_000))
