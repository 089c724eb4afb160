# SPDX-License-Identifier: Apache-2.0
"""Attacks on passkeys, with a software authenticator that lies: A3 (WebAuthn). OWASP ASVS 5.0, chapter 6."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.access.authenticator import (
    EDDSA,
    ES256,
    RS1,
    RS256,
    VERIFIED,
    Credential,
    SoftAuthenticator,
    decode,
    encode,
    make_key,
)
from tests.access.ceremonies import LOOSE, ORIGIN, handle_of, make_world, refused, register, sign_in
from tests.access.identities import acting

from shipsight.access.store import Database
from shipsight.errors import AuthenticationError


@pytest.fixture
def world(database: Database, clock: Any, events: Any) -> Any:
    return make_world(database, clock, events)


@pytest.mark.parametrize(
    "origin",
    [
        "https://vision.example.com.evil.test",
        "https://evil.test",
        "http://vision.example.com",
        "https://vision.example.com:444",
        "https://sub.vision.example.com",
        "https://VISION.example.com",
        "null",
        "",
    ],
)
def test_a3_answer_from_another_origin_is_refused(world: Any, origin: str) -> None:
    register(world)
    world.device.origin = origin
    with pytest.raises(AuthenticationError):
        sign_in(world)
    refused(world, "passkey-refused", "origin")
    with pytest.raises(AuthenticationError):
        register(world)
    refused(world, "passkey-refused", "origin")


def test_a3_answer_in_a_frame_of_another_origin_is_refused(world: Any) -> None:
    register(world)
    with pytest.raises(AuthenticationError):
        sign_in(world, crossOrigin=True)
    refused(world, "passkey-refused", "frame")


@pytest.mark.parametrize("rp_id", ["example.com", "evil.test", "https://vision.example.com", "vision.example.com."])
def test_a3_answer_for_another_relying_party_is_refused(world: Any, rp_id: str) -> None:
    register(world)
    with pytest.raises(AuthenticationError):
        sign_in(world, rp_id=rp_id)
    refused(world, "passkey-refused", "RP ID")
    with pytest.raises(AuthenticationError):
        register(world, rp_id=rp_id)
    refused(world, "passkey-refused", "RP ID")


def test_a3_challenge_is_refused_when_it_is_used_again(world: Any) -> None:
    """ASVS 6.5.1."""
    register(world)
    options, challenge = world.passkeys.begin_authentication(None)
    answer = world.device.get(options)
    finish = world.passkeys.finish_authentication
    assert finish(challenge, answer, user_id=None, needs_verification=True) == world.ada.id
    with pytest.raises(AuthenticationError):
        finish(challenge, answer, user_id=None, needs_verification=True)
    refused(world, "challenge-refused")


def test_a3_answer_to_an_older_challenge_is_refused_with_a_new_one(world: Any) -> None:
    register(world)
    old, _ = world.passkeys.begin_authentication(None)
    _, challenge = world.passkeys.begin_authentication(None)
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_authentication(challenge, world.device.get(old), user_id=None, needs_verification=True)
    refused(world, "passkey-refused", "challenge")


def test_a3_challenge_is_gone_when_what_it_was_shown_for_failed(world: Any) -> None:
    register(world)
    options, challenge = world.passkeys.begin_authentication(None)
    finish = world.passkeys.finish_authentication
    with pytest.raises(AuthenticationError):
        finish(challenge, world.device.get(options, rp_id="evil.test"), user_id=None, needs_verification=True)
    with pytest.raises(AuthenticationError):
        finish(challenge, world.device.get(options), user_id=None, needs_verification=True)
    refused(world, "challenge-refused")


def test_a3_challenge_is_refused_when_it_is_too_old(world: Any) -> None:
    """ASVS 6.5.5: minutes, by the server's clock."""
    register(world)
    for seconds, passes in ((299, True), (300, False)):
        options, challenge = world.passkeys.begin_authentication(None)
        answer = world.device.get(options)
        world.clock.pass_s(seconds)
        if passes:
            world.passkeys.finish_authentication(challenge, answer, user_id=None, needs_verification=True)
            continue
        with pytest.raises(AuthenticationError):
            world.passkeys.finish_authentication(challenge, answer, user_id=None, needs_verification=True)
    refused(world, "challenge-refused")


