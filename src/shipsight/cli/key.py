# SPDX-License-Identifier: Apache-2.0
"""`shipsight key`: keys of programs, certificates of clients and devices, and the key that encrypts secrets."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.access_rooms import (
    DatabaseOption,
    JsonOption,
    Rooms,
    SecretsKeyOption,
    day,
    moment,
    open_rooms,
    parse_grants,
    secrets_key_path,
)
from shipsight.cli.output import make_table, print_json, screen
from shipsight.errors import CertificateError, NotFoundError, UsageError

if TYPE_CHECKING:
    from shipsight.access.client_certificates import KnownCertificate
    from shipsight.access.keys import ApiKey

__all__ = ["key_app"]

key_app = typer.Typer(help="Let programs and devices in, by keys and by certificates.", no_args_is_help=True)

Which = Annotated[str, typer.Argument(metavar="KEY", help="Id of a key or certificate, or its name.")]


# Long, since each option of the command line stands in its signature.
@key_app.command("add")
def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name: letters, digits, `.`, `_`, `-`.")],
    grant: Annotated[list[str] | None, typer.Option(help="ROLE or ROLE@MODELS; repeatable.")] = None,
    owner: Annotated[str | None, typer.Option(help="Person within whose rights the key stays.")] = None,
    days: Annotated[float | None, typer.Option(help="Days after which the key ends; default: 365.")] = None,
    forever: Annotated[bool, typer.Option("--forever", help="The key does not end by itself.")] = False,
    rate: Annotated[str | None, typer.Option(help="How often it may ask, such as 100/second.")] = None,
    quota: Annotated[str | None, typer.Option(help="How much it may ask for, such as 100000/day.")] = None,
    certificate: Annotated[
        Path | None, typer.Option(help="Certificate in PEM to let in, instead of a key; known by its digest.")
    ] = None,
    subject: Annotated[
        str | None, typer.Option(help="Subject of certificates to let in, instead of a key; as RFC 4514 writes it.")
    ] = None,
    alternative_name: Annotated[
        str | None, typer.Option(help="Alternative name of certificates to let in, instead of a key; DNS:camera-1.")
    ] = None,
    device: Annotated[bool, typer.Option("--device", help="The certificate is a device's.")] = False,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it: once, here. Or let a certificate in."""
    known_by = {"--certificate": certificate, "--subject": subject, "--alternative-name": alternative_name}
    chosen = [option for option, value in known_by.items() if value is not None]
    if len(chosen) > 1:
        raise UsageError("one certificate is known by one of these", got=" ".join(chosen))
    of_keys = {"--owner": owner is not None, "--days": days is not None, "--forever": forever}
    strange = [option for option, is_given in of_keys.items() if is_given] if chosen else ["--device"] * device
    if strange:
        kind = "certificate" if chosen else "key"
        raise UsageError(f"does not go with a {kind}", where=strange[0])
    if days is not None and (forever or not 0 < days <= 36525):
        raise UsageError("out of range", where="--days", expected="above 0, and no --forever", got=days)
    grants = parse_grants(grant)
    with open_rooms(database, changes=True) as rooms:
        if chosen:
            field, value = _known_by(certificate, subject, alternative_name)
            kind = "device" if device else "certificate"
            entry = rooms.certificates.add(
                rooms.actor, name, field=field, value=value, kind=kind, grants=grants, rate=rate, quota=quota
            )
            _print_certificate(entry, as_json=as_json)
            return
        from shipsight.access.keys import KEY_LIVES

        key, text = rooms.keys.add(
            rooms.actor,
            name,
            grants=grants,
            owner_id=None if owner is None else rooms.directory.user(owner).id,
            expires_at=None if forever else rooms.now() + (KEY_LIVES if days is None else timedelta(days=days)),
            rate=rate,
            quota=quota,
        )
        _print_secret(rooms, key, text, as_json=as_json)


