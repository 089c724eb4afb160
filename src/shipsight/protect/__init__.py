# SPDX-License-Identifier: Apache-2.0
"""What keeps models and what they are asked from others' eyes. Needs the package cryptography. Stable."""

from shipsight.protect.sealing import (
    CARRIED_HEADERS,
    HEADER_BYTES,
    MEDIA_TYPE,
    SUITE,
    WINDOW_MS,
    OpenedRequest,
    PlainAnswer,
    PlainRequest,
    PublicSealingKey,
    ReplyKey,
    SealedFor,
    SealedProtocol,
    SealingKey,
    open_answer,
    open_request,
    refused_request,
    seal_answer,
    seal_request,
)
from shipsight.protect.sealing_identity import SealingIdentity, SealingPin, open_key_list

__all__ = [
    "CARRIED_HEADERS",
    "HEADER_BYTES",
    "MEDIA_TYPE",
    "SUITE",
    "WINDOW_MS",
    "OpenedRequest",
    "PlainAnswer",
    "PlainRequest",
    "PublicSealingKey",
    "ReplyKey",
    "SealedFor",
    "SealedProtocol",
    "SealingIdentity",
    "SealingKey",
    "SealingPin",
    "open_answer",
    "open_key_list",
    "open_request",
    "refused_request",
    "seal_answer",
    "seal_request",
]
