# SPDX-License-Identifier: Apache-2.0
"""What happens in an organisation when nothing happens: people, keys, deployments, help desk, outages, strangers. A week at a time."""

from __future__ import annotations

from datetime import date, datetime, timedelta

from audit_year.organisation import BEGIN, Person
from audit_year.people import People, Told
from shipsight.access.events import EventKind

NAMES_OF_ROBOTS = (
    "admin",
    "root",
    "test",
    "user",
    "guest",
    "oracle",
    "postgres",
    "demo",
    "support",
    "backup",
    "ubuntu",
    "info",
)


class Life(People):
    """Makes the events of a week, without incidents."""

    def make_week(self, week: int) -> list[Told]:
        self.out, self.week = [], week
        monday = BEGIN + timedelta(weeks=week)
        for number in range(7):
            day = monday + timedelta(days=number)
            due = [one for one in self.later if one[0] <= day]
            self.later = [one for one in self.later if one[0] > day]
            for _, act in due:
                act(day)
            for person in list(self.org.people):
                self.person_day(person, day)
            for key in self.org.keys:
                self.key_day(key, day)
            self.house_day(day)
        self.review(monday)
        return self.out

    # The house

    def house_day(self, day: date) -> None:
        size, rng = self.org.size, self.rng
        for _ in range(self.happens(size.robots_a_day * 364)):
            self.robot(day)
        self.tell(
            self.moment(day, 1.5), EventKind.BACKED_UP, "server:root", server=self.org.servers[0], digest="0" * 64
        )
        if day.weekday() >= 5:
            self.sudden(day)
            return
        for _ in range(self.happens(size.joiners * 1.4)):
            self.join(day)
        for _ in range(self.happens(size.leavers * 1.4)):
            self.leave(day)
        for person in self.org.people:
            if person.is_there(day) and day not in person.away and rng.random() < 0.2 / 250:
                self.lost_phone(person, day)
        for _ in range(self.happens(size.deployments_a_week * 52 * 1.4)):
            self.deploy(day)
        for _ in range(self.happens(size.hotfixes * 1.4)):
            self.hotfix(day)
        self.office_acts(day)
        self.sudden(day)
        if day.day <= 7 and day.weekday() == 2:
            self.maintain(day)

    def admin_act(
        self, day: date, kind: EventKind, subject: str, *, minutes: float = 0, **details: object
    ) -> Person | None:
        admin = self.helper(None, day)
        if admin is None:
            return None
        at = admin.local(day, admin.start_h + self.rng.uniform(0.6, admin.length_h - 0.5)) + timedelta(minutes=minutes)
        self.tell(at, kind, admin.told, subject=subject, address=self.signed_in(admin, at, day), **details)
        return admin

    def office_acts(self, day: date) -> None:
        size, rng = self.org.size, self.rng
        many = len(self.org.people)
        for _ in range(self.happens(12 + 0.5 * many)):
            person = rng.choice(self.org.people)
            if person.is_there(day) and person.role in ("user", "operator"):
                grants = [f"predictor@{rng.choice(self.org.models)}"]
                self.admin_act(day, EventKind.GRANTS_CHANGED, f"user:{person.name}", before=[], after=grants)
        for _ in range(self.happens(4 + 0.2 * len(self.org.keys))):
            key = self.org.add_key(
                "service",
                f"service-{rng.getrandbits(20):x}",
                f"{rng.choice(self.org.racks)}.{rng.randint(1, 254)}",
                first_day=day + timedelta(days=1),
            )
            if (
                self.admin_act(
                    day, EventKind.KEY_ADDED, f"key:{key.id}", name=key.name, owner=None, grants=["predictor"]
                )
                is None
            ):
                self.org.keys.remove(key)
        for _ in range(self.happens(0.9 * len(self.org.keys))):
            self.rotate(day)
        for _ in range(self.happens(size.new_administrators)):
            found = self.org.there(("user", "operator", "deployer"), day, free=True)
            if found:
                self.promote_person(rng.choice(found), day)
        for _ in range(self.happens(size.mistaken_grants)):
            self.mistake(day)
        for _ in range(self.happens(size.substitutes)):
            self.substitute(day)
        self.rare_acts(day)

    def rare_acts(self, day: date) -> None:
        """Keys that end, a role that changes, work on the log and on backups."""
        rng, many = self.rng, len(self.org.people)
        for _ in range(self.happens(2 + 0.02 * many)):
            ended = [one for one in self.org.keys if one.kind == "service" and one.is_alive(day) and not one.taken]
            if len(ended) > 3:
                gone = rng.choice(ended)
                if self.admin_act(day, EventKind.KEY_REVOKED, f"key:{gone.id}", name=gone.name):
                    gone.last_day = day
        if self.happens(1.5):
            self.admin_act(
                day,
                EventKind.ROLE_CHANGED,
                "role:labeller",
                before=["models.read"],
                after=["models.read", "recordings.read"],
            )
        if self.happens(0.5):
            self.tell(self.moment(day, 10), EventKind.AUDIT_ERASED, "server:root", subject="person:gone", entries=40)
        if self.happens(1):
            self.tell(self.moment(day, 11), EventKind.AUDIT_ARCHIVED, "server:root", until=str(day))
        if self.happens(0.3):
            self.tell(self.moment(day, 11), EventKind.RESTORED, "server:root", made_at=str(day))

    def promote_person(self, person: Person, day: date) -> None:
        if self.admin_act(day, EventKind.GRANTS_CHANGED, f"user:{person.name}", before=[], after=["admin"]):
            self.later.append(
                (day + timedelta(days=self.rng.randint(2, 9)), lambda _: setattr(person, "role", "admin"))
            )

    def mistake(self, day: date) -> None:
        person = self.rng.choice(self.org.people)
        admin = self.helper(person, day)
        if admin is None or not person.is_there(day):
            return
        at = admin.local(day, admin.start_h + 3)
        address = self.signed_in(admin, at, day)
        subject, wrong = f"user:{person.name}", ["operator@*"]
        self.tell(at, EventKind.GRANTS_CHANGED, admin.told, subject=subject, address=address, before=[], after=wrong)
        self.tell(
            at + timedelta(minutes=self.rng.uniform(2, 300)),
            EventKind.GRANTS_CHANGED,
            admin.told,
            subject=subject,
            address=address,
            before=wrong,
            after=[],
        )

    def substitute(self, day: date) -> None:
        """Somebody stands in for a colleague on holiday, for two weeks."""
        found = self.org.there("operator", day, free=True)
        if not found:
            return
        subject = f"user:{self.rng.choice(found).name}"
        before, after = ["operator"], ["operator", "deployer@model-1"]
        if self.admin_act(day, EventKind.GRANTS_CHANGED, subject, before=before, after=after):
            back = day + timedelta(days=14)
            self.later.append(
                (back, lambda now: self.admin_act(now, EventKind.GRANTS_CHANGED, subject, before=after, after=before))
            )

    def rotate(self, day: date) -> None:
        alive = [one for one in self.org.keys if one.is_alive(day) and one.kind != "forgotten" and not one.taken]
        if not alive:
            return
        key = self.rng.choice(alive)
        if (
            self.admin_act(day, EventKind.KEY_ROTATED, f"key:{key.id}", name=key.name, overlap_s=86400.0)
            and self.rng.random() < 0.15
        ):
            for hour in range(self.rng.randint(2, 50)):  # one machine was forgotten
                at = self.moment(day + timedelta(days=2), hour + self.rng.random())
                self.tell(
                    at,
                    EventKind.KEY_REFUSED,
                    "nobody",
                    refused="secret",
                    subject=f"key:{key.id}",
                    address=key.address,
                    server=key.server,
                )

    def join(self, day: date) -> None:
        roles = {role: many for role, many in self.org.size.roles.items() if role not in ("admin", "auditor")}
        role = self.rng.choices(list(roles), list(roles.values()))[0]
        person = self.org.add_person(role, day + timedelta(days=self.rng.randint(0, 5)))
        grants = {"scientist": ["scientist"], "deployer": ["deployer"], "operator": ["operator"]}.get(role, ["viewer"])
        if self.admin_act(day, EventKind.USER_ADDED, person.told, grants=grants) is None:
            self.org.people.remove(person)
            return
        person.must_enrol = True
        person.away -= {person.first_day + timedelta(days=one) for one in range(20)}

    def leave(self, day: date) -> None:
        found = self.org.there(("user", "operator", "deployer", "scientist"), day, free=True)
        if len(found) < 3:
            return
        person = self.rng.choice(found)
        if sum(one.role == person.role for one in found) < 2:
            return
        if self.admin_act(day, EventKind.USER_CHANGED, person.told, is_disabled=True) is None:
            return
        person.last_day = day + timedelta(days=1)
        for key in self.org.keys:
            if key.owner is person:
                key.last_day = day + timedelta(days=1)
                if self.rng.random() < 0.4:  # a script of theirs goes on
                    key.address = f"{self.org.racks[0]}.9"
                    key.refused_until = (day + timedelta(days=self.rng.randint(2, 15)), "owner-disabled")
        self.later.append(
            (day + timedelta(days=30), lambda now: self.admin_act(now, EventKind.USER_REMOVED, person.told))
        )

    def lost_phone(self, person: Person, day: date) -> None:
        helper = self.helper(person, day)
        if person.has_passkey or helper is None or person.role == "auditor":
            return
        at = helper.local(day, helper.start_h + self.rng.uniform(1, 6))
        address = self.signed_in(helper, at, day)
        self.tell(
            at, EventKind.FACTOR_REMOVED, helper.told, subject=person.told, factor="totp", address=address, removed=1
        )
        person.must_enrol = True

    def deploy(self, day: date) -> None:
        """Loads a version, tries it on some requests, promotes it after days; sometimes rolls back."""
        org, rng = self.org, self.rng
        found = org.there("deployer", day, free=True) or org.there("scientist", day, free=True)
        if not found:
            return
        person, model = rng.choice(found), rng.choice(org.models)
        org.versions[model] += 1
        version = org.versions[model]
        at = person.local(day, person.start_h + rng.uniform(0.5, 6))
        address = self.signed_in(person, at, day)
        self.load(model, version, at, person.told, address)
        self.tell(at + timedelta(minutes=4), EventKind.ROLLOUT_CHANGED, person.told, subject=f"model:{model}", address=address, action="share", current=str(version - 1), current_was=str(version - 1), canary=f"{version}=0.1")  # fmt: skip

        def promote(now: date) -> None:
            if not person.is_there(now) or now.weekday() >= 5 or now in person.away:
                self.later.append((now + timedelta(days=1), promote))
                return
            at = person.local(now, person.start_h + rng.uniform(0.5, 6))
            address = self.signed_in(person, at, now)
            action = "promote" if rng.random() > 0.08 else "end"
            self.tell(
                at,
                EventKind.ROLLOUT_CHANGED,
                person.told,
                subject=f"model:{model}",
                address=address,
                action=action,
                current=str(version),
                current_was=str(version - 1),
            )

        self.later.append((day + timedelta(days=rng.randint(1, 4)), promote))

    def load(self, model: str, version: int, at: datetime, actor: str, address: str | None) -> None:
        digest = self.org.digest(model, version)
        for server in self.org.servers:
            self.tell(
                at,
                EventKind.BUNDLE_READ,
                actor,
                subject=f"model:{model}",
                address=address,
                server=server,
                version=str(version),
                digest=digest,
                path="/models",
            )
            self.tell(
                at + timedelta(seconds=4),
                EventKind.MODEL_LOADED,
                actor,
                subject=f"model:{model}",
                address=address,
                server=server,
                version=str(version),
                digest=digest,
            )

    def hotfix(self, day: date) -> None:
        found = self.org.there("deployer", day, free=True)
        if found:
            person, model = self.rng.choice(found), self.rng.choice(self.org.models)
            self.org.versions[model] += 1
            at = person.local(day, person.start_h + 5)
            address = self.signed_in(person, at, day)
            self.load(model, self.org.versions[model], at, person.told, address)
            self.tell(
                at,
                EventKind.ROLLOUT_CHANGED,
                person.told,
                subject=f"model:{model}",
                address=address,
                action="promote",
                current=str(self.org.versions[model]),
            )

    def sudden(self, day: date) -> None:
        """What keeps to no hours, calls at night first."""
        org, rng, size = self.org, self.rng, self.org.size
        for _ in range(self.happens(size.night_calls)):
            found = org.there(("deployer", "operator"), day, free=True)
            if found:
                person = rng.choice(found)
                at = person.local(day, rng.uniform(20, 29))
                self.tell(at, EventKind.SIGN_IN, person.told, factor="password+totp", address=person.home)
                if person.role == "deployer":
                    model = rng.choice(org.models)
                    self.tell(
                        at + timedelta(minutes=4),
                        EventKind.ROLLOUT_CHANGED,
                        person.told,
                        subject=f"model:{model}",
                        address=person.home,
                        action="rollback",
                        current=str(org.versions[model]),
                    )
        for _ in range(self.happens(size.night_calls_administrators)):
            found = org.there("admin", day, free=True)
            if found:
                person = rng.choice(found)
                at = person.local(day, rng.uniform(20, 29))
                self.tell(at, EventKind.SIGN_IN, person.told, factor="password+totp", address=person.home)
                self.tell(
                    at + timedelta(minutes=9),
                    EventKind.INVITED,
                    person.told,
                    subject=rng.choice(org.people).told,
                    address=person.home,
                )
        self.failures(day)

    def failures(self, day: date) -> None:
        """Crashes, power cuts, wrong clients."""
        org, rng, size = self.org, self.rng, self.org.size
        for _ in range(self.happens(size.crashes)):
            server, at = rng.choice(org.servers), self.moment(day, rng.uniform(0, 24))
            self.tell(at, EventKind.AUDIT_RECOVERED, "server:this server", server=server)
            self.tell(
                at + timedelta(seconds=2),
                EventKind.STARTED,
                "server:this server",
                server=server,
                open=False,
                required=True,
            )
        for _ in range(self.happens(size.power_cuts)):
            self.power_cut(day)
        for _ in range(self.happens(size.wrong_clients)):
            alive = [one for one in org.keys if one.is_alive(day)]
            if alive:
                key, at = rng.choice(alive), self.moment(day, rng.uniform(0, 20))
                for number in range(rng.randint(20, 200)):
                    self.tell(
                        at + timedelta(seconds=70 * number),
                        EventKind.REFUSED,
                        key.told,
                        refused="forbidden",
                        subject="model:model-1",
                        address=key.address,
                        server=key.server,
                        action="models.load",
                        route="POST /v1/models/{name}/load",
                    )
        self.oddities(day)

    def oddities(self, day: date) -> None:
        """Machines that move, engineers who try things, disks and clocks."""
        org, rng, size = self.org, self.rng, self.org.size
        if self.happens(size.moves):
            self.move(day)
        if self.happens(size.noise_tests):
            found = [one for one in org.keys if one.kind == "personal" and one.is_alive(day)] or org.keys[:1]
            self.tell(
                self.moment(day, 14),
                EventKind.EXTRACTION_SUSPECTED,
                rng.choice(found).told,
                subject="model-1",
                why=None,
                images=120,
            )
        if self.happens(0.4):
            self.tell(
                self.moment(day, rng.uniform(0, 24)),
                EventKind.AUDIT_LOST,
                "server:this server",
                lost=rng.randint(1, 60),
            )
        if self.happens(0.25 * size.servers):  # a machine is set right by some seconds
            server, at = rng.choice(org.servers), self.moment(day, rng.uniform(0, 24))
            self.tell(at, EventKind.REFUSED, "nobody", refused="authentication", server=server, address=org.foreign())
            self.tell(
                at - timedelta(seconds=rng.uniform(1, 30)),
                EventKind.REFUSED,
                "nobody",
                refused="authentication",
                server=server,
                address=org.foreign(),
            )

    def power_cut(self, day: date) -> None:
        server, begin = self.rng.choice(self.org.servers), self.moment(day, self.rng.uniform(0, 14))
        end = begin + timedelta(hours=self.rng.uniform(0.5, 6))
        self.out = [one for one in self.out if one[1] != server or not begin <= one[0] < end]
        self.tell(end, EventKind.AUDIT_RECOVERED, "server:this server", server=server)
        self.tell(
            end + timedelta(seconds=3),
            EventKind.STARTED,
            "server:this server",
            server=server,
            open=False,
            required=True,
        )

    def move(self, day: date) -> None:
        """All that stands in a rack moves to another network."""
        old, new = self.rng.choice(self.org.racks), self.org.address_block()
        self.org.racks[self.org.racks.index(old)] = new
        for key in self.org.keys:
            if key.address.startswith(f"{old}."):
                key.address = f"{new}.{key.address.rpartition('.')[2]}"

    def maintain(self, day: date) -> None:
        """Once a month each server is stopped and started, sometimes with other options."""
        rng = self.rng
        for number, server in enumerate(self.org.servers):
            at = self.moment(day, 18 + number * 0.3)
            end = at + timedelta(minutes=rng.uniform(3, 25))
            self.out = [one for one in self.out if one[1] != server or not at <= one[0] < end]
            self.tell(at, EventKind.STOPPED, "server:this server", server=server)
            if rng.random() < 0.3:
                changed = rng.choice(
                    [
                        "max-batch: 8 -> 16",
                        "threads: 4 -> 8",
                        "session-hours: 12 -> 10",
                        "tls-cert: 2025.pem -> 2026.pem",
                        "log-format: text -> json",
                        "rate: 50/second -> 100/second",
                    ]
                )
                self.tell(end, EventKind.CONFIGURATION_CHANGED, "server:this server", server=server, changed=[changed])
            self.tell(
                end + timedelta(seconds=2),
                EventKind.STARTED,
                "server:this server",
                server=server,
                open=False,
                required=True,
            )
            for model, version in self.org.versions.items():
                digest = self.org.digest(model, version)
                self.tell(
                    end + timedelta(seconds=5),
                    EventKind.MODEL_LOADED,
                    "server:this server",
                    subject=f"model:{model}",
                    server=server,
                    version=str(version),
                    digest=digest,
                )
            machines = [one for one in self.org.keys if one.kind == "camera" and one.is_alive(day)]
            for key in rng.sample(machines, min(len(machines), 3)):
                self.tell(
                    end + timedelta(seconds=30),
                    EventKind.KEY_RELEASED,
                    key.told,
                    subject="model:model-1",
                    address=key.address,
                    server=server,
                )

    def robot(self, day: date) -> None:
        rng = self.rng
        address, at = self.org.foreign(), self.moment(day, rng.uniform(0, 23))
        for number, name in enumerate(rng.sample(NAMES_OF_ROBOTS, rng.randint(1, len(NAMES_OF_ROBOTS)))):
            for again in range(rng.randint(1, 3)):
                self.fail(f"person:{name}", at + timedelta(seconds=9 * number + 3 * again), address)
        for number in range(rng.randint(0, 10)):
            self.tell(
                at + timedelta(seconds=number),
                EventKind.REFUSED,
                "nobody",
                refused="authentication",
                address=address,
                route=f"GET /{number}",
            )

    def review(self, monday: date) -> None:
        if self.week in self.skipped_reviews or self.week == 0:
            return
        auditors = self.org.there("auditor", monday)
        for number in range(2):
            day = monday + timedelta(days=number)
            there = [one for one in auditors if day not in one.away]
            if there and (number > 0 or self.rng.random() < 0.6):
                person = self.rng.choice(there)
                self.tell(
                    person.local(day, 10 + self.rng.random() * 4),
                    EventKind.REVIEW_SIGNED,
                    person.told,
                    subject=f"review:{self.week}",
                    address=f"{person.office}.7",
                    note="looked at",
                )
                return
        # Nobody of them is there this week: somebody stands in.
        person = self.rng.choice(auditors)
        self.tell(
            person.local(monday, 12),
            EventKind.REVIEW_SIGNED,
            person.told,
            subject=f"review:{self.week}",
            address=person.home,
            note="from home",
        )