@key_app.command("list")
def list_keys(
    owner: Annotated[str | None, typer.Option(help="Only a person's; default: all, and certificates.")] = None,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """List keys and certificates; no secrets."""
    with open_rooms(database, changes=False) as rooms:
        user = None if owner is None else rooms.directory.user(owner)
        keys = rooms.keys.list(None if user is None else user.id)
        entries = rooms.certificates.list() if user is None else []
        names = {one.id: one.name for one in rooms.directory.users()}
        now = rooms.now()
    if as_json:
        print_json(
            {
                "keys": [_tell(one, names) for one in keys],
                "certificates": [_tell_certificate(one) for one in entries],
            }
        )
        return
    rows = [
        [one.id, one.name, names.get(one.owner_id or "", "a service"), *_table(one), _state(one, now)] for one in keys
    ]
    rows += [[one.id, one.name, one.kind, *_table(one), f"{one.field} {one.value}"] for one in entries]
    columns = ["id", "name", "of", "grants", "used (UTC)", "state"]
    screen().print(make_table(columns, rows) if rows else "no keys and no certificates")


@key_app.command("rotate")
def rotate(
    key: Which,
    overlap: Annotated[float, typer.Option(help="Hours for which the secret before is good, too.")] = 24.0,
    database: DatabaseOption = None,
    as_json: JsonOption = False,
) -> None:
    """Give a key a new secret and print it: once, here."""
    with open_rooms(database, changes=True) as rooms:
        found = _find(rooms, key)
        if not isinstance(found, str):
            raise UsageError("a certificate has no secret of ours", where=key, hint="Add the new one, revoke this one.")
        text = rooms.keys.rotate(rooms.actor, found, overlap_s=overlap * 3600)
        _print_secret(rooms, rooms.keys.get(found), text, as_json=as_json)


@key_app.command("revoke")
def revoke(key: Which, database: DatabaseOption = None, as_json: JsonOption = False) -> None:
    """End a key or a certificate at once."""
    with open_rooms(database, changes=True) as rooms:
        found = _find(rooms, key)
        if isinstance(found, str):
            rooms.keys.revoke(rooms.actor, found)
        else:
            rooms.certificates.remove(rooms.actor, found.id)
        if as_json:
            print_json({"revoked": found if isinstance(found, str) else found.id})
        else:
            screen().print(f"{key} is revoked", markup=False)


@key_app.command("rotate-secrets")
def rotate_secrets(
    finish: Annotated[
        bool, typer.Option("--finish", help="Encrypt everything with the new key, and drop those before it.")
    ] = False,
    database: DatabaseOption = None,
    secrets_key: SecretsKeyOption = None,
    as_json: JsonOption = False,
) -> None:
    """Change the key that encrypts secrets in the database, in two steps between which servers are restarted."""
    with open_rooms(database, changes=True) as rooms:
        from shipsight.access.store import SecretBox, load_keys, reseal, write_keys

        path = secrets_key_path(rooms.url, secrets_key)
        keys = load_keys(path)
        if not finish:
            if len(keys) > 1:
                raise UsageError("a change has begun already", where=path, hint="Restart servers, then give --finish.")
            write_keys(path, [secrets.token_bytes(32), *keys])
            told: dict[str, Any] = {"secrets_key": str(path), "keys": 2, "encrypted": 0}
            line = f"{path} has a new key before the old one. Restart all servers, then run this with --finish."
        else:
            # Secrets that were encrypted before the servers knew the new key are found here, too: none is skipped.
            count = reseal(rooms.database, SecretBox(keys))
            write_keys(path, keys[:1])
            told = {"secrets_key": str(path), "keys": 1, "encrypted": count}
            line = f"{count} secrets are encrypted with the new key; {path} holds it alone."
    if as_json:
        print_json(told)
    else:
        screen().print(line, soft_wrap=True, markup=False)


def _known_by(certificate: Path | None, subject: str | None, alternative_name: str | None) -> tuple[str, str]:
    """Returns the field that a certificate is known by, and its value.

    Raises:
        CertificateError: the file holds none.
    """
    if subject is not None:
        return "subject", subject
    if certificate is None:
        return "name", alternative_name or ""
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        found = x509.load_pem_x509_certificates(certificate.read_bytes())
    except OSError as error:
        raise CertificateError("not a file that can be read", where=certificate, got=error.strerror) from error
    except ValueError as error:
        raise CertificateError("not a certificate in PEM", where=certificate) from error
    return "sha256", found[0].fingerprint(SHA256()).hex()


def _find(rooms: Rooms, which: str) -> str | KnownCertificate:
    """Returns the id of a key, or a certificate's entry; by id, or by a name that stands for one.

    Raises:
        NotFoundError: there is none.
        UsageError: several have that name.
    """
    keys = [one for one in rooms.keys.list() if which in (one.id, one.name)]
    exact = [one for one in keys if one.id == which]
    alive = exact or [one for one in keys if one.revoked_at is None]
    entries = [one for one in rooms.certificates.list() if which in (one.id, one.name)]
    if len(alive) + len(entries) > 1:
        ids = ", ".join([*(one.id for one in alive), *(one.id for one in entries)])
        raise UsageError("several have this name", where=which, expected="an id", got=ids)
    if alive:
        return alive[0].id
    if entries:
        return entries[0]
    raise NotFoundError("no such key or certificate", got=which, hint="Run: shipsight key list")


def _print_secret(rooms: Rooms, key: ApiKey, text: str, *, as_json: bool) -> None:
    if as_json:
        names = {one.id: one.name for one in rooms.directory.users()}
        print_json({"key": _tell(key, names), "secret": text})
        return
    console = screen()
    until = f"{day(key.expires_at)} UTC" if key.expires_at else "revoked"
    console.print(f"{key.name} ({key.id}), good until {until}:", markup=False)
    console.print(f"  {text}", soft_wrap=True, markup=False)
    console.print("It is not shown again. Send it as: Authorization: Bearer ssk_...", markup=False)
    if key.rotating_until is not None:
        console.print(f"The secret before is good until {day(key.rotating_until)} UTC.", markup=False)


def _print_certificate(entry: KnownCertificate, *, as_json: bool) -> None:
    if as_json:
        print_json({"certificate": _tell_certificate(entry)})
        return
    held = " ".join(one.told() for one in entry.grants) or "no grant"
    line = f"{entry.name} ({entry.id}), known by {entry.field} {entry.value}, holds {held}"
    screen().print(line, soft_wrap=True, markup=False)


def _tell(key: ApiKey, names: dict[str, str]) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "owner": None if key.owner_id is None else names.get(key.owner_id),
        "grants": [one.told() for one in key.grants],
        "created_by": key.created_by,
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
        "used_at": moment(key.used_at),
        "revoked_at": moment(key.revoked_at),
        "rotating_until": moment(key.rotating_until),
        "rate": key.rate,
        "quota": key.quota,
    }


def _tell_certificate(entry: KnownCertificate) -> dict[str, Any]:
    return {
        "id": entry.id,
        "name": entry.name,
        "kind": entry.kind,
        "field": entry.field,
        "value": entry.value,
        "grants": [one.told() for one in entry.grants],
        "created_by": entry.created_by,
        "created_at": moment(entry.created_at),
        "used_at": moment(entry.used_at),
        "rate": entry.rate,
        "quota": entry.quota,
    }


def _table(one: ApiKey | KnownCertificate) -> list[str]:
    return [" ".join(grant.told() for grant in one.grants) or "-", day(one.used_at)]


def _state(key: ApiKey, now: datetime) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "does not end"
    return "ended" if key.expires_at <= now else f"until {key.expires_at:%Y-%m-%d}"
