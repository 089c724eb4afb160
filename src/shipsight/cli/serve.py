# SPDX-License-Identifier: Apache-2.0
"""`shipsight serve`: bundles answer requests."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shipsight.cli.serve_access import open_id_settings, read_access
from shipsight.cli.serve_audit import given_options, read_audit, tell_audit
from shipsight.cli.serve_recording import checked_alerts, read_recording
from shipsight.cli.serve_told import ServeTold
from shipsight.errors import MissingDependencyError
from shipsight.spawning import ServingProcess

if TYPE_CHECKING:
    from shipsight.serve import ServeOptions, ServiceManager, TlsSettings, VertexRoutes
    from shipsight.serve.traces import TraceSettings

__all__ = ["serve_command"]

_log = logging.getLogger("shipsight.serve")


# Long, since each option of the command line stands in its signature.
def serve_command(
    context: typer.Context,
    bundles: Annotated[
        list[Path] | None, typer.Argument(metavar="[BUNDLE...]", help="Bundles: folders or zip files.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to listen on; other than this machine's own with TLS and an administrator.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port; 0 for any free one.")] = 8000,
    grpc_port: Annotated[int | None, typer.Option(help="Port for gRPC; 0 for any free one; default: no gRPC.")] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="Variant that requests may choose; repeatable; `all` for all.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Threads around the engine; default: cores + 2.")] = None,
    streams: Annotated[int | None, typer.Option(help="Inferences side by side; default: measured.")] = None,
    threads: Annotated[int | None, typer.Option(help="Engine threads; default: one per core.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda[:index].")] = "cpu",
    cache: Annotated[Path | None, typer.Option(help="Folder for compiled models; default: the user's cache.")] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Keep no compiled models.")] = False,
    body_mb: Annotated[float, typer.Option(help="Largest body in 2^20 bytes.")] = 32,
    max_pixels: Annotated[int, typer.Option(help="Most pixels of an image.")] = 50_000_000,
    max_images: Annotated[int, typer.Option(help="Most images of a request.")] = 16,
    max_windows: Annotated[int, typer.Option(help="Most windows that a request's images are cut into.")] = 64,
    max_connections: Annotated[int, typer.Option(help="Most open connections.")] = 512,
    max_requests: Annotated[int, typer.Option(help="Most requests at once.")] = 256,
    head_seconds: Annotated[float, typer.Option(help="Seconds for a request's head to come.")] = 10.0,
    body_seconds: Annotated[float, typer.Option(help="Seconds for a request's body to come.")] = 30.0,
    deadline: Annotated[float, typer.Option(help="Seconds for an answer where a request names none.")] = 10.0,
    max_streams: Annotated[int, typer.Option(help="Most streams of video at once.")] = 32,
    stream_seconds: Annotated[float, typer.Option(help="Seconds for a stream's next frame to come.")] = 60.0,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate in PEM, with those between it and its authority.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its private key in PEM.")] = None,
    tls_client_ca: Annotated[Path | None, typer.Option(help="Authorities, in PEM, that sign for clients.")] = None,
    tls_client: Annotated[
        str | None, typer.Option(help="required or optional: whether clients must show a certificate.")
    ] = None,
    log_format: Annotated[
        str | None, typer.Option(help="json or text; default: text on a terminal, else json.")
    ] = None,
    no_access_log: Annotated[bool, typer.Option("--no-access-log", help="Log no single requests.")] = False,
    otlp_endpoint: Annotated[
        str | None, typer.Option(help="Collector that traces are sent to, http://host:4318; default: none are sent.")
    ] = None,
    drain: Annotated[float, typer.Option(help="Seconds for requests in flight when the server leaves.")] = 20.0,
    repository: Annotated[Path | None, typer.Option(help="Folder of bundles that may be loaded by name.")] = None,
    memory_mb: Annotated[float | None, typer.Option(help="Memory for all models in 10^6 bytes; default: any.")] = None,
    canary: Annotated[
        list[str] | None, typer.Option(help="MODEL:VERSION=SHARE of requests that a version answers; repeatable.")
    ] = None,
    shadow: Annotated[
        list[str] | None, typer.Option(help="MODEL:VERSION=SHARE of requests that a version is asked again.")
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="Folder of rollouts and of what is learned about drift; default: the user's, by port."),
    ] = None,
    isolate: Annotated[bool, typer.Option("--isolate", help="Give each model's engine a process of its own.")] = False,
    stuck_seconds: Annotated[
        float, typer.Option(help="Seconds after which an inference of such a process counts as hung.")
    ] = 30.0,
    steps: Annotated[
        list[str] | None, typer.Option(help="Python file with steps of your own: FILE or MODEL=FILE; repeatable.")
    ] = None,
    step_workers: Annotated[int, typer.Option(help="Processes that run the steps of a file.")] = 2,
    step_seconds: Annotated[float, typer.Option(help="Seconds that steps may take for an image.")] = 5.0,
    rate: Annotated[
        str | None, typer.Option(help="Requests of each principal by model, 100/second; default: any.")
    ] = None,
    quota: Annotated[
        str | None, typer.Option(help="Images of each principal by model, 100000/day; default: any.")
    ] = None,
    limits_store: Annotated[
        str | None,
        typer.Option(
            help="Redis where servers count together, rediss://host:port; default: each by itself.",
            envvar="SHIPSIGHT_LIMITS_STORE",
            show_envvar=False,
        ),
    ] = None,
    database: Annotated[
        str | None, typer.Option(help="Identities: SQLite's file, or postgresql://...; default: the user's, if there.")
    ] = None,
    secrets_key: Annotated[
        Path | None, typer.Option(help="Key of secrets in it; made where missing; default: beside it.")
    ] = None,
    public_url: Annotated[str | None, typer.Option(help="Origin that browsers see, https://host[:port].")] = None,
    require_access: Annotated[
        bool, typer.Option("--require-access", help="Ask for a credential also where nobody is known.")
    ] = False,
    behind: Annotated[
        str | None, typer.Option(help="Who encrypts and asks who is there: sagemaker, vertex, azureml, kserve, proxy.")
    ] = None,
    uds: Annotated[Path | None, typer.Option(help="Unix socket to answer on instead of a port.")] = None,
    proxy_peers: Annotated[str | None, typer.Option(help="Networks that the proxy comes from, by commas.")] = None,
    proxy_secret_file: Annotated[
        Path | None, typer.Option(help="File of what the proxy sends in X-Shipsight-Proxy-Secret.")
    ] = None,
    proxy_user_header: Annotated[str | None, typer.Option(help="Header in which the proxy names who asks.")] = None,
    oidc_issuer: Annotated[
        str | None, typer.Option(help="Provider of OpenID Connect that people sign in with.")
    ] = None,
    oidc_client_id: Annotated[str | None, typer.Option(help="What it knows this server by.")] = None,
    oidc_secret_file: Annotated[
        Path | None, typer.Option(help="File of the client's secret; default: PKCE alone.")
    ] = None,
    oidc_groups_claim: Annotated[str | None, typer.Option(help="Claim that lists groups; default: groups.")] = None,
    oidc_acr: Annotated[str | None, typer.Option(help="Values of acr that count as two factors, by commas.")] = None,
    oidc_ca: Annotated[Path | None, typer.Option(help="Authorities of the provider's certificate, in PEM.")] = None,
    oidc_scopes: Annotated[
        str | None, typer.Option(help="Scopes asked for beside openid, by commas; default: profile.")
    ] = None,
    oidc_without_auth_time: Annotated[
        bool, typer.Option("--oidc-without-auth-time", help="The provider does not tell when it asked the person.")
    ] = False,
    session_idle_minutes: Annotated[
        float, typer.Option(help="Minutes without a request after which a session ends.")
    ] = 30.0,
    session_hours: Annotated[float, typer.Option(help="Hours after which a session ends in any case.")] = 12.0,
    step_up_minutes: Annotated[
        float, typer.Option(help="Minutes for which a proof of who one is allows what is sensitive.")
    ] = 5.0,
    sealing_keys: Annotated[
        Path | None,
        typer.Option(help="Folder of keys for sealed requests; made where missing; default: this server's memory."),
    ] = None,
    sealing_days: Annotated[float, typer.Option(help="Days for which such a key is opened with.")] = 7.0,
    require_sealed: Annotated[
        list[str] | None, typer.Option(help="Model that takes sealed requests only; repeatable; `all` for all.")
    ] = None,
    audit: Annotated[
        str | None,
        typer.Option(help="Audit log: SQLite's file, postgresql://..., or off; default: beside --database, else off."),
    ] = None,
    audit_key: Annotated[
        Path | None, typer.Option(help="Key that signs its checkpoints; made where missing; default: beside it.")
    ] = None,
    audit_copy: Annotated[
        list[str] | None, typer.Option(help="Second place for checkpoints: file:, syslog: or https://; repeatable.")
    ] = None,
    audit_every: Annotated[int, typer.Option(help="Entries after which a checkpoint is signed.")] = 1000,
    audit_seconds: Annotated[
        float, typer.Option(help="Seconds after which one is signed where there is something new.")
    ] = 60.0,
    audit_predictions: Annotated[
        bool, typer.Option("--audit-predictions", help="Record every prediction, never pixels.")
    ] = False,
    server_name: Annotated[
        str | None, typer.Option(help="What this server is called in the audit log; default: machine and port.")
    ] = None,
    record_policy: Annotated[
        Path | None,
        typer.Option(help="Recording policy: what is kept of production; default: nothing of a single image."),
    ] = None,
    recordings: Annotated[
        Path | None, typer.Option(help="Folder of the recordings; made where missing; default: $SHIPSIGHT_RECORDINGS.")
    ] = None,
    recordings_key: Annotated[
        Path | None, typer.Option(help="File of their key; made where missing; default: beside the folder.")
    ] = None,
    drift_reference: Annotated[int, typer.Option(help="Images that later ones are compared with for drift.")] = 300,
    drift_window: Annotated[int, typer.Option(help="Images of one such comparison.")] = 100,
    drift_per_second: Annotated[
        float, typer.Option(help="Images a second of each variant that are looked at for drift, at most; 0 for none.")
    ] = 2.0,
    drift_embeddings: Annotated[
        bool,
        typer.Option(
            "--drift-embeddings",
            help="Compare the model's own view of images as well; costs a run of half the model for each.",
        ),
    ] = False,
    alerts: Annotated[Path | None, typer.Option(help="Alert settings: who is told of drift; default: nobody.")] = None,
    hang_seconds: Annotated[
        float, typer.Option(help="Seconds without a sign of life after which the serving process is restarted.")
    ] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Tell what happens as JSON lines.")] = False,
) -> None:
    """Answer requests with bundles, each ready only once its golden set was replayed here."""
    _check_packages(with_grpc=grpc_port is not None)
    # It imports for half a second, beside what is read and checked here.
    first = ServingProcess()
    context.call_on_close(first.dismiss)
    from shipsight.access.quotas import QuotaSettings
    from shipsight.serve import (
        Limits,
        LogSettings,
        MonitoringOptions,
        OpenSettings,
        RolloutOptions,
        SealingOptions,
        ServeOptions,
        StepSettings,
        TlsSettings,
        parse_share,
        parse_steps,
    )

    access = read_access(
        host=host,
        database=database,
        secrets_key=secrets_key,
        public_url=public_url,
        require_access=require_access,
        behind=behind,
        uds=uds,
        proxy_peers=proxy_peers,
        proxy_secret_file=proxy_secret_file,
        proxy_user_header=proxy_user_header,
        openid=open_id_settings(
            oidc_issuer,
            oidc_client_id,
            oidc_secret_file,
            oidc_groups_claim,
            oidc_acr,
            oidc_ca,
            scopes=oidc_scopes,
            without_auth_time=oidc_without_auth_time,
        ),
        idle_minutes=session_idle_minutes,
        session_hours=session_hours,
        step_up_minutes=step_up_minutes,
    )
    options = ServeOptions(
        bundles=tuple(bundles or ()),
        host=host,
        port=port,
        grpc_port=grpc_port,
        workers=workers,
        opening=OpenSettings(
            variants=tuple(variant or ()),
            streams=streams,
            threads=threads,
            device=device,
            cache_dir=None if no_cache else (cache or _user_cache()),
            isolate=isolate,
            stuck_s=stuck_seconds,
        ),
        drain_s=drain,
        hang_s=hang_seconds,
        vertex=_vertex_routes(),
        limits=Limits(
            body_bytes=int(body_mb * 2**20),
            image_pixels=max_pixels,
            images=max_images,
            windows=max_windows,
            connections=max_connections,
            requests=max_requests,
            header_s=head_seconds,
            body_s=body_seconds,
            deadline_s=deadline,
            streams=max_streams,
            stream_idle_s=stream_seconds,
        ),
        repository=repository,
        memory_mb=memory_mb,
        rollout=RolloutOptions(
            canaries=tuple(parse_share(one, option="--canary") for one in canary or ()),
            shadows=tuple(parse_share(one, option="--shadow") for one in shadow or ()),
        ),
        logs=LogSettings.of(log_format or ("text" if sys.stderr.isatty() else "json"), requests=not no_access_log),
        traces=_traces(otlp_endpoint),
        quotas=QuotaSettings(rate, quota, limits_store),
        access=access,
        sealing=SealingOptions(
            None if sealing_keys is None else sealing_keys.absolute(), sealing_days, tuple(require_sealed or ())
        ),
        audit=read_audit(
            audit,
            database=None if access.settings is None else access.settings.database,
            key=audit_key,
            copies=audit_copy,
            every=audit_every,
            seconds=audit_seconds,
            predictions=audit_predictions,
            server=server_name,
            port=port,
        ),
        recording=read_recording(record_policy, recordings, recordings_key),
        monitoring=MonitoringOptions(
            drift_reference, drift_window, drift_per_second, checked_alerts(alerts), drift_embeddings
        ),
        tls=TlsSettings.of(tls_cert, tls_key, tls_client_ca, tls_client),
        steps=StepSettings(tuple(map(parse_steps, steps or ())), workers=step_workers, timeout_s=step_seconds),
    )
    told = given_options(context, options)
    _serve(replace(options, audit=replace(options.audit, configuration=told)), state, first, as_json=as_json)


def _check_packages(*, with_grpc: bool) -> None:
    from importlib.util import find_spec

    packages = [
        "uvicorn",
        "starlette",
        "uvloop",
        "httptools",
        "prometheus_client",
        "python_multipart",
        "websockets",
        "cryptography",
    ]
    for package in packages + (["grpc", "grpc_health"] if with_grpc else []):
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"package {package} is not installed", hint="Run: pip install 'shipsight[serve]'"
            )


def _serve(options: ServeOptions, state: Path | None, first: ServingProcess, *, as_json: bool) -> None:
    """Serves until told to leave."""
    from shipsight.serve import Supervisor, allow_descriptors, bind_listener, bind_unix_listener, reserve_port
    from shipsight.serve.access_opening import first_look, origin_of
    from shipsight.serve.audit_opening import LateAudit
    from shipsight.serve.logs import configure_logs

    configure_logs(options.logs, sys.stderr)
    name = None if options.tls is None else _check_tls(options.tls, options.host)
    allow_descriptors(options.limits.connections)
    uds = options.access.uds
    listener = bind_listener(options.host, options.port) if uds is None else bind_unix_listener(uds)
    address = _address(listener.getsockname(), name) if uds is None else f"unix:{uds}"
    options, pin = _with_identity(options)
    tell_audit(options.audit)
    with LateAudit(options.audit) as events:
        look = first_look(options, origin_of(options, listener), events=events)
    grpc_address = None
    if options.grpc_port is not None:
        # Open as long as this process: the number stays, whatever becomes of the serving process.
        kept = reserve_port(options.host, options.grpc_port)
        options = replace(options, grpc_port=kept.getsockname()[1])
        grpc_address = _address(kept.getsockname(), name, scheme="grpc")
    told = ServeTold(options, address=address, grpc=grpc_address, pin=pin, first=look, as_json=as_json)
    with _state_folder(state, options.port) as folder:
        options = replace(options, rollout=replace(options.rollout, state_dir=folder))
        failed = Supervisor(
            options,
            listener,
            on_ready=told.ready,
            on_death=told.restarts,
            manager=_service_manager(),
            first=first,
        ).run()
    if failed is not None:
        told.failed(failed["error"])
        raise typer.Exit(failed["exit_code"])


def _vertex_routes() -> VertexRoutes | None:
    """Returns the routes that Vertex AI sets in a container's environment."""
    health, predict = os.environ.get("AIP_HEALTH_ROUTE"), os.environ.get("AIP_PREDICT_ROUTE")
    if not health or not predict:
        return None
    from shipsight.serve import VertexRoutes

    return VertexRoutes(health, predict)


