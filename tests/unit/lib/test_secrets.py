import json
import multiprocessing
import os
import random
import string

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from cpm.lib import secrets

AWS_SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


def test_a_box_gives_back_what_it_was_given_and_shows_nothing_of_it():
    box = secrets.SecretBox([secrets.generate_key()])

    token = box.encrypt("pässword ✓")

    assert box.decrypt(token) == "pässword ✓"
    assert "pässword" not in token
    assert token.startswith(box.key_ids[0] + ":")


def test_two_encryptions_of_one_secret_differ():
    box = secrets.SecretBox([secrets.generate_key()])

    assert box.encrypt("same") != box.encrypt("same")


def test_rotation_moves_a_secret_to_the_newest_key_and_then_the_old_key_may_go():
    old, new = secrets.generate_key(), secrets.generate_key()
    token = secrets.SecretBox([old]).encrypt("value")
    box = secrets.SecretBox([new, old])

    rotated = box.rotate(token)

    assert box.needs_rotation(token) and not box.needs_rotation(rotated)
    assert secrets.SecretBox([new]).decrypt(rotated) == "value"
    assert box.rotate(rotated) == rotated


def test_a_secret_without_its_key_says_which_key_is_missing():
    lost = secrets.SecretBox([secrets.generate_key()])
    box = secrets.SecretBox([secrets.generate_key()])

    with pytest.raises(secrets.SecretUnreadable) as caught:
        box.decrypt(lost.encrypt("value"))

    assert lost.key_ids[0] in str(caught.value)


@pytest.mark.parametrize("token", ["", "nonsense", "ab:cd", "ab:gAAAAA", "é:é"])
def test_an_altered_value_is_unreadable_and_never_empty(token):
    box = secrets.SecretBox([secrets.generate_key()])

    with pytest.raises(secrets.SecretUnreadable):
        box.decrypt(token)


def test_a_box_never_shows_its_keys():
    key = secrets.generate_key()
    box = secrets.SecretBox([key])

    assert key.decode() not in repr(box) + str(box) + str(vars(box))


def test_a_malformed_key_is_refused_without_repeating_it():
    with pytest.raises(secrets.KeyFileError) as caught:
        secrets.SecretBox([b"not-a-key-but-private"])

    assert "not-a-key" not in str(caught.value)


