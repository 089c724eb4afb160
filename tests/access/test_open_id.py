# SPDX-License-Identifier: Apache-2.0
"""Single sign-on against a real provider of OpenID Connect. OWASP ASVS 5.0, chapters 6, 9 and 10."""

from __future__ import annotations

import threading
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from sqlalchemy import select, text, update
from tests.access.openid_provider import ORIGIN, REDIRECT_URI, SECRET, Browser, RunningProvider

from shipsight.access.directory import Directory
from shipsight.access.events import EventKind, Outcome
from shipsight.access.factors import Factors
from shipsight.access.grants import put_grants_in
from shipsight.access.id_tokens import TokenError, verify_id_token
from shipsight.access.open_id import OpenId, OpenIdPerson, _derive
from shipsight.access.passkeys import Passkeys
from shipsight.access.permissions import Action, Grant
from shipsight.access.principal import SERVER
from shipsight.access.provider import Provider
from shipsight.access.sessions import Sessions
from shipsight.access.settings import OpenIdSettings
from shipsight.access.sign_in import SignIn, StepKind
from shipsight.access.store import Database, SecretBox
from shipsight.access.store.tables import users
from shipsight.errors import AuthenticationError, ForbiddenError

ADA = {"name": "Ada Lovelace", "preferred_username": "ada", "groups": ["vision", "office"]}


@dataclass
class WallClock:
    """The time, which can be moved: a provider in a process of its own tells times that are real."""

    ahead: timedelta = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def pass_s(self, seconds: float) -> None:
        self.ahead += timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def real_provider() -> Iterator[RunningProvider]:
    running = RunningProvider()
    yield running
    running.stop()


@pytest.fixture
def provider(real_provider: RunningProvider) -> RunningProvider:
    """The provider, which knows Ada and Grace."""
    real_provider.set_accounts(
        ada=ADA, grace={"name": "Grace Hopper", "preferred_username": "grace", "groups": ["office"]}
    )
    return real_provider


@pytest.fixture
def world(database: Database, events: Any, provider: RunningProvider, tmp_path: Path) -> Any:
    """A server that lets the provider's people in; the group `vision` deploys."""
    clock = WallClock()
    directory = Directory(database, events, clock)
    sessions = Sessions(database, directory, events, clock, idle_s=1800, absolute_s=3600, fresh_s=300)
    factors = Factors(database, SecretBox([bytes(32)]), events, clock)
    passkeys = Passkeys(database, events, clock, origin=ORIGIN)
    secret = tmp_path / "secret"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)

    def open_id(client_id: str = "basic", **more: Any) -> OpenId:
        settings = OpenIdSettings(
            provider.issuer,
            client_id,
            secret_file=secret if client_id in ("basic", "pss") else None,
            **more,
        )
        return OpenId(settings, database, directory, events, clock, origin=ORIGIN)

    grant(database, "vision", "deployer")
    return SimpleNamespace(
        database=database,
        events=events,
        clock=clock,
        provider=provider,
        directory=directory,
        sessions=sessions,
        sign_in=SignIn(database, directory, factors, passkeys, sessions, events, clock),
        open_id=open_id,
    )


def grant(database: Database, group: str, *roles: str) -> None:
    with database.write() as connection:
        put_grants_in(connection, "group", group, [Grant(one) for one in roles])


def come(world: Any, browser: Browser | None = None, *, open_id: OpenId | None = None, **lies: Any) -> OpenIdPerson:
    """Signs in with the provider; what is given replaces what the browser brings back."""
    used = open_id or world.open_id()
    url, token = used.begin()
    back = {**(browser or Browser()).go(url), **lies}
    back = {name: value for name, value in back.items() if value is not ...}
    given = {name: back.get(name) for name in ("state", "code", "iss", "error")}
    return used.finish(back.get("token", token), **given)


def session_of(world: Any, person: OpenIdPerson) -> Any:
    return world.sign_in.begin_federated(
        person.user.id, factors=person.factors, groups=person.groups, proved_at=person.proved_at
    )


