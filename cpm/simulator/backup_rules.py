"""What the actions of AWS Backup have in common: errors, roles, lifecycles, idempotency, filters and pages."""

import uuid
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from moto.iam.models import iam_backends

from cpm.simulator import listing
from cpm.simulator.backup_model import Job, RecoveryPoint, Vault
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError

T = TypeVar("T", bound=Job | RecoveryPoint | Vault)
RESOURCE_TYPE = "EFS"
# AWS: AWS Backup API Reference, Lifecycle.
LEAST_DAYS_IN_COLD_STORAGE = 90
MOST_DAYS = 36_500
MOST_RESULTS = 1000


def invalid(message: str) -> AwsError:
    """AWS: AWS Backup API Reference, Errors of the actions, InvalidParameterValueException."""
    return AwsError("InvalidParameterValueException", message)


def bad_request(message: str) -> AwsError:
    """AWS: AWS Backup API Reference, Errors of the actions, InvalidRequestException."""
    return AwsError("InvalidRequestException", message)


def missing(message: str) -> AwsError:
    """AWS: AWS Backup API Reference, Errors of the actions, ResourceNotFoundException."""
    return AwsError("ResourceNotFoundException", message)


def new_arn(region: str, account: str) -> str:
    """The ARN of a recovery point of a type that AWS Backup manages fully."""
    return f"arn:aws:backup:{region}:{account}:recovery-point:{uuid.uuid4()}"


def check_role(call: Call, arn: str | None) -> str:
    """The role must be one of the caller's account."""
    roles = iam_backends[call.account]["aws"].roles.values()
    if arn is None or not any(role.arn == arn for role in roles):
        raise invalid(f"IAM Role {arn} does not exist")
    return arn


def lifecycle(params: dict[str, Any]) -> dict[str, Any]:
    """The lifecycle that a request names, checked. AWS: AWS Backup API Reference, Lifecycle; -1 means never."""
    wanted: dict[str, Any] = params.get("Lifecycle", {})
    if "DeleteAfterEvent" in wanted:
        raise invalid("DeleteAfterEvent is not valid as an input")
    cold, delete = (wanted.get(name, -1) for name in ("MoveToColdStorageAfterDays", "DeleteAfterDays"))
    for days in (cold, delete):
        if days != -1 and not 1 <= days <= MOST_DAYS:
            raise invalid(f"{days} is not a number of days from 1 to {MOST_DAYS}")
    if cold != -1 and delete != -1 and delete < cold + LEAST_DAYS_IN_COLD_STORAGE:
        raise invalid(
            f"DeleteAfterDays must be at least {LEAST_DAYS_IN_COLD_STORAGE} days after MoveToColdStorageAfterDays"
        )
    return wanted


def once(call: Call, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """AWS: AWS Backup API Reference, IdempotencyToken: repeating a successful request succeeds and does nothing."""
    token = call.params.get("IdempotencyToken")
    key = (call.account, call.region, f"backup:{call.action}", str(token))
    if token and key in call.state.tokens:
        found: dict[str, Any] = call.state.tokens[key][1]
        return found
    answer = make()
    if token:
        call.state.tokens[key] = ("", answer)
    return answer


def page(call: Call, items: Iterable[T], equal: dict[str, Callable[[T], Any]]) -> tuple[list[T], str | None]:
    """One page of what passes the filters: equality as ``equal`` says, and the times of creation and end."""
    params = call.params
    shown = [
        item
        for item in items
        if not call.hidden(item.created)
        and all(name not in params or read(item) == params[name] for name, read in equal.items())
        and _in_time(params, "Created", item.created)
        and (not isinstance(item, Job) or _in_time(params, "Complete", item.ended))
    ]
    asked = {"NextToken": params.get("NextToken"), "MaxResults": params.get("MaxResults", MOST_RESULTS)}
    try:
        return listing.page(shown, asked, "", least=1, most=MOST_RESULTS)
    except AwsError as wrong:
        raise invalid(wrong.message) from wrong


def _in_time(params: dict[str, Any], what: str, moment: Any) -> bool:
    before, after = params.get(f"By{what}Before"), params.get(f"By{what}After")
    if before is None and after is None:
        return True
    return moment is not None and (before is None or moment < before) and (after is None or moment > after)


def of_job(job: Job) -> dict[str, Any]:
    """What all kinds of jobs show alike."""
    return {
        "AccountId": job.account, "CreationDate": job.created, "CompletionDate": job.ended,
        "StatusMessage": job.message, "IamRoleArn": job.role_arn, "ResourceType": RESOURCE_TYPE,
        "BackupSizeInBytes": job.size, "IsParent": False,
    }  # fmt: skip