def test_a3_challenge_of_another_kind_of_ceremony_is_refused(world: Any) -> None:
    register(world)
    options, challenge = world.passkeys.begin_registration(world.ada)
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_authentication(
            challenge,
            world.device.get(options, credential=world.device.credentials[0]),
            user_id=world.ada.id,
            needs_verification=False,
        )
    refused(world, "challenge-refused")
    options, challenge = world.passkeys.begin_authentication(world.ada.id)
    made = world.device.create({**world.passkeys.begin_registration(world.ada)[0], "challenge": options["challenge"]})
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_registration(acting(world, world.ada), world.ada.id, challenge, made, name="key")
    refused(world, "challenge-refused")


def test_a3_answer_to_the_other_ceremony_is_refused(world: Any) -> None:
    register(world)
    with pytest.raises(AuthenticationError):
        sign_in(world, kind="webauthn.create")
    refused(world, "passkey-refused", "type")
    with pytest.raises(AuthenticationError):
        register(world, kind="webauthn.get")
    refused(world, "passkey-refused", "type")


def test_a3_challenge_that_is_used_in_a_race_passes_once(world: Any) -> None:
    """ASVS 6.5.1."""
    world.device.counts = False
    register(world)
    options, challenge = world.passkeys.begin_authentication(None)
    answer = world.device.get(options)
    passed: list[str] = []
    failed: list[Exception] = []
    barrier = threading.Barrier(8)

    def use() -> None:
        barrier.wait()
        try:
            passed.append(
                world.passkeys.finish_authentication(challenge, answer, user_id=None, needs_verification=True)
            )
        except AuthenticationError as error:
            failed.append(error)

    threads = [threading.Thread(target=use) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=60)
    assert (len(passed), len(failed)) == (1, 7)


def test_a3_credential_of_another_user_is_refused_as_second_factor(world: Any) -> None:
    register(world)
    other = SoftAuthenticator(ORIGIN)
    register(world, world.grace, other)
    with pytest.raises(AuthenticationError):
        sign_in(world, world.ada, device=other, credential=other.credentials[0])
    refused(world, "passkey-of-another")


def test_a3_credential_id_of_another_user_is_refused_with_a_key_of_ones_own(world: Any) -> None:
    register(world)
    other = SoftAuthenticator(ORIGIN)
    register(world, world.grace, other)
    other.credentials[0].id = world.device.credentials[0].id
    other.credentials[0].user_handle = handle_of(world, world.ada)
    with pytest.raises(AuthenticationError):
        sign_in(world, device=other)
    refused(world, "passkey-refused", "signature")


def test_a3_user_handle_of_another_user_is_refused(world: Any) -> None:
    register(world)
    for handle in (handle_of(world, world.grace), b""):
        with pytest.raises(AuthenticationError):
            sign_in(world, user_handle=handle)
        refused(world, "passkey-of-another")
    with pytest.raises(AuthenticationError):
        sign_in(world, world.ada, user_handle=handle_of(world, world.grace))
    refused(world, "passkey-of-another")


def test_a3_challenge_of_another_user_is_refused(world: Any) -> None:
    register(world)
    options, challenge = world.passkeys.begin_authentication(world.grace.id)
    answer = world.device.get(options, credential=world.device.credentials[0])
    for user_id in (world.ada.id, None):
        with pytest.raises(AuthenticationError):
            world.passkeys.finish_authentication(challenge, answer, user_id=user_id, needs_verification=False)
    assert [one.why for one in world.events.kept[-2:]] == ["challenge-of-another", "challenge-refused"]
    options, challenge = world.passkeys.begin_registration(world.grace)
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_registration(
            acting(world, world.ada), world.ada.id, challenge, world.device.create(options), name="key"
        )
    refused(world, "challenge-of-another")


