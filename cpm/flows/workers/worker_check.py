"""Trying out a worker configuration: can a worker of that account and region do its work, and does the network fit?

One step runs all checks, on a worker of that place if one lives, else on any worker for S3, and says which. A check has
a bounded time, so the test ends within minutes; a test whose worker dies is repeated from its start, since it changes
nothing anywhere.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLong
from dataclasses import dataclass
from datetime import timedelta

from django.db import connection
from django.db.models import Q
from django.db.models.functions import Now

from cpm.aws import gateway
from cpm.aws.errors import AwsError, Denied, NotFound, Unreachable
from cpm.aws.gateway import AwsClient, Gateway
from cpm.aws.identity import Identity
from cpm.aws.proxy import Proxy, ProxyTrouble
from cpm.flows.identities import identity_of
from cpm.flows.workers import worker_proxy
from cpm.jobs import broker, fleet
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Outcome, StepKind, StepSpec, Wait
from cpm.jobs.queue import JobSpec
from cpm.lib import places
from cpm.lib.errors import DomainError
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.lib.states import SnapshotStatus, WorkerTestStatus
from cpm.models import S3Repository, ServerSettings, Snapshot, WorkerConfiguration, WorkerTest

KIND = SUBJECT = "worker_test"
STEP = "worker_test.run"
QUEUE = "s3"
TIME_LIMIT = timedelta(minutes=15)
"""A test that was not over by then has failed, whatever kept it."""
CALL_SECONDS = 5.0
CHECK_SECONDS = 20.0
"""Names are looked up without a time limit of their own, so a check as a whole has one."""
MOST_REPOSITORIES = 5
# What nobody has: an answer that it does not exist is an answer.
NO_SNAPSHOT = "snap-00000000000000000"
UNTAKEN = "No worker has begun this test. Start one that serves the queue s3: cpm worker --queues s3"


class Trouble(Exception):
    """What a check has found, in words for an operator."""


@dataclass(frozen=True)
class Bucket:
    """Where a repository is, and as whom it is reached."""

    identity: Identity
    region: str
    bucket: str
    prefix: str
    repository: str


@dataclass(frozen=True)
class Trial:
    """What the checks need to know; they ask the database for nothing."""

    configuration: WorkerConfiguration
    identity: Identity
    proxy: Proxy | None
    through: Gateway
    snapshot: str
    buckets: tuple[Bucket, ...]
    server: str

    @property
    def region(self) -> str:
        return self.configuration.region.aws_region

    def client(self, service: str) -> AwsClient:
        return self.through.client(self.identity, service, self.region)


def job(test: WorkerTest) -> JobSpec:
    """The job of a test, on a worker of the configuration's place if there is one."""
    place = place_of(test.configuration)
    steps = [StepSpec(STEP, place=place)]
    deadline = test.start_time + TIME_LIMIT
    return JobSpec(KIND, SUBJECT, test.pk, steps, user_id=test.configuration.user_id, deadline=deadline)


def place_of(configuration: WorkerConfiguration) -> str:
    return places.at(configuration.account.account_number, configuration.region.aws_region)


def end(test: int, status: WorkerTestStatus, details: str, worker: int | None) -> int:
    """Writes the result unless the test is over already; returns whether it did."""
    open_tests = WorkerTest.objects.filter(pk=test, status=WorkerTestStatus.IN_PROGRESS)
    return open_tests.update(status=status, details=details, worker_id=worker, end_time=Now())


# -- the step ---------------------------------------------------------------------------------------------


def run(context: StepContext) -> Outcome:
    rows = WorkerTest.objects.select_related("configuration__account", "configuration__region")
    test = rows.filter(pk=context.subject_id, status=WorkerTestStatus.IN_PROGRESS).first()
    if test is None:
        return Done("The test is over, or its configuration is gone.")
    troubles = []
    for trouble in _troubles(context, test.configuration):
        context.error(trouble)
        troubles.append(trouble)
        if context.refresh_aborted():
            return Wait(0.0, message="The test was asked to stop.")
    status = WorkerTestStatus.FAILED if troubles else WorkerTestStatus.SUCCEEDED
    details = "\n".join([*troubles, *_elsewhere(context, test.configuration)])
    worker = fleet.own_id()
    return Done(details, write=lambda: _end_it(test.pk, status, details, worker))