def refused(world: Any, why: str) -> None:
    last = [one for one in world.events.kept if one.kind is EventKind.SIGN_IN][-1]
    assert (last.outcome, last.factor, last.why) == (Outcome.REFUSED, "oidc", why)


# Signing in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("client_id", ["basic", "pss", "public", "edwards"], ids=["RS256", "PS256", "ES256", "EdDSA"])
def test_person_of_the_provider_signs_in_with_the_rights_of_their_group(world: Any, client_id: str) -> None:
    """ASVS 10.2.1."""
    person = come(world, open_id=world.open_id(client_id))
    assert (person.user.name, person.user.display_name) == ("ada@127.0.0.1", "Ada Lovelace")
    assert person.user.openid
    assert not person.user.has_password
    assert person.groups == ("office", "vision")
    rights = world.directory.rights_of_user(person.user.id, person.groups)
    assert rights.allows(Action.ROLLOUT_PROMOTE, "yolo11n")
    assert world.directory.rights_of_user(person.user.id).grants == ()


def test_browser_is_sent_with_pkce_state_and_nonce_and_no_secret(world: Any) -> None:
    """ASVS 10.4.6: S256."""
    used = world.open_id(required_acr=("two",))
    first, second = used.begin(), used.begin()
    asked = dict(parse_qsl(urlsplit(first[0]).query, strict_parsing=True))
    assert asked["response_type"] == "code"
    assert asked["redirect_uri"] == REDIRECT_URI
    assert asked["scope"] == "openid profile"
    assert asked["code_challenge_method"] == "S256"
    assert (asked["acr_values"], asked["max_age"]) == ("two", "300")
    for name in ("state", "nonce", "code_challenge"):
        assert len(asked[name]) == 43
        assert asked[name] not in second[0]
    assert first[1] not in first[0]
    assert SECRET not in first[0]
    # Not the token's own digest either, which the store looks it up by.
    assert urlsafe_b64encode(sha256(first[1].encode()).digest()).decode().rstrip("=") not in first[0]


def test_person_is_the_same_user_when_they_come_again(world: Any) -> None:
    first = come(world)
    world.provider.set_accounts(ada={**ADA, "preferred_username": "countess", "name": "Somebody"})
    assert come(world).user.id == first.user.id
    added = [one for one in world.events.kept if one.kind is EventKind.USER_ADDED]
    assert [one.details["subject"] for one in added] == ["ada"]


def test_session_is_as_fresh_as_the_proof_that_the_provider_tells_of(world: Any) -> None:
    """ASVS 7.5.3: `auth_time`, which is the provider's clock; ours is 100 seconds ahead of it here."""
    world.clock.pass_s(100)
    person = come(world, Browser(code="123456"))
    step = session_of(world, person)
    principal, _ = world.sessions.find(step.session.token)
    assert 98 <= (world.clock() - principal.proved_at).total_seconds() <= 130
    assert (principal.fresh_until - principal.proved_at).total_seconds() == 300
    assert principal.is_fresh(world.clock())
    world.clock.pass_s(210)
    assert not world.sessions.find(step.session.token)[0].is_fresh(world.clock())


def test_browser_is_known_again_by_what_it_had_when_it_went_to_the_provider(world: Any) -> None:
    used = world.open_id()
    ada = come(world)
    url, token = used.begin(user_id=ada.user.id, session="ab" * 8, device="a token")
    back = Browser().go(url)
    person = used.finish(token, **{name: back.get(name) for name in ("state", "code", "iss", "error")})
    assert (person.session, person.device) == ("ab" * 8, sha256(b"a token").digest())
    with world.database.read() as connection:
        assert connection.execute(text("select count(*) from challenges")).scalar() == 0


# Two factors ---------------------------------------------------------------------------------------------------------


def test_session_is_whole_when_the_provider_says_that_two_factors_were_proved(world: Any) -> None:
    """ASVS 6.3.3 and 6.8.4: by `amr`."""
    person = come(world, Browser(code="123456"))
    assert person.factors == ("oidc", "mfa")
    step = session_of(world, person)
    assert step.kind is StepKind.SESSION
    principal, _ = world.sessions.find(step.session.token)
    assert not principal.must_enrol
    assert principal.may(Action.ROLLOUT_PROMOTE, "yolo11n")


