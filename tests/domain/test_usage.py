"""Counting what accounts protect."""

import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.db import DatabaseError, connection

from cpm.models import Policy, ServerSettings, UsageRecord
from cpm.services import usage
from tests import factories
from workers import tasks

NOW = datetime(2026, 11, 21, 23, 30, tzinfo=UTC)
VOLUME = {"resource_type": "volumes", "details": {"capacity": 8}}


@pytest.fixture
def account(db: None):
    return factories.account()


def the_record(account) -> UsageRecord:
    return UsageRecord.objects.get(account_id=account.pk, day=NOW.date())


def test_a_resource_counts_once_in_however_many_policies_of_an_account(account):
    plain, dr = factories.policy(account), factories.policy(account, dr_enabled=True)
    for policy in (plain, dr):
        factories.target(policy, aws_resource_id="i-1")
        factories.target(policy, aws_resource_id="vol-1", **VOLUME)
    factories.target(plain, aws_resource_id="i-2")
    factories.target(plain, aws_resource_id="i-2", aws_region="us-west-2")
    factories.target(plain, aws_resource_id="vol-2", **VOLUME)

    usage.refresh(now=NOW)

    record = the_record(account)
    assert (record.instances, record.instances_dr, record.instances_s3) == (3, 1, 0)
    assert record.independent_volumes_gib == 16
    assert (record.username, record.account_name, record.report_time) == (
        account.user.username,
        account.name,
        NOW,
    )


def test_instances_that_are_copied_to_s3_count_once(account):
    copied = [factories.policy(account, s3_enabled=True) for _ in range(2)]
    for policy in copied:
        factories.target(policy, aws_resource_id="i-1")
    factories.target(copied[0], aws_resource_id="vol-1", **VOLUME)
    factories.target(factories.policy(account, s3_enabled=True, enabled=False), aws_resource_id="i-2")

    usage.refresh(now=NOW)
    first = the_record(account)
    Policy.objects.filter(account=account).update(s3_enabled=False)
    usage.refresh(now=NOW + timedelta(minutes=1))

    assert (first.instances, first.instances_s3) == (2, 1)
    assert the_record(account).instances_s3 == 0


@pytest.mark.parametrize(
    ("kind", "column", "expected"),
    [
        ("rds_databases", "rds_gib", 5), ("rds_clusters", "rds_gib", 5), ("redshift_clusters", "redshift_gib", 5),
        ("dynamodb_tables", "dynamodb_gib", 5), ("efs", "efs", 1),
    ],
)  # fmt: skip
def test_other_types_count_in_their_own_columns(account, kind, column, expected):
    factories.target(factories.policy(account), resource_type=kind, details={"capacity": 5})

    usage.refresh(now=NOW)

    assert getattr(the_record(account), column) == expected
    assert the_record(account).independent_volumes_gib == the_record(account).instances == 0


@pytest.mark.parametrize("details", [{}, {"capacity": None}, {"capacity": "much"}, {"capacity": []}])
def test_a_volume_of_unknown_size_counts_as_nothing(account, details):
    factories.target(factories.policy(account), resource_type="volumes", details=details)

    usage.refresh(now=NOW)

    assert the_record(account).independent_volumes_gib == 0


def test_scanning_and_capturing_need_the_account_and_the_server(account):
    other = factories.account(scan_tagged_resources=True, capture_vpcs=False)
    usage.refresh(now=NOW)
    before = the_record(account).capturing_vpcs, the_record(other).scanning_tags

    ServerSettings.objects.create(id=1, scan_resources=True, capture_vpcs=True)
    usage.refresh(now=NOW)

    assert before == (False, False)
    assert (the_record(account).scanning_tags, the_record(account).capturing_vpcs) == (False, True)
    assert (the_record(other).scanning_tags, the_record(other).capturing_vpcs) == (True, False)


def test_counting_again_replaces_today_and_leaves_other_days(account):
    policy = factories.policy(account)
    usage.refresh(now=NOW - timedelta(days=1))
    usage.refresh(now=NOW)
    target = factories.target(policy)

    usage.refresh(now=NOW + timedelta(minutes=1))
    usage.refresh(now=NOW)
    target.delete()

    days = dict(UsageRecord.objects.values_list("day", "instances"))
    assert days == {(NOW - timedelta(days=1)).date(): 0, NOW.date(): 1}


def test_dr_accounts_and_other_users_are_left_out(account):
    dr, other = factories.account(account.user, is_dr_account=True), factories.account()

    usage.refresh(now=NOW, users=[account.user_id])

    assert list(UsageRecord.objects.values_list("account_id", flat=True)) == [account.pk]
    assert dr.pk != other.pk != account.pk


def test_usage_outlives_its_account(account):
    usage.refresh(now=NOW)

    account.delete()
    usage.refresh(now=NOW + timedelta(minutes=1))

    assert UsageRecord.objects.count() == 1


def test_the_day_is_counted_once_and_new_accounts_make_up_for_it(account):
    first = usage.refresh_daily(now=NOW)
    again = usage.refresh_daily(now=NOW + timedelta(minutes=10))
    factories.account()
    grown = usage.refresh_daily(now=NOW + timedelta(minutes=20))
    next_day = usage.refresh_daily(now=NOW + timedelta(hours=1))

    assert (first, again, grown, next_day) == (1, 0, 2, 2)
    assert UsageRecord.objects.count() == 4


def test_housekeeping_counts_usage(account):
    tasks.housekeeping()

    assert UsageRecord.objects.filter(account_id=account.pk).count() == 1


@pytest.mark.django_db(transaction=True)
def test_two_schedulers_count_a_day_together():
    for _ in range(20):
        factories.target(factories.policy(factories.account()))
    failures: list[DatabaseError] = []

    def count(turn: int) -> None:
        try:
            for step in range(5):
                usage.refresh(now=NOW + timedelta(seconds=step * 2 + turn))
        except DatabaseError as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=count, args=(turn,)) for turn in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert list(UsageRecord.objects.values_list("instances", flat=True)) == [1] * 20
