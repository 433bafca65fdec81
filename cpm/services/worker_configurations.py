"""Worker configurations: the network that workers of an account and region run in, and tests of it.

Saving asks nothing of AWS, which may be out of reach for a moment; whether VPC, subnet and security group exist and fit
together is what a test finds out.
"""

import re
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypedDict, Unpack

from django.db import transaction
from django.db.models import QuerySet

from cpm import permissions
from cpm.flows.identities import encrypt_secret
from cpm.flows.table import QUEUES
from cpm.flows.workers import worker_check as flow
from cpm.jobs import queue
from cpm.lib.errors import NotFound, ValidationFailed
from cpm.lib.names import Problem
from cpm.lib.states import JobState, StepState, WorkerTestStatus
from cpm.models import Actor, Job, Region, Step, WorkerConfiguration, WorkerTest
from cpm.services import audit, proxy, regions, scope

RIGHT = "workers.change"
TEST_RIGHT = "workers.test"
NOUN = "worker configuration"
TESTS_KEPT = 20
"""Tests of a configuration that are kept; older ones go when a new one starts."""

# EC2 ids have 8 or 17 hexadecimal digits behind their kind.
_IDS: Mapping[str, str] = {"aws_vpc": "vpc", "aws_subnet": "subnet", "aws_security_group": "sg"}
_PROXY_FIELDS: Mapping[str, str] = {
    "address": "http_proxy_address",
    "port": "http_proxy_port",
    "user": "http_proxy_user_name",
    "password": "http_proxy_password_encrypted",
}


class Fields(TypedDict, total=False):
    """What may be set; what is left out keeps its value. The proxy's password goes in and never comes out."""

    aws_vpc: str
    aws_security_group: str
    aws_subnet: str
    aws_key_pair: str
    requires_http_proxy: bool
    http_proxy_address: str
    http_proxy_port: int | None
    http_proxy_user_name: str
    http_proxy_password_encrypted: str


_PLAIN = (
    "aws_vpc", "aws_security_group", "aws_subnet", "aws_key_pair", "requires_http_proxy", "http_proxy_address",
    "http_proxy_port", "http_proxy_user_name",
)  # fmt: skip


@transaction.atomic
def create(*, actor: Actor, account: int, region: int, **fields: Unpack[Fields]) -> WorkerConfiguration:
    """A new configuration for an account and a region, owned by the account's user.

    Raises `ValidationFailed` for what cannot be ids or a proxy, `Conflict` where there is one for that account and
    region, and `NotFound` for an account out of reach or a region that is not enabled.
    """
    holder = scope.account(actor, RIGHT, account)
    row = WorkerConfiguration(user=holder.user, account=holder, region=_region(region))
    _apply(row, fields)
    _save(row)
    audit.record(actor, "worker_configuration.created", row, after=audit.state_of(row))
    return row


@transaction.atomic
def update(
    *,
    actor: Actor,
    configuration: WorkerConfiguration,
    account: int | None = None,
    region: int | None = None,
    **fields: Unpack[Fields],
) -> WorkerConfiguration:
    """Changes what is given; its account may become another one of the same user. Raises what `create` raises.

    A stored password belongs to its proxy: with another address, port or user it has to be sent again.
    """
    row = scope.locked(actor, RIGHT, configuration, NOUN)
    was = audit.state_of(row)
    if account is not None and account != row.account_id:
        row.account = scope.account(actor, RIGHT, account, of=row.user_id)
    if region is not None and region != row.region_id:
        row.region = _region(region)
    _apply(row, fields)
    _save(row)
    audit.record(actor, "worker_configuration.updated", row, before=was, after=audit.state_of(row))
    return row


@transaction.atomic
def delete(*, actor: Actor, configuration: WorkerConfiguration) -> None:
    """Forgets the configuration and its tests. Workers that run there go on, without its proxy."""
    row = scope.locked(actor, RIGHT, configuration, NOUN)
    audit.record(actor, "worker_configuration.deleted", row, before=audit.state_of(row))
    row.delete()


@transaction.atomic
def start_test(*, actor: Actor, configuration: WorkerConfiguration, now: datetime) -> WorkerTest:
    """Has a worker of that account and region, or else any worker for S3, try out the configuration."""
    row = scope.locked(actor, TEST_RIGHT, configuration, NOUN)
    test = WorkerTest.objects.create(configuration=row, start_time=now)
    kept = row.tests.order_by("-pk").values("pk")[:TESTS_KEPT]
    row.tests.exclude(pk__in=kept).exclude(status=WorkerTestStatus.IN_PROGRESS).delete()
    text = f"Test of worker configuration {row.pk} requested."
    audit.record(actor, "worker_configuration.test_requested", row, text=text)
    queue.create_jobs([flow.job(test)], engine_queues=QUEUES)
    return test