def test_second_factor_of_ours_is_asked_for_when_the_provider_proved_one(world: Any) -> None:
    """ASVS 6.3.3 and 6.3.4."""
    person = come(world)
    assert person.factors == ("oidc",)
    step = session_of(world, person)
    assert step.kind is StepKind.ENROL
    principal, _ = world.sessions.find(step.session.token)
    assert principal.must_enrol
    assert not principal.may(Action.MODELS_READ, "yolo11n")


def test_named_acr_is_asked_for_and_counts_alone(world: Any) -> None:
    """ASVS 6.8.4: by `acr`."""
    used = world.open_id(required_acr=("two", "three"))
    assert "acr_values=two+three" in used.begin()[0]
    assert come(world, Browser(code="123456"), open_id=used).factors == ("oidc", "mfa")
    assert come(world, open_id=used).factors == ("oidc",)
    # `amr` says mfa, but the operator named something else.
    other = world.open_id(required_acr=("three",))
    assert come(world, Browser(code="123456"), open_id=other).factors == ("oidc",)


def test_provider_asks_again_when_its_proof_is_older_than_is_allowed(world: Any) -> None:
    """ASVS 7.5.3: a sign-in is a fresh proof."""
    browser = Browser()
    come(world, browser)
    come(world, browser)
    assert browser.forms.count("login") == 1
    come(world, browser, open_id=world.open_id(max_age_s=0))
    assert browser.forms.count("login") == 2


# Groups and users ----------------------------------------------------------------------------------------------------


def test_person_who_left_the_group_loses_its_rights_and_older_sessions(world: Any) -> None:
    """ASVS 8.3.2 and 7.4.2."""
    session = session_of(world, come(world, Browser(code="123456"))).session
    assert world.sessions.find(session.token) is not None
    revision = world.directory.revision()
    world.provider.set_accounts(ada={**ADA, "groups": ["office"]})
    with pytest.raises(ForbiddenError):
        come(world)
    refused(world, "openid-no-rights")
    assert world.sessions.find(session.token) is None
    assert world.directory.revision() > revision
    assert [one.why for one in world.events.kept if one.kind is EventKind.SESSION_ENDED] == ["groups-changed"]


def test_person_keeps_what_they_were_granted_themselves_when_they_left_the_group(world: Any) -> None:
    person = come(world)
    world.directory.set_grants(SERVER, "user", person.user.id, [Grant("viewer")])
    world.provider.set_accounts(ada={**ADA, "groups": []})
    person = come(world)
    assert person.groups == ()
    rights = world.directory.rights_of_user(person.user.id, person.groups)
    assert rights.allows(Action.MODELS_READ, "yolo11n")
    assert not rights.allows(Action.ROLLOUT_PROMOTE, "yolo11n")


def test_older_session_stays_when_groups_are_added(world: Any) -> None:
    session = session_of(world, come(world)).session
    world.provider.set_accounts(ada={**ADA, "groups": [*ADA["groups"], "more"]})
    come(world)
    assert world.sessions.find(session.token) is not None


def test_nobody_is_added_when_no_group_was_granted_anything(world: Any) -> None:
    with pytest.raises(ForbiddenError):
        come(world, Browser("grace"))
    refused(world, "openid-no-rights")
    assert world.directory.users() == []


def test_local_user_of_the_same_name_is_never_linked(world: Any) -> None:
    """ASVS 6.8.1: an identity is issuer and subject."""
    for name in ("ada", "ada@127.0.0.1"):
        world.directory.add_user(SERVER, name, grants=[Grant("admin")])
    person = come(world)
    assert person.user.name.startswith("ada-")
    assert person.user.name.endswith("@127.0.0.1")
    assert not world.directory.rights_of_user(person.user.id, person.groups).allows(Action.ACCESS_CHANGE)
    assert {one.name: one.openid for one in world.directory.users()} == {
        "ada": False,
        "ada@127.0.0.1": False,
        person.user.name: True,
    }
    assert come(world).user.id == person.user.id


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("ada@corp.example", "ada@127.0.0.1"),
        ("ADA", "ada@127.0.0.1"),
        ("a/../da\n", "a-..-da@127.0.0.1"),
        ("", "user@127.0.0.1"),
        ("\u202eada\u0000", "ada@127.0.0.1"),
        ("0123456789abcdef" * 9, "0123456789abcdef0123@127.0.0.1"),
        (["ada"], "user@127.0.0.1"),
    ],
    ids=lambda one: repr(one)[:60],
)
def test_name_is_made_of_what_the_provider_says_and_fits(world: Any, told: Any, name: str) -> None:
    world.provider.set_accounts(ada={**ADA, "preferred_username": told, "name": "two\nlines"})
    person = come(world)
    assert (person.user.name, person.user.display_name) == (name, name)