def test_a3_missing_user_verification_is_refused_when_the_passkey_stands_alone(world: Any) -> None:
    """ASVS 6.3.3: alone it is two factors by its PIN, finger or face alone."""
    register(world)
    world.device.verifies = False
    options, challenge = world.passkeys.begin_authentication(None)
    answer = world.device.get(options)
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_authentication(challenge, answer, user_id=None, needs_verification=False)
    refused(world, "passkey-refused", "verif")


def test_a3_missing_user_verification_is_refused_when_it_is_asked_for(world: Any) -> None:
    register(world)
    world.device.verifies = False
    options, challenge = world.passkeys.begin_authentication(world.ada.id)
    answer = world.device.get(options)
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_authentication(challenge, answer, user_id=world.ada.id, needs_verification=True)
    refused(world, "passkey-refused", "verif")


def test_a3_missing_user_verification_is_refused_at_registration(world: Any) -> None:
    """Each passkey can stand alone, and prove somebody again."""
    world.device.verifies = False
    with pytest.raises(AuthenticationError):
        register(world)
    refused(world, "passkey-refused", "verif")


def test_a3_missing_user_presence_is_refused(world: Any) -> None:
    register(world)
    with pytest.raises(AuthenticationError):
        sign_in(world, world.ada, flags=VERIFIED)
    refused(world, "passkey-refused", "present")
    with pytest.raises(AuthenticationError):
        register(world, flags=VERIFIED)
    refused(world, "passkey-refused", "presence")


@pytest.mark.parametrize("count", [0, 3, 4], ids=["gone", "older", "same"])
def test_a3_counter_that_goes_back_is_refused_and_told_as_a_clone(world: Any, count: int) -> None:
    made = register(world)
    for _ in range(5):
        sign_in(world)
    world.device.credentials[0].count = count
    world.device.counts = bool(count)
    with pytest.raises(AuthenticationError):
        sign_in(world)
    refused(world, "passkey-cloned")
    assert world.events.kept[-1].actor == "person:ada"
    assert world.events.kept[-1].details["passkey"] == made.id
    world.device.credentials[0].count, world.device.counts = 5, True
    assert sign_in(world) == world.ada.id


def test_a3_counter_is_not_believed_before_the_signature(world: Any) -> None:
    register(world)
    stranger = make_key(ES256)
    honest = world.device.credentials[0].key
    world.device.credentials[0].key, world.device.credentials[0].count = stranger, 1_000_000
    with pytest.raises(AuthenticationError):
        sign_in(world)
    world.device.credentials[0].key, world.device.credentials[0].count = honest, 0
    assert sign_in(world) == world.ada.id


@pytest.mark.parametrize(
    ("algorithm", "bits"),
    [(RS1, 2048), (RS256, 1024), (-37, 2048), (-65536, 2048)],
    ids=["RS1", "short", "PS256", "-65536"],
)
def test_a3_weaker_algorithm_than_offered_is_refused(world: Any, algorithm: int, bits: int) -> None:
    """ASVS 11.3 and A3: no downgrade."""
    world.device.algorithm = algorithm
    with pytest.raises(AuthenticationError):
        register(world, key=make_key(RS256, rsa_bits=bits))
    assert world.events.kept[-1].why in ("passkey-refused", "algorithm-refused")
    assert world.passkeys.count(world.ada.id) == 0


def test_a3_algorithm_that_does_not_belong_to_the_key_is_refused(world: Any) -> None:
    for key_of, named in ((ES256, EDDSA), (ES256, RS256), (RS256, ES256)):
        device = SoftAuthenticator(ORIGIN, algorithm=key_of)
        credential_key = make_key(key_of)
        cose = {**Credential(b"", "", b"", credential_key, key_of).cose(), 3: named}
        with pytest.raises(AuthenticationError):
            register(world, device=device, key=credential_key, cose=cose)
        refused(world, "algorithm-refused")


