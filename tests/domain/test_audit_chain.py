"""Sealing the audit log, and finding whatever was done to it afterwards."""

import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import DatabaseError, connection, connections, transaction

from cpm.flows.cleanup import audit_retention
from cpm.flows.identities import encrypt_secret
from cpm.lib.secrets import SecretUnreadable, load_keys
from cpm.models import Actor, AuditKey, AuditRecord, AuditSeal
from cpm.services import audit, audit_chain, audit_verification, field_keys
from cpm.services.audit_verification import verify
from tests import factories

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
pytestmark = pytest.mark.django_db


def note(count: int = 1, text: str = "") -> list[int]:
    """That many records; their ids."""
    actor = Actor.of(factories.root(), source="192.0.2.1")
    for _ in range(count):
        audit.record(actor, "user.updated", actor.user, text=text)
    return list(AuditRecord.objects.order_by("-id").values_list("pk", flat=True)[:count])[::-1]


def sealed(*batches: int) -> list[int]:
    """Batches of records, each under a seal of its own; the ids of all."""
    ids = []
    for count in batches:
        ids += note(count)
        assert audit_chain.seal(now=NOW) == count
    return ids


def tamper(*statements: str) -> None:
    """SQL by somebody who owns the database and gets round the triggers."""
    with connection.cursor() as cursor:
        # Foreign keys wait for the end of the transaction, and no trigger is altered while they wait.
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("cpm_auditrecord", "cpm_auditseal"):
            cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        for table in ("cpm_auditrecord", "cpm_auditseal"):
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER USER")


def test_a_chain_of_several_seals_is_whole_and_counts_what_is_not_sealed_yet():
    sealed(3, 1, 2)
    note(4)

    found = verify()

    assert (found.damage, found.seals, found.records, found.unsealed) == ("", 3, 6, 4)
    assert found.head == AuditSeal.objects.latest("id").hash


def test_an_empty_log_is_whole_and_nothing_to_seal_makes_no_seal():
    assert audit_chain.seal(now=NOW) == 0
    assert verify() == audit_verification.Verification()
    assert not AuditSeal.objects.exists()


def test_many_records_are_sealed_in_batches(monkeypatch):
    monkeypatch.setattr(audit_chain, "BATCH", 2)
    note(5)

    assert audit_chain.seal(now=NOW) == 5
    assert list(AuditSeal.objects.order_by("id").values_list("rows", flat=True)) == [2, 2, 1]
    assert verify().damage == ""


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("log", "'all is well'"), ("username", "'mallory'"), ("before", """'{"a": 1}'"""), ("source", "''"),
        ("event_time", "event_time + interval '1 microsecond'"), ("owner_id", "7"), ("user_id", "NULL"),
        ("request_id", "'x'"), ("mac", "repeat('0', 64)"), ("id", "id + 1000"), ("position", "99"),
    ],
)  # fmt: skip
def test_an_altered_record_is_named(column: str, value: str):
    ids = sealed(2, 3)

    tamper(f"UPDATE cpm_auditrecord SET {column} = {value} WHERE id = {ids[3]}")

    damage = verify().damage
    altered = ids[3] + 1000 if column == "id" else ids[3]
    # A record at a place that does not exist leaves a hole, and the one after it is looked at first.
    assert f"Record {altered} " in damage or (column == "position" and "place 2" in damage)


def test_a_deleted_record_is_missed_wherever_it_was():
    for place in range(3):
        with transaction.atomic():
            ids = sealed(3)
            tamper(f"DELETE FROM cpm_auditrecord WHERE id = {ids[place]}")

            seal = AuditSeal.objects.latest("id").pk
            assert verify().damage == f"The record at place {place + 1} of seal {seal} is missing."
            transaction.set_rollback(True)


def test_swapped_records_are_noticed():
    ids = sealed(3)

    tamper(
        f"UPDATE cpm_auditrecord SET position = 99 WHERE id = {ids[0]}",
        f"UPDATE cpm_auditrecord SET position = 1 WHERE id = {ids[1]}",
        f"UPDATE cpm_auditrecord SET position = 2 WHERE id = {ids[0]}",
    )

    assert f"Record {ids[1]} " in verify().damage


@pytest.mark.parametrize("place", ["4", "NULL"])
def test_an_inserted_record_is_named(place: str):
    ids = sealed(3)

    tamper(
        "INSERT INTO cpm_auditrecord (event_type, log, username, user_type, original_username, source, request_id,"
        " subject_type, before, after, seal_id, position, mac) SELECT event_type, log, username, user_type,"
        f" original_username, source, request_id, subject_type, before, after, seal_id, {place}, mac"
        f" FROM cpm_auditrecord WHERE id = {ids[2]}"
    )

    assert f"Record {AuditRecord.objects.latest('id').pk} " in verify().damage