def test_two_people_of_one_name_are_two_users(world: Any) -> None:
    world.provider.set_accounts(ada=ADA, grace=ADA)
    assert come(world).user.id != come(world, Browser("grace")).user.id


def test_disabled_user_stays_out(world: Any) -> None:
    """ASVS 7.4.2."""
    person = come(world)
    world.directory.set_disabled(SERVER, person.user.id, True)
    with pytest.raises(AuthenticationError):
        come(world)
    refused(world, "openid-disabled")


def test_issuer_is_part_of_who_somebody_is(world: Any) -> None:
    person = come(world)
    with world.database.write() as connection:
        connection.execute(update(users).values(oidc_issuer="https://other.example.com"))
    assert come(world).user.id != person.user.id


@pytest.mark.parametrize(
    "told", [None, 7, "vision", {"vision": True}, [["vision"], 7, "vision", "", "x" * 257, "a\nb"]]
)
def test_groups_are_texts_in_a_list(world: Any, told: Any) -> None:
    world.provider.set_accounts(ada={**ADA, "groups": told})
    if told == "vision" or isinstance(told, list):
        assert come(world).groups == ("vision",)
    else:
        with pytest.raises(ForbiddenError):
            come(world)


def test_of_very_many_groups_those_count_that_were_granted_something(world: Any) -> None:
    world.provider.set_accounts(ada={**ADA, "groups": ["vision", *(f"group-{number}" for number in range(500))]})
    assert come(world).groups == ("vision",)


# What a browser may bring back ---------------------------------------------------------------------------------------


def test_denial_is_a_refusal_and_adds_nobody(world: Any) -> None:
    with pytest.raises(AuthenticationError):
        come(world, Browser(says_no=True))
    refused(world, "openid-denied")
    assert world.directory.users() == []


@pytest.mark.parametrize("state", ["other", "", "ä", "\ud800", None, 7])
def test_response_with_another_state_is_refused(world: Any, state: Any) -> None:
    """ASVS 10.2.1: CSRF."""
    with pytest.raises(AuthenticationError):
        come(world, state=state)
    refused(world, "openid-state")


@pytest.mark.parametrize("iss", ["https://evil.test", "", ...], ids=["other", "empty", "missing"])
def test_response_of_another_issuer_is_refused(world: Any, iss: Any) -> None:
    """ASVS 10.2.2: mix-up, RFC 9207; the provider says that it names itself."""
    with pytest.raises(AuthenticationError):
        come(world, iss=iss)
    refused(world, "openid-issuer")


@pytest.mark.parametrize("code", ["", "junk", "x" * 5000, None, 7])
def test_response_with_a_code_that_is_none_is_refused(world: Any, code: Any) -> None:
    with pytest.raises(AuthenticationError):
        come(world, code=code)
    refused(world, "openid-code")


def test_code_of_another_browser_is_refused(world: Any) -> None:
    """ASVS 10.2.1: a code that was injected does not fit PKCE's verifier."""
    used = world.open_id()
    stolen = Browser().go(used.begin()[0])["code"]
    with pytest.raises(AuthenticationError):
        come(world, Browser("grace"), open_id=used, code=stolen)
    refused(world, "openid-code")


def test_response_to_a_sign_in_that_another_browser_began_is_refused(world: Any) -> None:
    """ASVS 10.2.1: login CSRF."""
    used = world.open_id()
    attackers = Browser("grace").go(used.begin()[0])
    with pytest.raises(AuthenticationError):
        used.finish(used.begin()[1], **attackers)
    refused(world, "openid-state")


