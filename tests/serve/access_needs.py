# SPDX-License-Identifier: Apache-2.0
"""What each route and method of HTTP, WebSocket and gRPC needs of whoever asks, written out by hand; `test_access_matrix` asks them all."""

from __future__ import annotations

__all__ = ["BODIES", "CALLS", "NAMES_MODEL_IN_QUERY", "NEEDS", "NONSENSE", "OWN_ACCOUNT", "SOCKETS"]

# `health` and `public`: nothing; `known`: any credential that is accepted, `enrolling` also before a second factor was added. Else an action, and where it must be allowed:
# `model`: on the model that the request names; `any`: on any model at all; `all`: it concerns no single model.

PAGES: dict[tuple[str, str], str] = {
    ("GET", path): "public"
    for path in (
        "/", "/sign-in", "/invitation", "/second-factor", "/account", "/administration", "/audit", "/pages/page.css", "/pages/icon.svg", "/pages/account.js",
        "/pages/administration.js", "/pages/elements.js", "/pages/forms.js", "/pages/grants.js", "/pages/invitation.js", "/pages/keys.js", "/pages/page.js",
        "/pages/passkeys.js", "/pages/person.js", "/pages/prove.js", "/pages/seal.js", "/pages/second-factor.js", "/pages/server.js", "/pages/sessions.js",
        "/pages/sign-in.js", "/pages/audit.js", "/pages/audit-entries.js", "/pages/audit-reviews.js", "/pages/audit-state.js", "/pages/audit-words.js",
    )
}  # fmt: skip
OWN_ACCOUNT: dict[tuple[str, str], str] = {
    ("POST", "/v1/access/sign-in"): "public",
    ("POST", "/v1/access/sign-in/code"): "public",
    ("POST", "/v1/access/sign-in/passkey/options"): "public",
    ("POST", "/v1/access/sign-in/passkey"): "public",
    ("POST", "/v1/access/sign-in/invitation"): "public",
    ("GET", "/v1/access/sign-in/openid"): "public",
    ("GET", "/v1/access/sign-in/openid/return"): "public",
    ("GET", "/v1/access/session"): "public",
    ("POST", "/v1/access/sign-out"): "enrolling",
    ("POST", "/v1/access/step-up"): "enrolling",
    ("POST", "/v1/access/password"): "enrolling",
    ("GET", "/v1/access/factors"): "enrolling",
    ("POST", "/v1/access/factors/totp"): "enrolling",
    ("POST", "/v1/access/factors/totp/confirm"): "enrolling",
    ("DELETE", "/v1/access/factors/totp"): "known",
    ("POST", "/v1/access/factors/passkeys/options"): "enrolling",
    ("POST", "/v1/access/factors/passkeys"): "enrolling",
    ("DELETE", "/v1/access/factors/passkeys/{passkey}"): "known",
    ("POST", "/v1/access/factors/recovery-codes"): "known",
    ("GET", "/v1/access/sessions"): "known",
    ("POST", "/v1/access/sessions/end-others"): "known",
    ("DELETE", "/v1/access/sessions/{session}"): "known",
    ("GET", "/v1/access/keys"): "known",
    ("POST", "/v1/access/keys"): "known",
    ("POST", "/v1/access/keys/{key}/rotate"): "known",
    ("DELETE", "/v1/access/keys/{key}"): "known",
}
ADMINISTRATION: dict[tuple[str, str], str] = {
    ("GET", "/v1/access/users"): "access.read all",
    ("POST", "/v1/access/users"): "access.change all",
    ("GET", "/v1/access/users/{user}"): "access.read all",
    ("PATCH", "/v1/access/users/{user}"): "access.change all",
    ("DELETE", "/v1/access/users/{user}"): "access.change all",
    ("POST", "/v1/access/users/{user}/invitation"): "access.change all",
    ("DELETE", "/v1/access/users/{user}/factors"): "access.change all",
    ("GET", "/v1/access/users/{user}/sessions"): "access.read all",
    ("DELETE", "/v1/access/users/{user}/sessions"): "access.change all",
    ("PUT", "/v1/access/users/{user}/grants"): "access.change all",
    ("GET", "/v1/access/groups"): "access.read all",
    ("PUT", "/v1/access/groups/{group:path}/grants"): "access.change all",
    ("GET", "/v1/access/roles"): "known",
    ("PUT", "/v1/access/roles/{role}"): "access.change all",
    ("DELETE", "/v1/access/roles/{role}"): "access.change all",
    ("GET", "/v1/access/certificates"): "access.read all",
    ("POST", "/v1/access/certificates"): "access.change all",
    ("DELETE", "/v1/access/certificates/{certificate}"): "access.change all",
}
AUDIT: dict[tuple[str, str], str] = {
    ("GET", "/v1/audit/records"): "audit.read all",
    ("GET", "/v1/audit/records/{seq}"): "audit.read all",
    ("GET", "/v1/audit/state"): "audit.read all",
    ("GET", "/v1/audit/checkpoint"): "audit.read all",
    ("POST", "/v1/audit/verify"): "audit.read all",
    ("GET", "/v1/audit/reviews"): "audit.read all",
    ("POST", "/v1/audit/reviews"): "audit.review all",
    ("GET", "/v1/audit/reviews/{review}"): "audit.read all",
    ("POST", "/v1/audit/reviews/{review}/sign-off"): "audit.review all",
}
RECORDINGS: dict[tuple[str, str], str] = {
    ("GET", "/v1/recordings"): "recordings.read any",
    ("GET", "/v1/recordings/{recording}"): "recordings.read any",
    ("POST", "/v1/recordings/erase"): "recordings.change all",
}
NATIVE: dict[tuple[str, str], str] = {
    ("GET", "/healthz"): "health",
    ("GET", "/readyz"): "health",
    ("GET", "/metrics"): "metrics.read all",
    ("GET", "/openapi.json"): "known",
    ("GET", "/v1/me"): "known",
    ("GET", "/v1/sealing-keys"): "public",
    ("GET", "/v1/models"): "models.read any",
    ("GET", "/v1/models/{model}"): "models.read model",
    ("POST", "/v1/models/{model}/predict"): "models.predict model",
    ("GET", "/v1/models/{model}/versions/{version}/files"): "models.read model",
    ("GET", "/v1/models/{model}/versions/{version}/files/report.html"): "golden.read model",
    ("GET", "/v1/models/{model}/versions/{version}/files/proof/golden/{file:path}"): "golden.read model",
    ("GET", "/v1/models/{model}/versions/{version}/files/{file:path}"): "data.export model",
    ("POST", "/v1/models/{model}/versions/{version}/predict"): "models.predict model",
    ("GET", "/v1/models/{model}/stream"): "models.predict model",
    ("GET", "/v1/models/{model}/versions/{version}/stream"): "models.predict model",
    ("GET", "/v1/models/{model}/drift"): "metrics.read all",
    ("POST", "/v1/models/{model}/drift/forget"): "models.load model",
    ("GET", "/v1/models/{model}/rollout"): "rollout.read model",
    ("PUT", "/v1/models/{model}/rollout"): "rollout.share model",
    ("DELETE", "/v1/models/{model}/rollout"): "rollout.share model",
    ("POST", "/v1/models/{model}/rollout/promote"): "rollout.promote model",
    ("POST", "/v1/models/{model}/rollout/rollback"): "rollout.promote model",
}
OPEN_INFERENCE: dict[tuple[str, str], str] = {
    ("GET", "/v2"): "known",
    ("GET", "/v2/health/live"): "health",
    ("GET", "/v2/health/ready"): "health",
    ("POST", "/v2/repository/index"): "models.read any",
    ("POST", "/v2/repository/models/{model}/load"): "models.load model",
    ("POST", "/v2/repository/models/{model}/unload"): "models.load model",
    ("GET", "/v2/models/stats"): "models.read any",
    ("GET", "/v2/models/{model}"): "models.read model",
    ("GET", "/v2/models/{model}/ready"): "models.read model",
    ("GET", "/v2/models/{model}/config"): "models.read model",
    ("GET", "/v2/models/{model}/stats"): "models.read model",
    ("POST", "/v2/models/{model}/infer"): "models.predict model",
    ("GET", "/v2/models/{model}/versions/{version}"): "models.read model",
    ("GET", "/v2/models/{model}/versions/{version}/ready"): "models.read model",
    ("GET", "/v2/models/{model}/versions/{version}/config"): "models.read model",
    ("GET", "/v2/models/{model}/versions/{version}/stats"): "models.read model",
    ("POST", "/v2/models/{model}/versions/{version}/infer"): "models.predict model",
}
CLOUDS: dict[tuple[str, str], str] = {
    ("GET", "/ping"): "health",
    ("POST", "/invocations"): "models.predict model",
    ("POST", "/score"): "models.predict model",
    ("GET", "/vertex/health"): "health",
    ("POST", "/vertex/predict"): "models.predict model",
}
NEEDS = {**PAGES, **OWN_ACCOUNT, **ADMINISTRATION, **AUDIT, **RECORDINGS, **NATIVE, **OPEN_INFERENCE, **CLOUDS}
SOCKETS = {
    "/v1/models/{model}/stream": "models.predict model",
    "/v1/models/{model}/versions/{version}/stream": "models.predict model",
}
CALLS = {
    "/inference.GRPCInferenceService/ServerLive": "health",
    "/inference.GRPCInferenceService/ServerReady": "health",
    "/inference.GRPCInferenceService/ModelReady": "models.read model",
    "/inference.GRPCInferenceService/ServerMetadata": "known",
    "/inference.GRPCInferenceService/ModelMetadata": "models.read model",
    "/inference.GRPCInferenceService/ModelInfer": "models.predict model",
    "/inference.GRPCInferenceService/ModelStreamInfer": "models.predict model",
    "/inference.GRPCInferenceService/ModelConfig": "models.read model",
    "/inference.GRPCInferenceService/ModelStatistics": "models.read model",
    "/inference.GRPCInferenceService/RepositoryIndex": "models.read any",
    "/inference.GRPCInferenceService/RepositoryModelLoad": "models.load model",
    "/inference.GRPCInferenceService/RepositoryModelUnload": "models.load model",
    "/grpc.health.v1.Health/Check": "health",
    "/grpc.health.v1.Health/List": "health",
    "/grpc.health.v1.Health/Watch": "health",
}
# What would change something is asked in a way that is refused for another reason, once it is allowed.
BODIES = {
    ("POST", "/v2/repository/models/{model}/load"): b'{"parameters": {"nonsense": 1}}',
    ("POST", "/v2/repository/models/{model}/unload"): b'{"parameters": {"nonsense": 1}}',
}
NONSENSE = b'{"nonsense": 1}'
NAMES_MODEL_IN_QUERY = ("/invocations", "/score", "/vertex/predict")
