# SPDX-License-Identifier: Apache-2.0
"""Planted incidents: what attackers, careless people and failing machines leave in the log. Each in three strengths, 0 the faintest.

An incident adds entries, changes some, or keeps some from being written; what it touched is marked, so that findings can be judged.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

from audit_year.log_incidents import (
    clock_set_back,
    entries_taken_away,
    log_flooded,
    names_erased,
    nobody_reviews,
    server_cut_off,
    server_killed,
)
from audit_year.planner import NotHereError, Planner, people_of
from shipsight.access.events import EventKind


def guessing_fast(plan: Planner, strength: int) -> None:
    person = plan.person("user", "operator", "deployer", "scientist", "admin")
    plan.guess(
        person.told,
        plan.any_time(),
        plan.org.foreign(),
        (25, 120, 600)[strength],
        timedelta(hours=(2, 6, 12)[strength]),
    )


def guessing_slowly(plan: Planner, strength: int) -> None:
    person, at = plan.person("user", "operator", "deployer", "scientist", "admin"), plan.any_time()
    for _ in range((50, 90, 160)[strength]):
        plan.fail(person.told, at, plan.org.foreign())
        at += timedelta(minutes=plan.rng.uniform(50, 75))


def spraying(plan: Planner, strength: int) -> None:
    at, address = plan.any_time(), plan.org.foreign()
    for person in people_of(plan, 1.0, (12, 40, 150)[strength]):
        for _ in range((1, 2, 2)[strength]):
            at += timedelta(seconds=plan.rng.uniform(2, 200))
            plan.fail(person.told, at, address)


def spraying_from_all_over(plan: Planner, strength: int) -> None:
    at, people = plan.any_time(), people_of(plan, (0.5, 0.8, 1.0)[strength], (25, 60, 300)[strength])
    for person in people:
        for _ in range((2, 2, 3)[strength]):
            plan.fail(person.told, at + timedelta(hours=plan.rng.uniform(0, 8)), plan.org.foreign())


def password_guessed(plan: Planner, strength: int) -> None:
    person, at = plan.person("user", "operator", "scientist", "deployer"), plan.any_time()
    address = (plan.org.home_address(person.site), plan.org.foreign(), plan.org.foreign())[strength]
    end = plan.guess(person.told, at, address, (7, 15, 50)[strength], timedelta(hours=(1, 2, 5)[strength]))
    plan.come(person, end + timedelta(minutes=1), address, "password")
    for number in range((1, 4, 20)[strength]):
        plan.tell(
            end + timedelta(minutes=2 + number),
            EventKind.DATA_READ,
            person.told,
            subject="model:model-1",
            address=address,
            path=f"proof/golden/{number}.jpg",
        )


def session_stolen(plan: Planner, strength: int) -> None:
    person = plan.person("operator", "deployer")
    at, address = plan.at_work(person), plan.org.foreign()
    plan.come(person, at - timedelta(minutes=20), plan.office(person))
    for number in range((1, 3, 12)[strength]):
        plan.tell(
            at + timedelta(minutes=number),
            EventKind.ALLOWED,
            person.told,
            subject="model:model-1",
            address=address,
            action="models.load",
            route="POST /v1/models/{name}/load",
        )


def reset_taken_over(plan: Planner, strength: int) -> None:
    person = plan.person("scientist", "deployer", "admin")
    at, address = plan.at_work(person), plan.org.foreign()
    plan.reset(person, at)
    at += timedelta(hours=(80, 20, 0.5)[strength])
    plan.come(person, at, address, "password")
    plan.tell(
        at + timedelta(minutes=2),
        EventKind.FACTOR_ADDED,
        person.told,
        subject=person.told,
        factor="totp",
        address=address,
    )
    act = {"scientist": EventKind.EXPORTED, "deployer": EventKind.ROLLOUT_CHANGED, "admin": EventKind.GRANTS_CHANGED}[
        person.role
    ]
    for number in range((1, 2, 8)[strength]):
        details: dict[str, object] = {}
        if act is EventKind.ROLLOUT_CHANGED:
            details = {"action": "rollback", "current": "1"}
        if act is EventKind.GRANTS_CHANGED:
            details = {"before": [], "after": ["deployer"]}
        plan.tell(
            at + timedelta(minutes=5 + number),
            act,
            person.told,
            subject="user:gu001" if act is EventKind.GRANTS_CHANGED else "model:model-1",
            address=address,
            **details,
        )


def reset_then_rights(plan: Planner, strength: int) -> None:
    person = plan.person("user", "operator", "scientist")
    at = plan.at_work(person)
    admin = plan.reset(person, at)
    at += timedelta(hours=(96, 22, 0.4)[strength])
    given = (["deployer@model-1"], ["deployer"], ["admin"])[strength]
    plan.tell(
        at,
        EventKind.GRANTS_CHANGED,
        admin.told,
        subject=f"user:{person.name}",
        before=["viewer"],
        after=["viewer", *given],
        address=plan.office(admin),
    )


def account_made_for_oneself(plan: Planner, strength: int) -> None:
    admin = plan.person("admin", old=False)
    at, name = plan.at_work(admin), f"person:x{plan.rng.getrandbits(24):06x}"
    plan.tell(at, EventKind.USER_ADDED, admin.told, subject=name, grants=["scientist"], address=plan.office(admin))
    at += timedelta(hours=(40, 6, 0.3)[strength])
    plan.tell(at, EventKind.SIGN_IN, name, factor="password", address=plan.office(admin))
    for number in range((1, 3, 40)[strength]):
        plan.tell(
            at + timedelta(minutes=3, seconds=number),
            EventKind.EXPORTED,
            name,
            subject="model:model-1",
            address=plan.office(admin),
            path=f"labels/{number}",
        )


def friend_made_administrator(plan: Planner, strength: int) -> None:
    admin, friend = plan.person("admin", old=False), plan.person("user", "operator", "scientist")
    at = plan.at_work(admin)
    plan.tell(
        at,
        EventKind.GRANTS_CHANGED,
        admin.told,
        subject=f"user:{friend.name}",
        before=["viewer"],
        after=["admin"],
        address=plan.office(admin),
    )
    at += timedelta(hours=(90, 20, 1)[strength])
    plan.come(friend, at, plan.office(friend))
    for number in range((1, 2, 5)[strength]):
        plan.tell(
            at + timedelta(minutes=5 + number),
            EventKind.INVITED,
            friend.told,
            subject=plan.rng.choice(plan.org.people).told,
            address=plan.office(friend),
        )


def given_and_taken_back(plan: Planner, strength: int) -> None:
    admin, friend = plan.person("admin", old=False), plan.person("user", "operator")
    at, given = plan.at_work(admin), ["deployer", "exporter"]
    subject, where = f"user:{friend.name}", plan.office(admin)
    plan.tell(
        at,
        EventKind.GRANTS_CHANGED,
        admin.told,
        subject=subject,
        before=["viewer"],
        after=["viewer", *given],
        address=where,
    )
    span = timedelta(hours=(60, 8, 0.5)[strength])
    for number in range((1, 3, 10)[strength]):
        plan.tell(
            at + span / 2 + timedelta(seconds=number),
            EventKind.EXPORTED,
            friend.told,
            subject="model:model-1",
            address=plan.office(friend),
            path=f"weights/{number}",
        )
    plan.tell(
        at + span,
        EventKind.GRANTS_CHANGED,
        admin.told,
        subject=subject,
        before=["viewer", *given],
        after=["viewer"],
        address=where,
    )


def others_shut_out(plan: Planner, strength: int) -> None:
    admin = plan.person("admin", old=False)
    at, others = plan.at_work(admin), [one for one in plan.org.people if one.is_there(plan.day) and one is not admin]
    for number, other in enumerate(plan.rng.sample(others, min((8, 15, 40)[strength], len(others)))):
        plan.tell(
            at + timedelta(minutes=number * 2),
            EventKind.USER_CHANGED,
            admin.told,
            subject=other.told,
            is_disabled=True,
            address=plan.office(admin),
        )


def administration_at_night(plan: Planner, strength: int) -> None:
    admin = plan.person("admin")
    at = plan.at_night(admin, (24.5, None, None)[strength])
    plan.come(admin, at, admin.home)
    for number in range((1, 1, 6)[strength]):
        plan.tell(
            at + timedelta(minutes=4 + number),
            EventKind.GRANTS_CHANGED,
            admin.told,
            subject=f"user:{plan.rng.choice(plan.org.people).name}",
            before=[],
            after=["operator"],
            address=admin.home,
        )


def key_released_at_night(plan: Planner, strength: int) -> None:
    person = plan.person("deployer", "scientist", "admin")
    at = plan.at_night(person, (25.0, None, None)[strength])
    plan.come(person, at, person.home)
    for number in range((1, 2, 6)[strength]):
        plan.tell(
            at + timedelta(minutes=4 + number),
            EventKind.KEY_RELEASED,
            person.told,
            subject=f"model:model-{number + 1}",
            address=person.home,
        )


def dormant_key(plan: Planner, strength: int) -> None:
    found = [
        one
        for one in plan.org.keys
        if one.kind == "forgotten"
        and not one.taken
        and one.last_day
        and (plan.day - one.last_day).days > (95, 120, 120)[strength]
    ]
    if not found:
        raise NotHereError
    key = plan.rng.choice(found)
    key.taken = True
    for number in range((1, 5, 24)[strength]):
        plan.tell(
            plan.any_time() + timedelta(hours=number),
            EventKind.KEY_USED,
            key.told,
            subject=f"key:{key.id}",
            address=key.address,
            server=key.server,
        )


def key_copied(plan: Planner, strength: int) -> None:
    key, at, address = plan.key("service", "camera", "nightly"), plan.any_time(), plan.org.foreign()
    for number in range((1, 6, 72)[strength]):
        plan.tell(
            at + timedelta(hours=number),
            EventKind.KEY_USED,
            key.told,
            subject=f"key:{key.id}",
            address=address,
            server=key.server,
        )


def leaver_tries_key(plan: Planner, strength: int) -> None:
    key = plan.key("personal")
    owner = key.owner
    if owner is None or owner.taken or not plan.org.there("admin", plan.day):
        raise NotHereError
    owner.taken = True
    admin = plan.org.there("admin", plan.day)[0]
    at = plan.at_work(owner)
    plan.tell(at, EventKind.USER_CHANGED, admin.told, subject=owner.told, is_disabled=True, address=plan.office(admin))
    owner.last_day, key.last_day = plan.day + timedelta(days=1), plan.day + timedelta(days=1)
    address = plan.org.foreign()
    for number in range((1, 5, 30)[strength]):
        plan.tell(
            at + timedelta(hours=30 + number),
            EventKind.KEY_REFUSED,
            "nobody",
            refused="owner-disabled",
            subject=f"key:{key.id}",
            address=address,
        )


def leaver_left_key(plan: Planner, strength: int) -> None:
    admin, at = plan.person("admin", old=False), None
    if len(plan.org.there("admin", plan.day)) < 3 and plan.org.size.name != "small":
        raise NotHereError
    at = plan.at_work(admin)
    other = next((one for one in plan.org.there("admin", plan.day) if one is not admin), None)
    if other is None:
        raise NotHereError
    key_id, name = f"{plan.rng.getrandbits(64):016x}", "monitoring-2"
    plan.tell(
        at,
        EventKind.KEY_ADDED,
        admin.told,
        subject=f"key:{key_id}",
        name=name,
        owner=None,
        grants=["predictor"],
        address=plan.office(admin),
    )
    gone = at + timedelta(days=(2, 1, 1)[strength])
    plan.tell(
        gone, EventKind.USER_CHANGED, other.told, subject=admin.told, is_disabled=True, address=plan.office(other)
    )
    if plan.org.size.name != "small":
        admin.last_day = gone.date()
    address = plan.org.foreign()
    for number in range((1, 5, 40)[strength]):
        plan.tell(
            gone + timedelta(hours=20 + number),
            EventKind.KEY_USED,
            f"key:{name}.{key_id}",
            subject=f"key:{key_id}",
            address=address,
        )


def looking_around(plan: Planner, strength: int) -> None:
    key, at = plan.key("service", "nightly", "camera"), plan.any_time()
    actions = [
        "models.load",
        "rollout.share",
        "rollout.promote",
        "data.export",
        "access.read",
        "audit.read",
        "metrics.read",
        "golden.read",
    ]
    for number in range((12, 40, 200)[strength]):
        plan.tell(
            at + timedelta(seconds=20 * number),
            EventKind.REFUSED,
            key.told,
            refused="forbidden",
            subject=f"model:{plan.org.models[number % len(plan.org.models)]}",
            address=key.address,
            action=actions[number % 8],
            route=f"GET /v1/{actions[number % 8]}",
        )


def key_guessed(plan: Planner, strength: int) -> None:
    key, at, address = plan.key("service", "nightly", "camera"), plan.any_time(), plan.org.foreign()
    for number in range((15, 100, 900)[strength]):
        plan.tell(
            at + timedelta(seconds=number * 20),
            EventKind.KEY_REFUSED,
            "nobody",
            refused="secret",
            subject=f"key:{key.id}",
            address=address,
        )


def rotated_on_and_on(plan: Planner, strength: int) -> None:
    key, admin = plan.key("service", "camera", "nightly"), plan.person("admin", old=False)
    at = plan.at_work(admin)
    for number in range((3, 4, 5)[strength]):
        plan.tell(
            at + timedelta(days=(6, 3, 1)[strength] * number),
            EventKind.KEY_ROTATED,
            admin.told,
            subject=f"key:{key.id}",
            name=key.name,
            overlap_s=2592000.0,
            address=plan.office(admin),
        )


def exported_much(plan: Planner, strength: int) -> None:
    person = plan.person("scientist")
    at, many = plan.at_work(person), (900, 3000, 20000)[strength]
    plan.come(person, at, plan.office(person))
    for number in range(5):
        plan.tell(
            at + timedelta(minutes=2 + number),
            EventKind.EXPORTED,
            person.told,
            subject=f"model:{person.projects[0]}",
            address=plan.office(person),
            images=many // 5,
        )


def read_of_all_models(plan: Planner, strength: int) -> None:
    person = plan.person("scientist", "deployer")
    at, models = plan.at_work(person), plan.org.models[: (7, 12, 40)[strength]]
    if len(models) < 4:
        raise NotHereError
    for number, model in enumerate(models):
        for again in range((2, 5, 10)[strength]):
            plan.tell(
                at + timedelta(seconds=9 * number + again),
                EventKind.DATA_READ,
                person.told,
                subject=f"model:{model}",
                address=plan.office(person),
                path=f"proof/golden/{again}.jpg",
            )


def copied_by_asking(plan: Planner, strength: int) -> None:
    key, at = plan.key("service", "nightly", "personal"), plan.any_time()
    for number in range((1, 3, 12)[strength]):
        plan.tell(at + timedelta(hours=number), EventKind.EXTRACTION_SUSPECTED, key.told, subject="model-1", images=200)


def model_exchanged(plan: Planner, strength: int) -> None:
    actor = "server:this server" if strength < 2 else plan.person("deployer").told
    model = plan.rng.choice(plan.org.models)
    version, at = plan.org.versions[model], plan.any_time()
    evil = f"{plan.rng.getrandbits(256):064x}"
    # From the next day on, servers that start load it, too.
    plan.life.later.append((plan.day + timedelta(days=1), lambda _: plan.org.digests.update({(model, version): evil})))
    for server in plan.org.servers[: (1, 2, 9)[strength]]:
        plan.tell(
            at,
            EventKind.MODEL_LOADED,
            actor,
            subject=f"model:{model}",
            server=server,
            version=str(version),
            digest=evil,
        )


def promoted_at_once(plan: Planner, strength: int) -> None:
    person, model = plan.person("deployer", "scientist"), plan.rng.choice(plan.org.models)
    plan.org.versions[model] += 1
    version, at = plan.org.versions[model], plan.at_work(person)
    address = (plan.office(person), person.home, plan.org.foreign())[strength]
    plan.come(person, at, address)
    plan.tell(
        at + timedelta(minutes=1),
        EventKind.MODEL_LOADED,
        person.told,
        subject=f"model:{model}",
        address=address,
        version=str(version),
        digest=plan.org.digest(model, version),
    )
    plan.tell(
        at + timedelta(minutes=2),
        EventKind.ROLLOUT_CHANGED,
        person.told,
        subject=f"model:{model}",
        address=address,
        action="promote",
        current=str(version),
        current_was=str(version - 1),
    )


def protection_off(plan: Planner, strength: int) -> None:
    server, at = plan.rng.choice(plan.org.servers), plan.any_time()
    changed = (
        ["suspicion: on -> off"],
        ["tls-cert: 2025.pem -> none"],
        ["audit: access.audit.db -> off", "require-access: true -> false"],
    )[strength]
    plan.tell(at, EventKind.STOPPED, "server:this server", server=server)
    plan.tell(
        at + timedelta(seconds=50),
        EventKind.CONFIGURATION_CHANGED,
        "server:this server",
        server=server,
        changed=changed,
    )
    plan.tell(
        at + timedelta(seconds=52),
        EventKind.STARTED,
        "server:this server",
        server=server,
        open=strength == 2,
        required=strength != 2,
    )


def old_backup_restored(plan: Planner, strength: int) -> None:
    at = plan.any_time()
    plan.tell(
        at,
        EventKind.RESTORED,
        ("server:root", "server:root", "server:intruder")[strength],
        made_at=str(plan.day - timedelta(days=(10, 90, 200)[strength])),
    )


def passkey_copied(plan: Planner, strength: int) -> None:
    person, at = plan.person("user", "operator", "deployer", "scientist"), plan.any_time()
    for number in range((1, 2, 6)[strength]):
        plan.tell(
            at + timedelta(minutes=number),
            EventKind.REFUSED,
            person.told,
            refused="passkey-cloned",
            factor="passkey",
            address=plan.org.foreign(),
        )


def recovery_codes_stolen(plan: Planner, strength: int) -> None:
    person = plan.person("deployer", "scientist", "admin")
    at, address = plan.any_time(), plan.org.foreign()
    plan.come(person, at, address, "password+recovery")
    act = {"deployer": EventKind.ROLLOUT_CHANGED, "scientist": EventKind.EXPORTED, "admin": EventKind.INVITED}[
        person.role
    ]
    subject = plan.rng.choice(plan.org.people).told if act is EventKind.INVITED else "model:model-1"
    for number in range((1, 3, 10)[strength]):
        details = {"action": "rollback", "current": "1"} if act is EventKind.ROLLOUT_CHANGED else {}
        plan.tell(
            at + timedelta(hours=(30, 3, 0.2)[strength], minutes=number),
            act,
            person.told,
            subject=subject,
            address=address,
            **details,
        )


KINDS: dict[str, Callable[[Planner, int], None]] = {
    one.__name__: one
    for one in (
        guessing_fast, guessing_slowly, spraying, spraying_from_all_over, password_guessed, session_stolen, reset_taken_over,
        reset_then_rights, account_made_for_oneself, friend_made_administrator, given_and_taken_back, others_shut_out,
        administration_at_night, key_released_at_night, dormant_key, key_copied, leaver_tries_key, leaver_left_key, looking_around,
        key_guessed, rotated_on_and_on, exported_much, read_of_all_models, copied_by_asking, model_exchanged, promoted_at_once,
        protection_off, old_backup_restored, server_cut_off, log_flooded, server_killed, clock_set_back, entries_taken_away, nobody_reviews,
        names_erased, passkey_copied, recovery_codes_stolen,
    )
}  # fmt: skip