def test_a_record_moved_into_another_seal_is_noticed():
    ids = sealed(2, 2)
    first = AuditSeal.objects.earliest("id").pk

    tamper(f"UPDATE cpm_auditrecord SET seal_id = {first}, position = 3 WHERE id = {ids[3]}")

    assert f"Record {ids[3]} " in verify().damage


def test_a_record_taken_out_of_its_seal_to_be_sealed_anew_is_missed():
    ids = sealed(2)

    tamper(f"UPDATE cpm_auditrecord SET seal_id = NULL, position = NULL, mac = '' WHERE id = {ids[0]}")
    audit_chain.seal(now=NOW)

    assert "place 1" in verify().damage


@pytest.mark.parametrize(
    "change",
    ["rows = rows + 1", "sealed_at = now()", "hash = repeat('0', 64)", "previous_hash = repeat('1', 64)",
     "rows_hash = repeat('2', 64)"],
)  # fmt: skip
def test_an_altered_seal_is_named(change: str):
    sealed(1, 1, 1)
    seal = list(AuditSeal.objects.order_by("id"))[1].pk

    tamper(f"UPDATE cpm_auditseal SET {change} WHERE id = {seal}")

    assert verify().damage == f"Seal {seal} was altered or inserted."


def test_a_removed_seal_is_noticed_with_its_records_gone_too():
    sealed(1, 1, 1)
    first, second, third = AuditSeal.objects.order_by("id").values_list("pk", flat=True)

    with transaction.atomic():
        tamper(
            f"DELETE FROM cpm_auditrecord WHERE seal_id = {second}",
            f"DELETE FROM cpm_auditseal WHERE id = {second}",
        )
        assert verify().damage == f"A seal before seal {third} was removed."
        transaction.set_rollback(True)
    tamper(
        f"DELETE FROM cpm_auditrecord WHERE seal_id = {first}",
        f"DELETE FROM cpm_auditseal WHERE id = {first}",
    )
    assert "its beginning was removed" in verify().damage


def test_a_chain_that_was_cut_off_shows_against_a_head_kept_elsewhere():
    sealed(1, 1, 1)
    last = AuditSeal.objects.latest("id")
    head = verify().head
    sealed(1)
    assert verify(head=head).damage == ""

    tamper(
        f"DELETE FROM cpm_auditrecord WHERE seal_id >= {last.pk}",
        f"DELETE FROM cpm_auditseal WHERE id >= {last.pk}",
    )

    assert verify().damage == ""
    assert head in verify(head=head).damage
    tamper("TRUNCATE cpm_auditrecord, cpm_auditseal")
    assert head in verify(head=head).damage


def test_a_chain_made_anew_with_another_key_does_not_pass():
    sealed(2)
    tamper("TRUNCATE cpm_auditrecord, cpm_auditseal, cpm_auditkey")
    sealed(2)
    assert verify().damage == ""

    AuditKey.objects.all().delete()

    with pytest.raises(audit_chain.ChainKeyMissing):
        verify()
    note()
    with pytest.raises(audit_chain.ChainKeyMissing):
        audit_chain.seal(now=NOW)


def test_rotated_field_keys_leave_the_chain_as_it_is_even_when_old_keys_are_removed(settings, tmp_path):
    path = tmp_path / "field-keys"
    path.write_bytes(Path(settings.CPM_FIELD_KEYS_FILE).read_bytes())
    path.chmod(0o600)
    settings.CPM_FIELD_KEYS_FILE = str(path)
    sealed(2)

    field_keys.rotate(actor=Actor.of(factories.root()), path=path)
    path.write_bytes(load_keys(path)[0] + b"\n")

    assert verify().damage == ""
    assert audit_chain.seal(now=NOW) == 1
    assert verify().damage == ""


