"""Recovery from the archive: copies in Glacier are retrieved first."""


import pytest

from cpm.flows.s3 import restore, retrieve
from cpm.models import S3Copy
from cpm.services import recoveries
from tests.domain.copying import BUCKET
from tests.domain.recovering import (
    ids,
    left_over,
)
from tests.domain.restoring import (
    archive,
    copy_of_volume,
    packs,
    recover,
    start,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


def test_an_archived_copy_is_retrieved_first_with_few_requests(world, aws):
    volume, row, copy = copy_of_volume(world, aws)
    add_packs(world, 20)
    archive(world, copy)
    aws.timing(retrieval_seconds=1)
    before = aws.last_call()

    recovery = recover(world, row, retrieve_options={"retrieval_tier": "E", "days_to_keep": 2})

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)
    assert (recovery.retrieve_status, recovery.retrieve_progress) == ("S", [100])
    copy.refresh_from_db()
    assert copy.retrieve_status == "available"
    assert 1.9 < (copy.retrieve_expiration - recovery.recovery_time).total_seconds() / 86400 < 2.1
    actions = [call["action"] for call in aws.calls(before)]
    assert actions.count("RestoreObject") == 21
    # A batch is looked at twice at most, and each look that finds something missing costs one more.
    assert actions.count("HeadObject") < 2 * 21 + 10


def add_packs(world, count):
    """Further packs of which the copy needs nothing."""
    s3, [key] = world.aws.client("s3"), packs(world)
    for number in range(count):
        s3.copy_object(Bucket=BUCKET, Key=f"{key}{number:02d}", CopySource={"Bucket": BUCKET, "Key": key})


def test_what_was_retrieved_and_has_gone_again_is_retrieved_anew(world, aws, monkeypatch):
    volume, row, copy = copy_of_volume(world, aws)
    archive(world, copy)
    whole = restore._slice

    def too_late(*arguments):
        monkeypatch.setattr(restore, "_slice", whole)
        archive(world, copy)
        return whole(*arguments)

    monkeypatch.setattr(restore, "_slice", too_late)
    failed = recover(world, row, expect="F", retrieve_options={"retrieval_tier": "B", "days_to_keep": 1})
    copy.refresh_from_db()
    assert "archived again" in failed.outcome and copy.retrieve_status == "expired"
    assert left_over(world) == []

    assert aws.fingerprint(ids(recover(world, row))[0]) == aws.fingerprint(volume)


def test_a_slow_listing_does_not_keep_a_retrieval_from_going_on(world, aws, monkeypatch):
    volume, row, copy = copy_of_volume(world, aws)
    add_packs(world, 3)
    archive(world, copy)
    monkeypatch.setattr(retrieve, "BATCH", 1)
    monkeypatch.setattr(retrieve, "SLICE_SECONDS", 0)

    recovery = recover(world, row, retrieve_options={"retrieval_tier": "E", "days_to_keep": 2})

    assert aws.fingerprint(ids(recovery)[0]) == aws.fingerprint(volume)


def test_an_aborted_retrieval_is_not_shown_as_going_on(world, aws):
    _, row, copy = copy_of_volume(world, aws)
    archive(world, copy)
    aws.timing(retrieval_seconds=60)
    recovery = start(world, row)
    for _ in range(6):
        world.work()
    copy.refresh_from_db()
    assert copy.retrieve_status == "in_progress"

    recoveries.abort_from_s3(actor=world.actor, recovery=recovery)
    world.run()

    copy.refresh_from_db()
    recovery.refresh_from_db()
    assert (recovery.status, recovery.retrieve_status, copy.retrieve_status) == ("F", "A", "")


def test_a_copy_that_can_be_read_stays_so_while_its_stay_is_prolonged(world, aws, monkeypatch):
    _, row, copy = copy_of_volume(world, aws)
    archive(world, copy)
    recover(world, row)
    seen = []
    whole = retrieve._Pass.ask

    def ask(self):
        seen.append(S3Copy.objects.get(pk=copy.pk).retrieve_status)
        return whole(self)

    monkeypatch.setattr(retrieve._Pass, "ask", ask)
    recover(world, row)

    assert seen == ["available"]
