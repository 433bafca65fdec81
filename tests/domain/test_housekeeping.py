"""What the fleet tidies up now and then."""

from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.models import AuditRecord, AuditSeal, BackupTally, StoredAnswer
from tests import factories
from workers import tasks


@pytest.mark.django_db
def test_the_fleet_seals_the_audit_log_and_survives_a_key_file_that_does_not_do(settings, tmp_path):
    factories.audit_record()
    tasks.seal_audit_log()
    factories.audit_record()
    settings.CPM_FIELD_KEYS_FILE = str(tmp_path / "missing")

    tasks.seal_audit_log()

    assert AuditRecord.objects.filter(seal=None).count() == 1
    assert AuditSeal.objects.get().rows == 1


@pytest.mark.django_db
def test_housekeeping_merges_the_tally_and_forgets_old_answers():
    policy = factories.policy()
    for _ in range(3):
        factories.backup(policy)
    now = timezone.now()
    for hours in (1, 30):
        StoredAnswer.objects.create(
            user=policy.user,
            key=str(hours),
            path="/",
            body_hash="",
            status=202,
            created_at=now - timedelta(hours=hours),
        )

    tasks.housekeeping()

    assert sorted(BackupTally.objects.values_list("n", flat=True)) == [3, 3]
    assert list(StoredAnswer.objects.values_list("key", flat=True)) == ["1"]