def test_a_secret_that_somebody_chose_cannot_take_the_place_of_the_key():
    """Account secrets are tokens too, whose text their owner knows."""
    sealed(1)
    AuditKey.objects.update(secret=encrypt_secret("a key that I know"))

    with pytest.raises(SecretUnreadable):
        verify()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE cpm_auditrecord SET log = 'x'", "UPDATE cpm_auditrecord SET seal_id = NULL",
        "DELETE FROM cpm_auditrecord", "UPDATE cpm_auditseal SET rows = 7", "DELETE FROM cpm_auditseal",
        "UPDATE cpm_auditseal SET purged_at = now()",
    ],
)  # fmt: skip
def test_the_database_refuses_changes_that_are_none_of_sealing_and_retention(statement: str):
    sealed(1)
    note()

    with (
        pytest.raises(DatabaseError, match=r"Audit records|Seals"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(statement)

    assert verify().damage == ""


def test_what_is_not_sealed_cannot_be_deleted_even_by_a_purge():
    note()

    def purge() -> None:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT set_config('cpm.audit_purge', 'on', true)")
            cursor.execute("DELETE FROM cpm_auditrecord")

    with pytest.raises(DatabaseError, match="only deleted"):
        purge()


def test_retention_removes_whole_old_seals_and_the_chain_still_holds():
    note(2)
    audit_chain.seal(now=NOW - timedelta(days=100))
    note(3)
    audit_chain.seal(now=NOW - timedelta(days=95))
    kept = note(1)
    audit_chain.seal(now=NOW - timedelta(days=10))
    head = verify().head

    assert audit_retention.purge(before=NOW - timedelta(days=90), now=NOW) == 5
    assert audit_retention.purge(before=NOW - timedelta(days=90), now=NOW) == 0

    found = verify(head=head)
    assert (found.damage, found.purged_seals, found.purged_records, found.records, found.unsealed) == (
        "",
        2,
        5,
        1,
        1,
    )
    audit_chain.seal(now=NOW)
    assert verify(head=head).damage == ""
    assert AuditRecord.objects.earliest("id").pk == kept[0]
    assert AuditRecord.objects.latest("id").after["records"] == 5


def test_records_removed_as_if_by_retention_are_noticed():
    sealed(2, 2)
    first, second = AuditSeal.objects.order_by("id").values_list("pk", flat=True)

    with transaction.atomic():
        tamper(
            f"DELETE FROM cpm_auditrecord WHERE seal_id = {first}",
            f"UPDATE cpm_auditseal SET purged_at = now() WHERE id = {first}",
        )
        assert "knows of no such purge" in verify().damage
        transaction.set_rollback(True)
    tamper(
        f"DELETE FROM cpm_auditrecord WHERE seal_id = {second}",
        f"UPDATE cpm_auditseal SET purged_at = now() WHERE id = {second}",
    )
    assert verify().damage == f"Seal {second} is marked as purged, but seals before it are not."


def test_a_purged_seal_cannot_get_new_records():
    note(1)
    audit_chain.seal(now=NOW - timedelta(days=100))
    audit_retention.purge(before=NOW, now=NOW)
    seal = AuditSeal.objects.latest("id").pk
    planted = note(1)[0]

    tamper(f"UPDATE cpm_auditrecord SET seal_id = {seal}, position = 1 WHERE id = {planted}")

    assert verify().damage == f"Record {planted} claims to be in seal {seal}, which was purged."


@pytest.mark.django_db(transaction=True)
def test_any_number_of_sealers_make_one_chain(monkeypatch):
    monkeypatch.setattr(audit_chain, "BATCH", 3)
    note(20)
    start = threading.Barrier(4)
    counts = []

    def run() -> None:
        try:
            start.wait()
            counts.append(audit_chain.seal(now=NOW))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts.append(audit_chain.seal(now=NOW))

    found = verify()
    assert sum(counts) == 20
    assert (found.damage, found.records, found.unsealed) == ("", 20, 0)


@pytest.mark.django_db(transaction=True)
def test_a_record_whose_transaction_commits_late_goes_into_a_later_seal():
    root = factories.root()
    written, go_on = threading.Event(), threading.Event()

    def late() -> None:
        try:
            with transaction.atomic():
                audit.record(Actor.of(root), "user.updated", root, text="late")
                written.set()
                go_on.wait(10)
        finally:
            connections.close_all()

    writer = threading.Thread(target=late)
    writer.start()
    assert written.wait(10)
    note(2, text="early")
    assert audit_chain.seal(now=NOW) == 2
    go_on.set()
    writer.join()
    assert audit_chain.seal(now=NOW) == 1

    in_order = AuditRecord.objects.order_by("seal", "position").values_list("log", flat=True)
    assert list(in_order) == ["early", "early", "late"]
    assert AuditRecord.objects.get(log="late").pk < AuditRecord.objects.filter(log="early").earliest("id").pk
    assert verify().damage == ""