def _end_it(test: int, status: WorkerTestStatus, details: str, worker: int | None) -> None:
    end(test, status, details, worker)


def _elsewhere(context: StepContext, configuration: WorkerConfiguration) -> Iterator[str]:
    """A word about where the test ran, if that was not where the configuration says."""
    place = place_of(configuration)
    if not place:
        yield f"The number of account {configuration.account.name} was not known, so any worker has tried this out."
    elif context.lease.queue != places.queue_at(QUEUE, place):
        yield (
            f"No worker runs at {place}, so another worker of this server has tried this out from where it is. "
            f"Start one there with: cpm worker --place {place}"
        )


def _troubles(context: StepContext, configuration: WorkerConfiguration) -> Iterator[str]:
    """What the checks find, one by one. Without server, proxy or credentials the others would say the same again."""
    try:
        _server()
        trial = _trial(configuration, f"cpm-job-{context.job_id}")
    except (Trouble, DomainError, SecretUnreadable, KeyFileError) as error:
        yield str(error)
        return
    for label, check, needed in CHECKS:
        context.progress(0, f"Checking {label}.")
        try:
            _in_time(check, trial)
        except (Trouble, ProxyTrouble) as trouble:
            yield f"{label}: {trouble}"
        except TooLong:
            yield f"{label}: there was no answer within {CHECK_SECONDS:.0f} seconds. {_advice(trial)}"
        except AwsError as error:
            yield f"{label}: {_words(error, trial)}"
        else:
            context.log(f"{label}: works.")
            continue
        if needed:
            return


def _in_time(check: Callable[[Trial], None], trial: Trial) -> None:
    """Runs the check; raises `TooLong` when it takes too long, and leaves it behind then."""
    executor = ThreadPoolExecutor(1, "worker-test")
    try:
        executor.submit(check, trial).result(CHECK_SECONDS)
    finally:
        executor.shutdown(wait=False)


def _words(error: AwsError, trial: Trial) -> str:
    if not isinstance(error, Unreachable):
        return error.explain()
    said = f"{error.code}: {error.message}".strip(": ")
    return f"{error.call} in {error.region} gave no usable answer. {_advice(trial)} The error was {said}."


def _advice(trial: Trial) -> str:
    row = trial.configuration
    place = f"subnet {row.aws_subnet}" if row.aws_subnet else "the subnets"
    proxy = f", and what the proxy {trial.proxy} lets through" if trial.proxy else ""
    return (
        f"Check the routes and endpoints of {place} in {row.aws_vpc}, the outbound rules of {row.aws_security_group}"
        f"{proxy}."
    )


def _trial(configuration: WorkerConfiguration, session: str) -> Trial:
    """Raises `DomainError` and what else `identity_of` raises, for credentials that cannot be made."""
    account, region = configuration.account, configuration.region.aws_region
    own = worker_proxy.of(configuration)
    snapshot = Snapshot.objects.filter(
        account=account, region=region, status=SnapshotStatus.COMPLETED, aws_id__startswith="snap-"
    )
    repositories = S3Repository.objects.select_related("account").filter(
        Q(account=account) | Q(policies__account=account), user=configuration.user_id
    )
    return Trial(
        configuration=configuration,
        identity=identity_of(account, session=session),
        proxy=own,
        through=gateway.apart(own, seconds=CALL_SECONDS),
        snapshot=snapshot.order_by("-pk").values_list("aws_id", flat=True).first() or "",
        buckets=tuple(
            Bucket(identity_of(r.account, session=session), r.aws_region, r.aws_bucket_name, r.prefix, r.name)
            for r in repositories.distinct().order_by("pk")[:MOST_REPOSITORIES]
        ),
        server=ServerSettings.current().server_id.hex,
    )