def test_a3_point_that_is_on_no_curve_is_refused(world: Any) -> None:
    with pytest.raises(AuthenticationError):
        register(world, cose={1: 2, 3: ES256, -1: 1, -2: b"\x01" * 32, -3: b"\x01" * 32})
    refused(world, "passkey-refused")


@pytest.mark.parametrize("form", ["packed", "fido-u2f", "tpm", "android-key", "apple", "android-safetynet", "own", ""])
def test_a3_attestation_that_names_a_certificate_is_refused_unread(world: Any, form: str) -> None:
    """The stated policy: `none`, or by the new key itself."""
    world.device.format = form
    with pytest.raises(AuthenticationError):
        register(world, statement={"x5c": [b"certificate"], "sig": b"", "alg": ES256})
    refused(world, "attestation-refused")


def test_a3_attestation_none_with_a_statement_is_refused(world: Any) -> None:
    with pytest.raises(AuthenticationError):
        register(world, statement={"sig": b"x"})
    refused(world, "passkey-refused")


def test_a3_packed_attestation_by_another_key_is_refused(world: Any) -> None:
    world.device.format = "packed"
    signature = Credential(b"", "", b"", make_key(ES256), ES256).sign(b"")
    with pytest.raises(AuthenticationError):
        register(world, statement={"alg": ES256, "sig": signature})
    refused(world, "passkey-refused")


def test_a3_credential_that_somebody_registered_before_is_refused(world: Any) -> None:
    register(world)
    with pytest.raises(AuthenticationError):
        register(world, world.grace, SoftAuthenticator(ORIGIN), credential_id=world.device.credentials[0].id)
    refused(world, "passkey-known")
    assert world.passkeys.count(world.grace.id) == 0


@given(data=st.data())
@LOOSE
def test_any_changed_byte_of_an_answer_is_refused(world: Any, data: st.DataObject) -> None:
    if not world.device.credentials:
        world.device.counts = False
        register(world)
    options, challenge = world.passkeys.begin_authentication(world.ada.id)
    answer = world.device.get(options)
    part = data.draw(st.sampled_from(["clientDataJSON", "authenticatorData", "signature", "userHandle"]))
    raw = bytearray(decode(answer["response"][part]))
    at = data.draw(st.integers(0, 9_999)) % len(raw)
    raw[at] ^= data.draw(st.integers(1, 255))
    answer["response"][part] = encode(bytes(raw))
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_authentication(challenge, answer, user_id=world.ada.id, needs_verification=False)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda one: st.lists(one, max_size=3),
    max_leaves=5,
)


@given(answer=st.dictionaries(st.sampled_from(["id", "rawId", "type", "response", "x"]), JSON), challenge=JSON)
@LOOSE
def test_garbage_is_refused_and_nothing_else_happens(world: Any, answer: dict[str, Any], challenge: Any) -> None:
    _, good = world.passkeys.begin_authentication(None)
    for token in (challenge, good):
        with pytest.raises(AuthenticationError):
            world.passkeys.finish_authentication(token, answer, user_id=None, needs_verification=True)
    _, good = world.passkeys.begin_registration(world.ada)
    with pytest.raises(AuthenticationError):
        world.passkeys.finish_registration(acting(world, world.ada), world.ada.id, good, answer, name="key")


def test_deeply_nested_attestation_is_refused(world: Any) -> None:
    options, challenge = world.passkeys.begin_registration(world.ada)
    answer = world.device.create(options)
    for raw in (b"\x81" * 20_000, b"\xbf" * 20_000, b"\x9b" + b"\xff" * 8):
        answer["response"]["attestationObject"] = encode(raw)
        with pytest.raises(AuthenticationError):
            world.passkeys.finish_registration(acting(world, world.ada), world.ada.id, challenge, answer, name="key")
        _, challenge = world.passkeys.begin_registration(world.ada)