def test_added_keys_come_first_in_a_file_that_only_its_owner_reads(tmp_path):
    path = tmp_path / "keys"

    first = secrets.add_key_to_file(path)
    second = secrets.add_key_to_file(path)

    assert [secrets.key_id(key) for key in secrets.load_keys(path)] == [second, first]
    assert path.stat().st_mode & 0o777 == 0o600
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["keys", "keys.lock"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_file_that_others_may_open_is_refused(tmp_path, mode):
    path = tmp_path / "keys"
    secrets.add_key_to_file(path)
    os.chmod(path, mode)

    with pytest.raises(secrets.KeyFileError, match="chmod 600"):
        secrets.load_keys(path)


@pytest.mark.parametrize("content", [b"", b"\n\n", b"short\n"])
def test_an_empty_or_broken_key_file_is_refused(tmp_path, content):
    path = tmp_path / "keys"
    path.touch(mode=0o600)
    path.write_bytes(content)

    with pytest.raises(secrets.KeyFileError):
        secrets.load_keys(path)


def test_a_missing_key_file_says_so(tmp_path):
    with pytest.raises(secrets.KeyFileError, match="cannot be read"):
        secrets.load_keys(tmp_path / "absent")


def _ensure(path, results):
    results.put(secrets.ensure_key_file(path))


def test_processes_that_start_at_once_agree_on_the_first_key(tmp_path):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    workers = [context.Process(target=_ensure, args=(tmp_path / "keys", results)) for _ in range(4)]

    for worker in workers:
        worker.start()
    found = [results.get(timeout=20) for _ in workers]
    for worker in workers:
        worker.join(20)

    assert all(keys == found[0] for keys in found)


def test_api_keys_are_recognisable_unique_and_stored_as_hashes():
    one, other = secrets.new_api_key(), secrets.new_api_key()

    assert one.startswith("cpm_") and len(one) == 47
    assert secrets.hash_api_key(one) != secrets.hash_api_key(other)
    assert secrets.hash_api_key(one) == secrets.hash_api_key(one)
    assert one[4:] not in secrets.hash_api_key(one)


@given(st.text(min_size=4), st.text(), st.text())
def test_redaction_leaves_no_trace_of_a_secret(secret, before, after):
    text = secrets.redact(before + secret + after, [secret, None, ""])

    assert secret not in text.replace(secrets.MASK, "\0") or secret in secrets.MASK


def test_redaction_knows_a_secret_inside_a_url():
    assert "a%2Fb%2Bc" not in secrets.redact("https://x/?s=a%2Fb%2Bc", ["a/b+c"])


@pytest.mark.parametrize(
    "text",
    [
        f"secret={AWS_SECRET}",
        f"calling with {AWS_SECRET} now",
        f"'aws_secret_access_key': '{AWS_SECRET}'",
        "Authorization: Bearer abc.def-ghi_jkl012",
        "Authorization: Basic cm9vdDpodW50ZXIy",
        "postgresql://cpm:hunter2secret@db:5432/cpm",
        "redis://:hunter2secret@cache/0",
        "password=hunter2secret",
        '{"password": "hunter2secret"}',
        "x-amz-security-token:" + "A1b2" * 50,
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkw.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9P",
        "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\n-----END RSA PRIVATE KEY-----",
    ],
)
def test_texts_that_look_like_secrets_are_masked(text):
    scrubbed = secrets.scrub_text(text)

    for planted in (
        AWS_SECRET,
        "hunter2secret",
        "abc.def",
        "cm9vdDpodW50",
        "A1b2A1b2",
        "dozjgNryP4",
        "MIIEow",
    ):
        assert planted not in scrubbed
    assert secrets.MASK in scrubbed


@pytest.mark.parametrize(
    "text",
    [
        "snapshot snap-0123456789abcdef0 of vol-0123456789abcdef0 completed",
        "arn:aws:iam::123456789012:role/CpmBackupRole",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "2026-11-21T05:16:18+00:00",
        "request id 8a4d1f3e-5b1c-4f9f-9d5a-0c9f5f5e7f10",
        "/var/lib/cpm/data/postgresql/base/16384/2619",
    ],
)
def test_ordinary_texts_stay_readable(text):
    assert secrets.scrub_text(text) == text


@given(st.integers())
def test_random_aws_secrets_and_api_keys_never_survive(seed):
    rng = random.Random(seed)
    aws = "".join(rng.choices(string.ascii_letters + string.digits + "/+", k=40))
    api = "cpm_" + "".join(rng.choices(string.ascii_letters + string.digits + "-_", k=43))

    scrubbed = secrets.scrub_text(f"key {aws}, and {api}!")

    assert aws not in scrubbed
    assert api not in scrubbed


def test_the_log_processor_masks_names_and_values_at_any_depth(capsys):
    logger = structlog.wrap_logger(
        structlog.PrintLogger(),
        processors=[
            structlog.processors.format_exc_info,
            secrets.scrub_secrets,
            structlog.processors.JSONRenderer(),
        ],
    )

    try:
        raise ValueError(f"could not sign with secret={AWS_SECRET}")
    except ValueError:
        logger.exception(
            "call failed",
            aws_secret_key="hunter2",
            nested={"password": ["hunter2"], "items": [f"x {AWS_SECRET}", {"session_token": "hunter2"}]},
            raw=AWS_SECRET.encode(),
            step_token="snap-1",
            access_key_id="AKIAIOSFODNN7EXAMPLE",
            object=ValueError(AWS_SECRET),
            size=7,
        )
    output = capsys.readouterr().out
    entry = json.loads(output)

    assert "hunter2" not in output and AWS_SECRET not in output
    assert entry["step_token"] == "snap-1"
    assert entry["access_key_id"] == "AKIAIOSFODNN7EXAMPLE"
    assert entry["size"] == 7