# -- the checks -------------------------------------------------------------------------------------------


def _server() -> None:
    """The worker has reached the database, or it would not be here; without Redis nobody wakes it."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    if not broker.answers():
        raise Trouble("Server: the worker cannot reach Redis. Check CPM_REDIS_URL and what lies between.")


def _proxy(trial: Trial) -> None:
    if trial.proxy is not None:
        gateway.try_proxy(trial.proxy, trial.region)


def _sts(trial: Trial) -> None:
    number = str(trial.client("sts").call("GetCallerIdentity")["Account"])
    account = trial.configuration.account
    if account.account_number and number != account.account_number:
        raise Trouble(
            f"the credentials of account {account.name} belong to {number}, not to {account.account_number}. Correct "
            "the number or the credentials."
        )


def _ec2(trial: Trial) -> None:
    """Security group, subnet and key pair exist, and lie in the VPC, which proves that it exists too."""
    row, ec2 = trial.configuration, trial.client("ec2")
    groups = ec2.call("DescribeSecurityGroups", GroupIds=[row.aws_security_group])["SecurityGroups"]
    _fits(f"security group {row.aws_security_group}", groups, row)
    if row.aws_subnet:
        _fits(
            f"subnet {row.aws_subnet}",
            ec2.call("DescribeSubnets", SubnetIds=[row.aws_subnet])["Subnets"],
            row,
        )
    if row.aws_key_pair:
        ec2.call("DescribeKeyPairs", KeyNames=[row.aws_key_pair])


def _fits(what: str, found: list[dict[str, str]], row: WorkerConfiguration) -> None:
    if not found:
        raise Trouble(f"there is no {what} in {row.region}. Choose one that exists.")
    vpc = found[0].get("VpcId", "no VPC")
    if vpc != row.aws_vpc:
        raise Trouble(f"{what} is in {vpc}, not in {row.aws_vpc}. Choose one of that VPC.")


def _ebs(trial: Trial) -> None:
    """Lists blocks of a snapshot of ours. Without one, any answer of the service about none shows that it is there."""
    try:
        trial.client("ebs").call(
            "ListSnapshotBlocks", SnapshotId=trial.snapshot or NO_SNAPSHOT, MaxResults=100
        )
    except NotFound:
        return
    except Denied:
        # The policies of deploy/iam allow it for snapshots with our tags, which one that nobody has cannot carry.
        if trial.snapshot:
            raise


def _s3(trial: Trial) -> None:
    """Looks into the repositories; without any, S3's answer about a bucket that nobody has is enough."""
    for one in trial.buckets:
        s3 = trial.through.client(one.identity, "s3", one.region)
        try:
            s3.call("ListObjectsV2", Bucket=one.bucket, Prefix=one.prefix, MaxKeys=1)
        except AwsError as error:
            raise Trouble(f"repository {one.repository}: {_words(error, trial)}") from error
    if not trial.buckets:
        try:
            trial.client("s3").call("ListObjectsV2", Bucket=f"cpm-worker-test-{trial.server}", MaxKeys=1)
        except (NotFound, Denied):
            return


CHECKS: tuple[tuple[str, Callable[[Trial], None], bool], ...] = (
    ("Proxy", _proxy, True),
    ("STS", _sts, True),
    ("EC2", _ec2, False),
    ("EBS direct", _ebs, False),
    ("S3", _s3, False),
)


def _failed(context: StepContext, message: str) -> None:
    end(context.subject_id, WorkerTestStatus.FAILED, message, worker=fleet.own_id())


def _cancelled(context: StepContext) -> None:
    end(context.subject_id, WorkerTestStatus.FAILED, "The test was aborted.", worker=fleet.own_id())


KINDS = (StepKind(STEP, QUEUE, run, failed=_failed, cancelled=_cancelled),)