def tests_in_reach(actor: Actor, configuration: int) -> QuerySet[WorkerTest]:
    """The tests of that configuration, none if it is out of reach."""
    permissions.require(actor, TEST_RIGHT)
    rows = WorkerTest.objects.filter(configuration=configuration)
    return permissions.visible(actor.user, rows, TEST_RIGHT)


def give_up_untaken_tests(*, now: datetime) -> int:
    """Ends the tests that no worker has begun for long; returns how many. Their steps end when somebody meets them."""
    late = WorkerTest.objects.filter(
        status=WorkerTestStatus.IN_PROGRESS, start_time__lt=now - flow.TIME_LIMIT
    )
    given_up = 0
    for test in late:
        steps = Step.objects.filter(job__subject_type=flow.SUBJECT, job__subject_id=test.pk, finished_at=None)
        if steps.filter(state=StepState.RUNNING).exists():
            continue
        given_up += flow.end(test.pk, WorkerTestStatus.FAILED, flow.UNTAKEN, worker=None)
        open_jobs = Job.objects.filter(
            subject_type=flow.SUBJECT, subject_id=test.pk, state__in=[JobState.QUEUED, JobState.RUNNING]
        )
        for job in open_jobs.values_list("pk", flat=True):
            queue.request_abort(job)
    return given_up


def _region(id: int) -> Region:
    [found] = regions.enabled_ids([id], field="region")
    return Region.objects.get(pk=found)


def _save(row: WorkerConfiguration) -> None:
    words = (
        f"Account {row.account.name} has a worker configuration for {row.region} already; change that one."
    )
    with scope.is_unique("worker_configuration_once", field="region", otherwise=words):
        row.save()


def _apply(row: WorkerConfiguration, fields: Fields) -> None:
    place = _proxy_place(row)
    for name in _PLAIN:
        if name in fields:
            setattr(row, name, fields[name])  # type: ignore[literal-required]
    row.http_proxy_address = row.http_proxy_address.strip("[] ")
    password = fields.get("http_proxy_password_encrypted")
    problems = _problems(row, password or "")
    if row.http_proxy_password and password is None and _proxy_place(row) != place:
        words = "Send the password of the changed proxy too (empty for none); the stored one is for another."
        problems["http_proxy_password_encrypted"].append((words, "required"))
    if problems:
        raise ValidationFailed(problems)
    if password is not None:
        row.http_proxy_password = encrypt_secret(password) if password else ""


def _proxy_place(row: WorkerConfiguration) -> tuple[Any, ...]:
    return (row.http_proxy_address, row.http_proxy_port, row.http_proxy_user_name)


def _problems(row: WorkerConfiguration, password: str) -> dict[str, list[Problem]]:
    problems: dict[str, list[Problem]] = defaultdict(list)
    for name, kind in _IDS.items():
        text = getattr(row, name)
        needed = name != "aws_subnet"
        if needed and not text:
            problems[name].append((f"A worker needs it: an id such as {kind}-0123456789abcdef0.", "required"))
        elif text and not re.fullmatch(rf"{kind}-([0-9a-f]{{8}}|[0-9a-f]{{17}})", text):
            problems[name].append((f"This is no id; it looks like {kind}-0123456789abcdef0.", "invalid"))
    key_pair = row.aws_key_pair
    if key_pair != key_pair.strip() or not (key_pair.isascii() and key_pair.isprintable()):
        words = "A key pair's name has printable ASCII characters, and no space at its ends."
        problems["aws_key_pair"].append((words, "invalid"))
    found = proxy.problems_of(
        row.http_proxy_address, row.http_proxy_port, row.http_proxy_user_name, password,
        usable=row.requires_http_proxy,
    )  # fmt: skip
    for name, pairs in found.items():
        problems[_PROXY_FIELDS[name]] += pairs
    return problems


def found(actor: Actor, id: int) -> WorkerConfiguration:
    """The configuration that the actor may see. Raises `NotFound`."""
    permissions.require(actor, "workers.read")
    rows = permissions.visible(actor.user, WorkerConfiguration.objects.all(), "workers.read")
    row = rows.filter(pk=id).first()
    if row is None:
        raise NotFound(NOUN, id)
    return row