def _traces(endpoint: str | None) -> TraceSettings | None:
    if endpoint is None:
        return None
    from shipsight.serve.traces import TraceSettings, check_traces

    check_traces()
    return TraceSettings(endpoint)


def _service_manager() -> ServiceManager:
    """Returns who started this process as a service, by what it set in the environment."""
    from shipsight.serve import ServiceManager

    wants_life = bool(os.environ.get("WATCHDOG_USEC")) and os.environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
    return ServiceManager(os.environ.get("NOTIFY_SOCKET") or None, wants_life=wants_life)


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "shipsight" / "compiled"


@contextmanager
def _state_folder(given: Path | None, port: int) -> Iterator[Path]:
    """Gives where rollouts and what is learned about drift are kept: by port, which no two servers share.

    For a port of chance, or where nobody is at home, that is a folder which goes with the server.
    """
    home = os.environ.get("HOME")
    states = os.environ.get("XDG_STATE_HOME") or (home and f"{home}/.local/state")
    if given is not None:
        yield given.absolute()
    elif port and states:
        yield Path(states) / "shipsight" / f"serve-{port}"
    else:
        with tempfile.TemporaryDirectory(prefix="shipsight-serve-") as folder:
            yield Path(folder)


def _check_tls(settings: TlsSettings, host: str) -> str:
    """Tries the files before anything is started, and returns the name by which clients should call this machine."""
    from shipsight.serve.logs import fields
    from shipsight.serve.tls import make_context, read_server_certificate, warnings_of

    make_context(settings)
    certificate = read_server_certificate(settings)
    for code, text in warnings_of(settings, certificate, host=host, now=datetime.now(UTC)):
        _log.warning(text, extra=fields(code=code))
    return certificate.name_for(host)


def _address(bound: tuple[Any, ...], tls_name: str | None, scheme: str = "http") -> str:
    name = tls_name or bound[0]
    host = f"[{name}]" if ":" in name else name
    return f"{scheme}{'s' if tls_name else ''}://{host}:{bound[1]}"


def _with_identity(options: ServeOptions) -> tuple[ServeOptions, str]:
    """Returns options whose sealing identity is made, and the pin of it; it outlives the serving process."""
    from shipsight.protect import SealingIdentity
    from shipsight.serve.sealing_folder import SealingFolder

    sealing = options.sealing
    if sealing.folder is not None:
        return options, str(SealingFolder(sealing.folder).identity.pin)
    seed = secrets.token_hex(32)
    pin = SealingIdentity(bytes.fromhex(seed)).pin
    return replace(options, sealing=replace(sealing, seed=seed)), str(pin)
