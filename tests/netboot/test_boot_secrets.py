"""Boot secrets: one boot, one secret, one boot id."""

import hmac
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netboot.boot_secrets import BootSecrets, SecretsStateError, Verdict


def minter():
    numbers = itertools.count(1)
    return lambda size: f"{next(numbers):0{2 * size}x}"


def proof(secret, boot_id="boot-1", board="b1"):
    message = f"boardhand-register\n{board}\n{boot_id}\n52:54:00:77:00:01".encode()
    return boot_id, hmac.new(secret.encode(), message, "sha256").hexdigest(), message


@pytest.fixture
def secrets():
    return BootSecrets(mint=minter())


def test_one_boot(secrets):
    secret, minted = secrets.fetch("b1")
    assert minted
    assert len(secret) == 64
    assert secrets.fetch("b1") == (secret, False)
    assert secrets.verify("b1", *proof(secret)) is Verdict.OK
    assert secrets.verify("b1", *proof(secret)) is Verdict.AGAIN
    assert secrets.verify("b1", *proof(secret, "boot-2")) is Verdict.OTHER_BOOT
    assert Verdict.AGAIN.accepted
    assert not Verdict.OTHER_BOOT.accepted


def test_after_redemption_the_next_fetch_is_a_new_boot(secrets):
    first, _ = secrets.fetch("b1")
    secrets.verify("b1", *proof(first))
    second, minted = secrets.fetch("b1")
    assert minted
    assert second != first
    assert secrets.verify("b1", *proof(first)) is Verdict.AGAIN  # a fetch alone shuts nobody out
    assert secrets.verify("b1", *proof(second, "boot-2")) is Verdict.OK
    assert secrets.verify("b1", *proof(first)) is Verdict.WRONG_PROOF


def test_new_boot_voids_what_was_not_used(secrets):
    first, _ = secrets.fetch("b1")
    assert secrets.new_boot("b1")
    assert not secrets.new_boot("b1")
    assert secrets.verify("b1", *proof(first)) is Verdict.NO_SECRET
    second, minted = secrets.fetch("b1")
    assert minted
    assert secrets.verify("b1", *proof(first)) is Verdict.WRONG_PROOF
    assert secrets.verify("b1", *proof(second)) is Verdict.OK


def test_wrong_proofs(secrets):
    secret, _ = secrets.fetch("b1")
    boot_id, right, message = proof(secret)
    for wrong in ("", "0" * 64, right[:-1], right + "0", "é" * 64, "\udc80"):
        assert secrets.verify("b1", boot_id, wrong, message) is Verdict.WRONG_PROOF
    assert secrets.verify("b1", boot_id, right, message + b"x") is Verdict.WRONG_PROOF
    assert secrets.verify("b2", boot_id, right, message) is Verdict.NO_SECRET
    no_key = hmac.new(("0" * 64).encode(), message, "sha256").hexdigest()
    assert secrets.verify("b2", boot_id, no_key, message) is Verdict.NO_SECRET
    assert secrets.verify("b1", boot_id, right.upper(), message) is Verdict.OK


def test_real_secrets_are_random():
    secrets = BootSecrets()
    assert secrets.fetch("b1")[0] != secrets.fetch("b2")[0]
    assert len(secrets.fetch("b1")[0]) == 64


@pytest.mark.parametrize(
    "state",
    [
        {"version": 2, "boards": {}},
        {"version": 1},
        {"version": 1, "boards": {"b1": 7}},
        {"version": 1, "boards": {"b1": {"pending": "short"}}},
        {"version": 1, "boards": {"b1": {"pending": None, "redeemed": "Z" * 64}}},
        {"version": 1, "boards": {"b1": {"boot_id": 7}}},
    ],
)
def test_damaged_state_is_named(state):
    with pytest.raises(SecretsStateError, match="boot secrets"):
        BootSecrets(state)


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["fetch", "new_boot", "verify", "restart"]), st.integers(0, 3)), max_size=40))
def test_no_secret_ever_serves_two_boots(walk):
    mint = minter()
    secrets = BootSecrets(mint=mint)
    known, users = [], {}
    for action, number in walk:
        if action == "fetch":
            known.append(secrets.fetch("b1")[0])
            assert known[-1] not in users  # what is handed out was never used
        elif action == "new_boot":
            secrets.new_boot("b1")
        elif action == "restart":
            secrets = BootSecrets(json.loads(json.dumps(secrets.state())), mint=mint)
        elif known:
            secret, boot_id = known[-1 - number % len(known)], f"boot-{number}"
            if secrets.verify("b1", *proof(secret, boot_id)).accepted:
                assert users.setdefault(secret, boot_id) == boot_id
