"""Identifier, activation key, certificate, metadata and proxy over REST."""

import re
from uuid import UUID

import orjson
import pytest
from cryptography import x509

from cpm.flows.identities import decrypt_secret
from cpm.jobs import queue
from cpm.jobs.kinds import StepSpec
from cpm.lib.states import Role, SnapshotStatus
from cpm.models import AuditRecord, Job, ProxySettings, ServerSettings
from tests import certificates, factories
from tests.api import facts
from tests.api.caller import Caller, codes

pytestmark = pytest.mark.django_db

ADDRESSES = [
    ("POST", "activation_key"), ("GET", "cpm_certificate"), ("GET", "cpm_metadata"), ("GET", "identifier"),
    ("POST", "identifier"), ("PUT", "identifier"), ("GET", "proxy"), ("POST", "proxy"), ("POST", "proxy/test_connection"),
]  # fmt: skip
KEY = "ABCD-1234-EFGH-5678"
PASSWORD = "planted-proxy-password"


@pytest.mark.parametrize(("method", "noun"), ADDRESSES)
def test_they_are_for_root_alone(method, noun):
    delegate = factories.delegate(factories.root(), allow_settings_changes=True)

    for user in (delegate, factories.user(), factories.user(Role.MANAGED)):
        assert Caller(user)(method, f"settings/{noun}/", None if method == "GET" else {})[0] == 403


# -- identifier -------------------------------------------------------------------------------------------


def _identifier(call: Caller) -> dict[str, str]:
    return call("GET", "settings/identifier/")[1]


def test_put_renames_and_keeps_the_uuid():
    call = Caller(factories.root())
    before = _identifier(call)

    status, after = call("PUT", "settings/identifier/", {"cpm_name": "backup-1"})

    facts.check("23.24", before)
    facts.check("23.25", after)
    assert (status, after) == (200, {"cpm_name": "backup-1", "cpm_uuid": before["cpm_uuid"]})


def test_post_makes_a_new_uuid_while_nothing_carries_the_old_one():
    call = Caller(factories.root())
    before = _identifier(call)

    status, after = call("POST", "settings/identifier/", {"cpm_name": "backup-1"})

    facts.check("23.23", after)
    assert status == 201 and after["cpm_name"] == "backup-1"
    assert UUID(after["cpm_uuid"]) and after["cpm_uuid"] != before["cpm_uuid"]
    record = AuditRecord.objects.get(event_type="identifier.renewed")
    assert (record.before["server_id"], record.after["server_id"]) == (before["cpm_uuid"], after["cpm_uuid"])


def test_post_asks_for_confirmation_while_snapshots_carry_the_old_uuid():
    root = factories.root()
    call = Caller(root)
    before = _identifier(call)
    snapshot = factories.snapshot(
        factories.backup(factories.policy(factories.account(root))),
        aws_id="snap-1",
        status=SnapshotStatus.COMPLETED,
    )
    body = {"cpm_name": "backup-1"}

    status, refused = call("POST", "settings/identifier/", body)
    wrong, _ = call("POST", "settings/identifier/", body, **{"X-Confirm-Identifier": "yes"})
    unchanged = _identifier(call)
    confirmed, after = call(
        "POST", "settings/identifier/", body, **{"X-Confirm-Identifier": before["cpm_uuid"]}
    )

    assert (status, wrong, confirmed) == (400, 400, 201)
    assert codes(refused) == {"cpm_uuid": ["confirmation_required"]}
    message = refused["errors"][0]["cpm_uuid"][0]["message"]
    assert "1 snapshot" in message and "PUT" in message and "X-Confirm-Identifier" in message
    assert unchanged == before and after["cpm_uuid"] != before["cpm_uuid"]
    snapshot.status = SnapshotStatus.DELETED
    snapshot.save()
    assert call("POST", "settings/identifier/", body)[0] == 201


def test_the_uuid_stays_while_jobs_are_going_on():
    root = factories.root()
    spec = queue.JobSpec("backup", "backup", 1, [StepSpec("one")], user_id=root.pk)
    queue.create_jobs([spec], engine_queues={"one": "backup"})
    call = Caller(root)

    status, refused = call("POST", "settings/identifier/", {"cpm_name": "backup-1"})

    assert (status, codes(refused)) == (400, {"non_field_errors": ["work_in_progress"]})
    assert Job.objects.exists()


@pytest.mark.parametrize("name", ["", "x" * 129, "two\nlines", None])
def test_a_name_is_one_line_of_up_to_128_characters(name):
    call = Caller(factories.root())

    for method in ("PUT", "POST"):
        status, refused = call(method, "settings/identifier/", {"cpm_name": name})
        assert status == 400 and list(codes(refused)) == ["cpm_name"]


# -- activation key ---------------------------------------------------------------------------------------


def test_an_activation_key_is_kept_encrypted_and_never_shown():
    call = Caller(factories.root())

    status, content = call("POST", "settings/activation_key/", {"activation_key": KEY})

    stored = ServerSettings.objects.get().activation_key
    record = AuditRecord.objects.get(event_type="activation_key.updated")
    assert (status, content) == (201, b"")
    assert KEY not in stored and decrypt_secret(stored) == KEY
    assert KEY not in str(record.__dict__)


