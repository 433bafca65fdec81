"""Commands on instances through Systems Manager: sent once, asked about together, stopped on abort.

SendCommand takes no client token. Its comment names our server and step, and ListCommands finds it by that.
The payload of such a step holds account, region, instance, server (our server id) and timeout (seconds that
the command may run).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings

from cpm.aws.errors import AwsError, InvalidState, NotFound, Unreachable
from cpm.aws.gateway import AwsClient, client
from cpm.flows import polling
from cpm.flows.identities import identity_of
from cpm.jobs.context import NotYet, StepContext
from cpm.jobs.kinds import Wait
from cpm.lib.errors import PreconditionFailed
from cpm.models import Account

# How long the agent on the instance may take to fetch a command; SendCommand takes no less than 30.
DELIVERY_SECONDS = 60
# An agent that has died in mid-command leaves it in progress; after this long beyond its time it is given up.
SLACK_SECONDS = 300
# An application stands still until its command is known to have ended, so new commands are asked about often.
QUICK_POLL_SECONDS = 2.0
QUICK_FOR = timedelta(seconds=60)
# ListCommands is asked for what came after our intent, by AWS's clock.
CLOCK_SKEW = timedelta(minutes=5)
# A server that cannot reach Systems Manager at all (no route, no endpoint) goes on without it after this many tries.
MOST_UNREACHABLE = 2
STILL_OPEN = frozenset({"Pending", "InProgress", "Delayed", "Cancelling"})


@dataclass(frozen=True, slots=True)
class Result:
    """How a command ended. `exit_code` is None if it never ended by itself; `detail` is AWS's word for the end."""

    succeeded: bool
    exit_code: int | None
    stdout: str
    stderr: str
    detail: str


Answer = Result | AwsError | None
"""None: it still runs."""


def send(context: StepContext, document: str, parameters: Mapping[str, list[str]]) -> str:
    """Run a document on the step's instance, once; returns the command's id, which is the step's token.

    Raises `PreconditionFailed` when the instance is not managed by Systems Manager, or when Systems Manager
    stays out of reach and surely got nothing; `AwsError` for everything else.
    """
    ssm, instance = _ssm(context), context.payload["instance"]
    fresh = context.lease.intent_at is None

    def create() -> str:
        sent = ssm.call(
            "SendCommand",
            InstanceIds=[instance],
            DocumentName=document,
            Parameters=dict(parameters),
            Comment=_comment(context),
            TimeoutSeconds=DELIVERY_SECONDS,
        )
        return str(sent["Command"]["CommandId"])

    try:
        return str(
            context.once(create=create, find=lambda: _sent(ssm, context), discard=lambda c: _stop(ssm, c))
        )
    except InvalidState as error:
        # SendCommand: InvalidInstanceId is its answer for an instance without a registered, running agent.
        if error.code != "InvalidInstanceId":
            raise
        message = (
            f"{instance} is not managed by SSM: it is stopped, has no running SSM Agent, or lacks the role."
        )
        raise PreconditionFailed("not_managed", f"{message} {error.explain()}") from error
    except Unreachable as error:
        if error.maybe_done or not fresh or context.lease.failures < MOST_UNREACHABLE:
            raise
        raise PreconditionFailed("ssm_unreachable", error.explain()) from error


def waiting(context: StepContext) -> Wait:
    """Ask again soon, together with the other commands of this account and region."""
    payload, interval = context.payload, settings.CPM_POLL_SECONDS
    if context.now - _began(context) < QUICK_FOR:
        interval = min(interval, QUICK_POLL_SECONDS)
    group = polling.group(payload["account"], payload["region"], "commands")
    return Wait(interval - context.now.timestamp() % interval, group=group)


def results(contexts: Sequence[StepContext]) -> dict[int, Answer]:
    """How the commands of steps of one account and region stand.

    Many are looked at by one list; only those that have ended cost a call of their own, once, for their output.
    """
    ssm = _ssm(contexts[0])
    running = _running(ssm, contexts) if len(contexts) > 1 else frozenset()
    answers: dict[int, Answer] = {}
    for context in contexts:
        if context.token in running and not _overdue(context):
            answers[context.step_id] = None
            continue
        try:
            answers[context.step_id] = _result(ssm, context)
        except AwsError as error:
            answers[context.step_id] = error
    return answers


