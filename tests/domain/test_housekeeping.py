"""What the fleet tidies up now and then."""

from datetime import timedelta

import pytest
from django.utils import timezone

from cpm.models import BackupTally, StoredAnswer
from tests import factories
from workers import tasks


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
