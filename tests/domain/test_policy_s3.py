"""What options for copies in S3 cost beyond need, and what happens when their repository goes at the same moment."""

import threading

import pytest
from django.db import connection, transaction

from cpm.lib.errors import ValidationFailed
from cpm.models import Actor, Policy
from cpm.services import policy_s3, repositories
from tests import factories

FIXED = {"s3_enabled": True, "s3_keep_by_time": True, "s3_keep_time": 1, "s3_keep_time_unit": "O"}
ARCHIVED = {**FIXED, "archive_enabled": True, "archive_keep": 1, "archive_keep_unit": "Y"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (FIXED, []),
        ({**FIXED, "s3_enabled": False, "s3_storage_class": "STANDARD_IA", "s3_keep_by_time": False}, []),
        ({**FIXED, "s3_storage_class": "STANDARD_IA"}, []),
        ({"s3_enabled": True, "s3_storage_class": "STANDARD_IA"}, ["make sure that 30 generations"]),
        (ARCHIVED, []),
        ({**ARCHIVED, "archive_keep": 3, "archive_keep_unit": "O"}, ["at least 90 days"]),
        ({**ARCHIVED, "archive_keep": 5, "archive_keep_unit": "O"}, []),
        ({**ARCHIVED, "archive_keep": 5, "archive_keep_unit": "O", "archive_storage_class": "DEEP_ARCHIVE"},
         ["at least 180 days"]),
        ({**ARCHIVED, "s3_keep_by_time": False}, ["depends on generations"]),
    ],
)  # fmt: skip
def test_hints_name_what_is_surely_not_meant(options, words):
    found = policy_s3.hints(Policy(name="nightly", **options))

    assert len(found) == len(words)
    assert all(word in hint for word, hint in zip(words, found, strict=True))


@pytest.mark.django_db(transaction=True)
def test_a_repository_that_goes_at_the_same_moment_is_not_chosen(settings):
    settings.CPM_JOBS_WAKE = "cpm.jobs.queue.no_wake"
    user = factories.user()
    account = factories.account(user)
    policy, repository = factories.policy(account), factories.s3_repository(account)
    actor, refusals, began = Actor.of(user), [], threading.Event()

    def choose() -> None:
        began.set()
        try:
            policy_s3.set_copy_to_s3(actor=actor, policy=policy, s3_enabled=True, s3_repository=repository.pk)
        except ValidationFailed as error:
            refusals.append(error.to_fields())
        finally:
            connection.close()

    other = threading.Thread(target=choose)
    with transaction.atomic():
        repositories.delete(actor=actor, repository=repository)
        other.start()
        began.wait(10)
        other.join(0.3)
        waiting = other.is_alive()
    other.join(10)

    policy.refresh_from_db()
    assert waiting
    assert [problem["code"] for problem in refusals[0]["repository"]] == ["being_deleted"]
    assert policy.s3_repository is None