def test_response_is_taken_once(world: Any) -> None:
    """ASVS 10.4.2 on our side."""
    used = world.open_id()
    url, token = used.begin()
    back = Browser().go(url)
    used.finish(token, **back)
    with pytest.raises(AuthenticationError):
        used.finish(token, **back)
    refused(world, "openid-challenge")


def test_response_that_is_brought_in_a_race_is_taken_once(world: Any) -> None:
    used = world.open_id()
    url, token = used.begin()
    back = Browser().go(url)
    done: list[object] = []
    barrier = threading.Barrier(6)

    def bring() -> None:
        barrier.wait()
        try:
            done.append(used.finish(token, **back).user.name)
        except AuthenticationError as error:
            done.append(type(error))

    threads = [threading.Thread(target=bring) for _ in range(6)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(timeout=60)
    assert done.count("ada@127.0.0.1") == 1
    assert done.count(AuthenticationError) == 5


def test_response_that_comes_after_ten_minutes_is_refused(world: Any) -> None:
    used = world.open_id()
    url, token = used.begin()
    back = Browser().go(url)
    world.clock.pass_s(600)
    with pytest.raises(AuthenticationError):
        used.finish(token, **back)
    refused(world, "openid-challenge")


def test_challenge_of_a_passkey_is_none_of_a_sign_on(world: Any) -> None:
    _, token = Passkeys(world.database, world.events, world.clock, origin=ORIGIN).begin_authentication(None)
    with pytest.raises(AuthenticationError):
        come(world, token=token)
    refused(world, "openid-challenge")


@pytest.mark.parametrize(("seconds", "why"), [(3600, "openid-token-expired"), (-3600, "openid-token-early")])
def test_token_whose_time_is_not_now_is_refused(world: Any, seconds: float, why: str) -> None:
    """ASVS 9.2.1."""
    world.clock.pass_s(seconds)
    with pytest.raises(AuthenticationError):
        come(world)
    refused(world, why)


# Keys ----------------------------------------------------------------------------------------------------------------


def test_keys_that_the_provider_rotated_are_used_at_once(world: Any) -> None:
    used = world.open_id()
    come(world, open_id=used)
    world.provider.rotate_keys()
    assert come(world, open_id=used).user.name == "ada@127.0.0.1"


def test_token_of_a_key_that_was_withdrawn_is_refused(world: Any) -> None:
    settings = OpenIdSettings(world.provider.issuer, "public")
    asked = Provider(settings)
    used = world.open_id("public")
    url, token = used.begin()
    back = Browser().go(url)
    answer = asked.id_token(back["code"], verifier=_derive(token, "verifier"), redirect_uri=REDIRECT_URI)

    def check() -> Any:
        return verify_id_token(
            answer,
            keys=asked.keys(),
            algorithms=asked.metadata().algorithms,
            issuer=world.provider.issuer,
            client_id="public",
            nonce=_derive(token, "nonce"),
            now=datetime.now(UTC),
        )

    assert check()["sub"] == "ada"
    world.provider.rotate_keys()
    with pytest.raises(TokenError):
        check()


# Traces --------------------------------------------------------------------------------------------------------------


def test_nothing_secret_is_kept_or_told(world: Any) -> None:
    """ASVS 16.2.5."""
    used = world.open_id()
    url, token = used.begin()
    asked = dict(parse_qsl(urlsplit(url).query))
    with world.database.read() as connection:
        rows = connection.execute(text("SELECT * FROM challenges")).all()
    back = Browser().go(url)
    used.finish(token, **back)
    told = repr(rows) + repr(world.events.kept)
    for secret in (token, asked["state"], asked["nonce"], back["code"], SECRET):
        assert secret not in told


def test_nobody_is_added_when_the_event_cannot_be_kept(world: Any) -> None:
    """ASVS 16.5.3."""
    world.events.fails = True
    with pytest.raises(OSError, match="no space"):
        come(world)
    with world.database.read() as connection:
        assert connection.execute(select(users)).first() is None