def cancel(context: StepContext) -> bool:
    """Stop what this step has sent; returns whether there was anything. Raises NotYet until it has ended."""
    if context.lease.intent_at is None:
        return False
    ssm = _ssm(context)
    commands = [context.token] if context.token is not None else _sent(ssm, context)
    for command in commands:
        if _state(ssm, context, command)["Status"] in STILL_OPEN:
            _stop(ssm, command)
            if not _overdue(context) and _state(ssm, context, command)["Status"] in STILL_OPEN:
                raise NotYet(
                    Wait(QUICK_POLL_SECONDS, message="Waiting until the cancelled command has ended.")
                )
    return bool(commands)


def give_up(context: StepContext) -> None:
    """Stop a command whose end cannot be learned. Trouble in doing so adds nothing to what is known already."""
    try:
        _stop(_ssm(context), context.token)
    except AwsError as error:
        context.warn(error.explain())


def outputs(context: StepContext) -> str:
    """What the steps of the command's document have written, for documents of several steps.

    GetCommandInvocation shows the output of one step only, and wants its name.
    """
    listed = _ssm(context).paginate(
        "ListCommandInvocations", "CommandInvocations", CommandId=context.token, Details=True
    )
    plugins = [plugin for shown in listed for plugin in shown.get("CommandPlugins", ())]
    return "\n".join(plugin["Output"].strip() for plugin in plugins if plugin.get("Output"))


def _ssm(context: StepContext) -> AwsClient:
    account = Account.objects.get(pk=context.payload["account"])
    return client(identity_of(account, session=f"cpm-job-{context.job_id}"), "ssm", context.payload["region"])


def _comment(context: StepContext) -> str:
    """Finds the command again; SendCommand takes 100 characters."""
    return f"cpm {context.payload['server']} step {context.step_id}"


def _began(context: StepContext) -> datetime:
    return context.lease.intent_at or context.now


def _overdue(context: StepContext) -> bool:
    longest = context.payload["timeout"] + DELIVERY_SECONDS + SLACK_SECONDS
    return context.now - _began(context) > timedelta(seconds=longest)


def _since(contexts: Sequence[StepContext]) -> list[dict[str, str]]:
    oldest = min(_began(context) for context in contexts) - CLOCK_SKEW
    return [{"key": "InvokedAfter", "value": f"{oldest:%Y-%m-%dT%H:%M:%SZ}"}]


def _sent(ssm: AwsClient, context: StepContext) -> list[str]:
    """Ids of the commands that interrupted attempts of this step have sent, oldest first."""
    comment = _comment(context)
    listed = ssm.paginate("ListCommands", "Commands", Filters=_since([context]))
    ours = [command for command in listed if command.get("Comment") == comment]
    ours.sort(key=lambda command: str(command["RequestedDateTime"]))
    return [command["CommandId"] for command in ours]


def _running(ssm: AwsClient, contexts: Sequence[StepContext]) -> frozenset[str]:
    listed = ssm.paginate("ListCommandInvocations", "CommandInvocations", Filters=_since(contexts))
    return frozenset(shown["CommandId"] for shown in listed if shown["Status"] in STILL_OPEN)


def _state(ssm: AwsClient, context: StepContext, command: str) -> dict[str, Any]:
    try:
        return ssm.call("GetCommandInvocation", CommandId=command, InstanceId=context.payload["instance"])
    except NotFound:
        # GetCommandInvocation knows a command a moment after SendCommand has named it.
        if context.now - _began(context) > timedelta(seconds=settings.CPM_AWS_LIST_LAG_SECONDS):
            raise
        return {"Status": "Pending"}


def _result(ssm: AwsClient, context: StepContext) -> Result | None:
    shown = _state(ssm, context, context.token)
    if shown["Status"] in STILL_OPEN:
        if not _overdue(context):
            return None
        _stop(ssm, context.token)
        return Result(False, None, "", "", "no word from the SSM Agent")
    # ResponseCode is -1 for a command that did not run to its end.
    ended = shown["Status"] in {"Success", "Failed"} and shown.get("ResponseCode", -1) >= 0
    return Result(
        shown["Status"] == "Success",
        shown["ResponseCode"] if ended else None,
        shown.get("StandardOutputContent", ""),
        shown.get("StandardErrorContent", ""),
        shown.get("StatusDetails") or shown["Status"],
    )


def _stop(ssm: AwsClient, command: str) -> None:
    """CancelCommand changes nothing for a command that has ended."""
    ssm.call("CancelCommand", CommandId=command)