@pytest.mark.parametrize("key", ["short", "with a space", "x" * 1025, "tab\tinside-it", "ünïcode-key"])
def test_what_cannot_be_a_key_is_refused(key):
    status, refused = Caller(factories.root())("POST", "settings/activation_key/", {"activation_key": key})

    assert status == 400 and list(codes(refused)) == ["activation_key"]
    assert not ServerSettings.objects.exclude(activation_key="").exists()


# -- downloads --------------------------------------------------------------------------------------------


def _download(call: Caller, noun: str):
    return call.client.get(f"/api/settings/{noun}/")


@pytest.mark.parametrize("accept", ["application/json;", "*/*", "application/x-pem-file"])
def test_the_certificate_is_a_pem_file_without_the_key_beside_it(settings, tmp_path, accept):
    certificate, key = certificates.write(tmp_path)
    both = tmp_path / "both.pem"
    both.write_bytes(key.read_bytes() + certificate.read_bytes())
    settings.CPM_TLS_CERTIFICATE_FILE = str(both)

    answer = _download(Caller(factories.root(), accept=accept), "cpm_certificate")

    assert answer.status_code == 200
    assert answer["Content-Type"] == "application/x-pem-file"
    assert answer["Content-Disposition"] == 'attachment; filename="cpm-certificate.pem"'
    assert x509.load_pem_x509_certificate(answer.content).subject.rfc4514_string() == "CN=localhost"
    assert b"PRIVATE" not in answer.content


@pytest.mark.parametrize("content", [None, b"", b"no certificate", b"\xff\xfe"])
def test_without_a_certificate_the_answer_says_how_to_get_one(settings, tmp_path, content):
    path = tmp_path / "certificate.pem"
    if content is not None:
        path.write_bytes(content)
    settings.CPM_TLS_CERTIFICATE_FILE = "" if content is None else str(path)

    answer = _download(Caller(factories.root()), "cpm_certificate")

    refused = orjson.loads(answer.content)
    assert answer.status_code == 404
    assert codes(refused) == {"non_field_errors": ["no_certificate"]}
    assert "CPM_TLS_CERTIFICATE_FILE" in answer.content.decode()


def test_metadata_is_a_file_that_tells_versions_and_numbers_and_no_secrets(settings):
    root = factories.root()
    factories.policy(factories.account(root))
    call = Caller(root)
    call("POST", "settings/activation_key/", {"activation_key": KEY})
    call("POST", "settings/proxy/", {"address": "proxy", "port": 3128, "user": "me", "password": PASSWORD})

    answer = _download(call, "cpm_metadata")

    shown = orjson.loads(answer.content)
    assert answer["Content-Disposition"] == 'attachment; filename="cpm-metadata.json"'
    assert shown["cpm_uuid"] == str(ServerSettings.objects.get().server_id)
    assert shown["api_version"] == "1.5.0" and re.match(r"\d+", shown["database"]["version"])
    assert shown["counts"]["policies"] == 1 and shown["counts"]["users"] == 1
    assert shown["settings"]["activation_key_stored"] is True and shown["features"]["vpc"] is True
    row, proxy = ServerSettings.objects.get(), ProxySettings.objects.get()
    for secret in (
        KEY,
        PASSWORD,
        row.activation_key,
        proxy.password,
        settings.SECRET_KEY,
        settings.REDIS_URL,
    ):
        assert secret not in answer.content.decode()


# -- proxy ------------------------------------------------------------------------------------------------


def test_the_proxy_is_read_and_changed_and_its_password_never_shown():
    call = Caller(factories.root())
    body = {"address": "proxy.example.com", "port": 3128, "user": "me", "password": PASSWORD, "enabled": True}

    _, before = call("GET", "settings/proxy/")
    status, after = call("POST", "settings/proxy/", body)
    partly, kept = call("POST", "settings/proxy/", {"enabled": False})

    facts.check("23.47", before)
    facts.check("23.46", after)
    assert (status, partly) == (201, 201)
    assert after == {"address": "proxy.example.com", "port": 3128, "user": "me", "enabled": True}
    assert kept == {**after, "enabled": False}
    assert decrypt_secret(ProxySettings.objects.get().password) == PASSWORD


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"address": "http://proxy"}, "address"),
        ({"port": 70000}, "port"),
        ({"port": -1}, "port"),
        ({"user": "a:b"}, "user"),
        ({"password": "ü"}, "password"),
        ({"enabled": True}, "address"),
    ],
)
def test_nonsense_is_a_400_that_names_the_field(wrong, field):
    call = Caller(factories.root())

    for address in ("proxy", "proxy/test_connection") if wrong != {"enabled": True} else ("proxy",):
        status, refused = call("POST", f"settings/{address}/", wrong)
        assert status == 400 and field in codes(refused)


def test_a_failed_connection_is_a_400_that_says_why():
    body = {"address": "127.0.0.1", "port": 1}

    status, refused = Caller(factories.root())("POST", "settings/proxy/test_connection/", body)

    assert (status, codes(refused)) == (400, {"address": ["proxy_refused"]})
    assert "127.0.0.1:1" in refused["errors"][0]["address"][0]["message"]
