"""The signature of usage reports: whatever is changed in a file shows."""

import io
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from cpm import cli
from cpm.lib.secrets import KeyFileError, add_key_to_file
from cpm.reports import signature
from cpm.reports.signature import Verdict
from tests import factories
from tests.api.caller import Caller, codes

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
ROWS = [b"User,Instances\n", b"ann,1\n", b"bob,2\n", b'"c\nd",3\n']
LETTERS = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def signed(rows: list[bytes] = ROWS) -> list[bytes]:
    return list(signature.signed(iter(rows), KEY))


def verdict(content: bytes, key: Ed25519PrivateKey = KEY) -> Verdict:
    return signature.verify(io.BytesIO(content), [key.public_key()])


@pytest.mark.parametrize("rows", [ROWS, ROWS[:1], [b"x" * 1_000_000 + b"\n", b"y\n"], [b"".join(ROWS)]])
def test_a_report_as_it_was_sent_is_good(rows):
    assert verdict(b"".join(signed(rows))) == Verdict.GOOD


def test_the_pieces_in_which_a_report_is_sent_do_not_matter():
    whole = b"".join(ROWS)

    assert b"".join(signed([whole])) == b"".join(signed([whole[i : i + 1] for i in range(len(whole))]))


def test_every_single_changed_byte_shows():
    content = b"".join(signed())

    for place in range(len(content)):
        for changed in {content[place] ^ 1, content[place] ^ 128, ord("A"), ord("\n")} - {content[place]}:
            altered = content[:place] + bytes([changed]) + content[place + 1 :]
            assert verdict(altered) != Verdict.GOOD, (place, altered)


def test_bits_of_the_signature_that_mean_nothing_show_too():
    content = b"".join(signed())
    last = LETTERS.index(content[-4:-3])

    for step in range(1, 16):
        other = LETTERS[last ^ step : (last ^ step) + 1]
        assert verdict(content[:-4] + other + content[-3:]) == Verdict.ALTERED


@pytest.mark.parametrize(
    "change",
    [
        lambda lines: lines[:1] + lines[2:],
        lambda lines: [lines[0], lines[2], lines[1], *lines[3:]],
        lambda lines: [*lines[:2], lines[1], *lines[2:]],
        lambda lines: [*lines[:-1], b"eve,9\n", lines[-1]],
        lambda lines: [*lines, b"eve,9\n"],
        lambda lines: [*lines, b"\n"],
        lambda lines: [*lines, lines[-1]],
        lambda lines: [*lines[:-1], lines[-1].rstrip(b"\n")],
        lambda lines: [line.replace(b"\n", b"\r\n") for line in lines],
        lambda lines: [b"\xef\xbb\xbf", *lines],
        lambda lines: lines[-1:],
    ],
)
def test_rows_removed_moved_doubled_or_added_show(change):
    assert verdict(b"".join(change(signed()))) == Verdict.ALTERED


def test_a_file_without_a_signature_is_not_signed():
    assert verdict(b"".join(ROWS)) == Verdict.NOT_SIGNED
    assert verdict(b"") == Verdict.NOT_SIGNED
    assert verdict(os.urandom(10_000).replace(b"Sig", b"sig")) == Verdict.NOT_SIGNED


def test_another_servers_signature_is_not_ours():
    content = b"".join(signed())
    ours = signature.key_id(KEY.public_key()).encode()
    other = Ed25519PrivateKey.generate()
    renamed = content.replace(ours, signature.key_id(other.public_key()).encode())

    assert verdict(content, other) == Verdict.UNKNOWN_KEY
    assert verdict(renamed, other) == Verdict.ALTERED


def test_a_row_that_looks_like_a_signature_is_only_a_row():
    lines = signed([*ROWS, signed()[-1]])

    assert verdict(b"".join(lines)) == Verdict.GOOD
    assert verdict(b"".join(lines[:-1])) == Verdict.GOOD
    assert verdict(b"".join([*lines[:-2], lines[-1]])) == Verdict.ALTERED


