# SPDX-License-Identifier: Apache-2.0
"""HPKE as it is used here agrees with the published vectors, as far as the interface of `cryptography` allows.

That interface takes no associated data and chooses the sender's key itself, while every published ciphertext has associated data and
a given sender's key. So a vector's ciphertext cannot be opened as it stands, nor made again. What can be shown: the receiver's half
(KEM, key schedule, first nonce) comes to the published key and nonce, since it opens what was encrypted under exactly these; and the
sender's half is opened by that receiver's half. The vectors' own ciphertexts are opened under key and nonce directly, so that a
misprint here would be seen.
"""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

VECTORS = {
    "RFC 9180, A.1.1 (AES-128-GCM)": (AEAD.AES_128_GCM, {
        "skRm": "4612c550263fc8ad58375df3f557aac531d26850903e55a9f23f21d8534e8ac8",
        "enc": "37fda3567bdbd628e88668c3c8d7e97d1d1253b6d4ea6d44c150f741f1bf4431",
        "info": "4f6465206f6e2061204772656369616e2055726e",
        "key": "4531685d41d65f03dc48f6b8302c05b0",
        "base_nonce": "56d890e5accaaf011cff4b7d",
        "aad": "436f756e742d30",
        "pt": "4265617574792069732074727574682c20747275746820626561757479",
        "ct": "f938558b5d72f1a23810b4be2ab4f84331acc02fc97babc53a52ae8218a355a96d8770ac83d07bea87e13c512a",
    }),
    "its test-vectors.json (AES-256-GCM)": (AEAD.AES_256_GCM, {
        "skRm": "497b4502664cfea5d5af0b39934dac72242a74f8480451e1aee7d6a53320333d",
        "enc": "6c93e09869df3402d7bf231bf540fadd35cd56be14f97178f0954db94b7fc256",
        "info": "4f6465206f6e2061204772656369616e2055726e",
        "key": "f50b0609186798729ed0564b36ef2ef8044f1f9d05636874d1f46c819c7a669f",
        "base_nonce": "151d9929e2449747889bc923",
        "aad": "436f756e742d30",
        "pt": "4265617574792069732074727574682c20747275746820626561757479",
        "ct": "e5d84cd531cfb583096e7cfa9641bd3079cf3a91cda813c52deb5f512be9931980a41de125a925cdad859d5b7a",
    }),
}  # fmt: skip
"""Mode base, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256; sequence number 0."""


@pytest.mark.parametrize(("aead", "given"), VECTORS.values(), ids=VECTORS)
def test_receiver_comes_to_the_published_key_and_nonce(aead: AEAD, given: dict[str, str]) -> None:
    vector = {name: bytes.fromhex(text) for name, text in given.items()}
    under = AESGCM(vector["key"])
    assert under.decrypt(vector["base_nonce"], vector["ct"], vector["aad"]) == vector["pt"]
    suite = Suite(KEM.X25519, KDF.HKDF_SHA256, aead)
    key = X25519PrivateKey.from_private_bytes(vector["skRm"])
    sealed = vector["enc"] + under.encrypt(vector["base_nonce"], vector["pt"], None)
    assert suite.decrypt(sealed, key, vector["info"]) == vector["pt"]
    for wrong_info in (b"", vector["info"][:-1], vector["info"] + b"\0"):
        with pytest.raises(InvalidTag):
            suite.decrypt(sealed, key, wrong_info)
    # As published, with associated data: refused, rather than opened without looking at it.
    with pytest.raises(InvalidTag):
        suite.decrypt(vector["enc"] + vector["ct"], key, vector["info"])
    own = suite.encrypt(vector["pt"], key.public_key(), vector["info"])
    assert suite.decrypt(own, key, vector["info"]) == vector["pt"]
