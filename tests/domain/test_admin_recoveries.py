"""What the admin shows of a recovery from S3, and its button."""

import pytest
from django.urls import reverse
from django.utils import timezone

from cpm.models import Actor, AuditRecord, Job, Recovery
from cpm.services import recoveries
from tests import factories
from tests.domain.test_admin import _quiet, client_of, list_of, page_of

pytestmark = pytest.mark.django_db

__all__ = ["_quiet"]


@pytest.fixture
def owner():
    return factories.root()


@pytest.fixture
def row(owner):
    """The record of a volume's snapshot with an archived copy."""
    made = factories.snapshot(factories.backup(factories.policy(factories.account(owner))), capacity=1)
    factories.s3_copy(made, tier="A", archive_class="GLACIER")
    return made


@pytest.fixture
def recovery(owner, row):
    """A recovery from S3 that has come half-way."""
    started = recoveries.recover_volume_from_s3(
        actor=Actor.of(owner), snapshot=row, request={}, credentials=None, now=timezone.now()
    )
    Recovery.objects.filter(pk=started.pk).update(
        s3_status="P", s3_progress=[100, 7], retrieve_status="S", retrieve_progress=[100]
    )
    return started


def abort_of(recovery):
    return reverse("admin:cpm_recovery_abort", args=[recovery.pk])


def test_a_recovery_shows_how_far_its_volumes_are(owner, row, recovery):
    native = factories.recovery(row)
    client = client_of(owner)

    shown = client.get(page_of(recovery)).content.decode()
    other = client.get(page_of(native)).content.decode()
    listed = client.get(f"{list_of(Recovery)}?from_s3__exact=1").content.decode()

    assert "Archive: Completed Successfully (100 %); Volumes: In Progress (100 %, 7 %)" in shown
    assert abort_of(recovery) in shown
    assert "Transfers from S3" in other and "Volumes: " not in other
    assert page_of(recovery) in listed and page_of(native) not in listed


def test_the_abort_button_asks_first_and_stops_it_then(owner, recovery):
    client = client_of(owner)

    asked = client.get(abort_of(recovery))
    assert asked.status_code == 200 and not Job.objects.filter(abort_requested_at__isnull=False).exists()
    done = client.post(abort_of(recovery), follow=True).content.decode()

    assert "The recovery was asked to stop." in done and "Volumes: Aborting" in done
    assert Job.objects.get(kind="recovery").abort_requested_at is not None
    assert AuditRecord.objects.filter(event_type="recovery.aborted").count() == 1


def test_what_is_over_is_not_aborted_and_the_page_says_so(owner, recovery):
    Job.objects.update(state="succeeded", finished_at=timezone.now())

    answer = client_of(owner).post(abort_of(recovery))

    assert answer.status_code == 200 and "The recovery is not running." in answer.content.decode()


def test_a_recovery_out_of_reach_is_not_aborted(recovery):
    answer = client_of(factories.user()).post(abort_of(recovery))

    assert answer.status_code == 403
    assert not Job.objects.filter(abort_requested_at__isnull=False).exists()