def test_keys_are_made_once_kept_private_and_can_be_replaced(tmp_path):
    path = tmp_path / "new" / "report-keys"

    (first,) = signature.private_keys(path, make=True)
    (again,) = signature.private_keys(path, make=True)
    add_key_to_file(path)
    held = signature.private_keys(path, make=False)
    old_report = b"".join(signature.signed(iter(ROWS), first))

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert first.private_bytes_raw() == again.private_bytes_raw() == held[1].private_bytes_raw()
    assert signature.verify(io.BytesIO(old_report), [key.public_key() for key in held]) == Verdict.GOOD


def test_a_key_file_that_others_can_read_is_refused(tmp_path):
    path = tmp_path / "report-keys"
    signature.private_keys(path, make=True)
    path.chmod(0o644)

    with pytest.raises(KeyFileError, match="0600"):
        signature.private_keys(path, make=True)


# The command.


@pytest.fixture
def _keys(settings, monkeypatch, tmp_path):
    settings.CPM_REPORT_KEYS_FILE = str(tmp_path / "report-keys")
    monkeypatch.setattr(cli, "join_running_stack", lambda _: {})


def cpm(*arguments: str) -> Result:
    return CliRunner().invoke(cli.app, ["report", *arguments])


@pytest.fixture
def report(_keys, db, tmp_path) -> Path:
    """A usage report as a client has downloaded it."""
    root = factories.root()
    factories.target(factories.policy(factories.account(root)))
    status, content = Caller(root, accept="text/csv")("GET", "reports/usage/detailed/")
    assert status == 200
    path = tmp_path / "report.csv"
    path.write_bytes(content)
    return path


def test_the_command_says_good_altered_and_not_signed(report, tmp_path):
    altered, unsigned = tmp_path / "altered.csv", tmp_path / "unsigned.csv"
    lines = report.read_bytes().splitlines(keepends=True)
    altered.write_bytes(b"".join([lines[0], lines[1].replace(b",1,", b",0,", 1), *lines[2:]]))
    unsigned.write_bytes(b"".join(lines[:-1]))

    answers = [cpm("verify", str(path)) for path in (report, altered, unsigned)]

    assert [(answer.exit_code, answer.output.split(":")[0]) for answer in answers] == [
        (0, "Good"), (1, "Altered"), (2, "Not signed"),
    ]  # fmt: skip


@pytest.mark.usefixtures("_keys")
def test_the_command_checks_offline_with_the_public_key(report, settings, tmp_path, django_db_blocker):
    public = cpm("key").output.strip()
    settings.CPM_REPORT_KEYS_FILE = str(tmp_path / "another-machine")

    with django_db_blocker.block():
        good = cpm("verify", str(report), "--key", public)
        other = cpm("verify", str(report), "--key", signature.show(Ed25519PrivateKey.generate().public_key()))
    nothing = cpm("verify", str(report))

    assert (good.exit_code, other.exit_code) == (0, 1)
    assert "another key" in other.output
    assert nothing.exit_code == 3
    assert not Path(settings.CPM_REPORT_KEYS_FILE).exists()


def test_the_command_says_what_it_cannot_read(report, tmp_path):
    for arguments in ([str(tmp_path / "none")], [str(tmp_path)], [str(report), "--key", "nonsense"]):
        answer = cpm("verify", *arguments)

        assert (answer.exit_code, "Traceback" in answer.output) == (3, False)


def test_a_key_that_cannot_be_used_is_said_and_json_still_answers(settings, report, tmp_path):
    settings.CPM_REPORT_KEYS_FILE = str(report / "below-a-file")
    root = factories.root()

    status, content = Caller(root, accept="text/csv")("GET", "reports/usage/")

    assert (status, codes(content)) == (412, {"non_field_errors": ["report_key_unusable"]})
    assert str(report) not in str(content)
    assert Caller(root)("GET", "reports/usage/")[0] == 200
