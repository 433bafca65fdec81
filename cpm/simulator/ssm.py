"""Systems Manager: run commands on registered instances, with results that the control endpoint programs.

Scripts are not executed. ``AWSEC2-CreateVssSnapshot`` really takes snapshots, as its document says.
"""

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from moto.ec2.models import ec2_backends
from moto.ssm.models import ssm_backends

from cpm.simulator import vss
from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import Settling, now

VSS = "AWSEC2-CreateVssSnapshot"
DOCUMENTS = {
    "AWS-RunShellScript": ("Linux", "aws:runShellScript"),
    "AWS-RunPowerShellScript": ("Windows", "aws:runPowerShellScript"),
    VSS: ("Windows", "runPowerShellScript"),
}


@dataclass
class Invocation:
    """One command on one instance; what it answers is settled when it is sent."""

    instance_id: str
    settling: Settling
    exit_code: int
    stdout: str
    stderr: str
    limit: float
    cancelled: datetime | None = None

    @property
    def status(self) -> str:
        if self.cancelled:
            return "Cancelled"
        if (now() - self.settling.start).total_seconds() >= self.limit and self.settling.seconds > self.limit:
            return "TimedOut"
        if self.settling.done():
            return "Success" if self.exit_code == 0 else "Failed"
        return "Pending" if self.settling.percent() < 10 else "InProgress"

    @property
    def finished(self) -> bool:
        return self.status in ("Success", "Failed", "TimedOut", "Cancelled")


@dataclass
class Command:
    id: str
    account: str
    region: str
    document: str
    parameters: dict[str, list[str]]
    comment: str
    requested: datetime
    invocations: list[Invocation] = field(default_factory=list)

    @property
    def status(self) -> str:
        states = {one.status for one in self.invocations}
        for state in ("Pending", "InProgress", "TimedOut", "Failed", "Cancelled"):
            if state in states:
                return state
        return "Success"


def _result_for(call: Call, instance_id: str) -> dict[str, Any]:
    """The next programmed result; the last one stays."""
    agent = call.state.agents[instance_id]
    results = agent.get("results") or [{}]
    chosen: dict[str, Any] = results.pop(0) if len(results) > 1 else results[0]
    return chosen


def registered(call: Call, instance_id: str) -> bool:
    """Whether the instance runs here and its agent reports."""
    agent = call.state.agents.get(instance_id)
    if agent is None or not agent.get("registered"):
        return False
    backend = ec2_backends[call.account][call.region]
    instance = backend.get_instance_by_id(instance_id)
    return instance is not None and instance.state == "running"


def _targets(call: Call) -> list[str]:
    ids = list(call.params.get("InstanceIds", []))
    tag_store = ec2_backends[call.account][call.region].tags
    for target in call.params.get("Targets", []):
        key, values = target["Key"], target["Values"]
        if key == "InstanceIds":
            ids += values
        elif key.startswith("tag:"):
            ids += [
                i for i, labels in tag_store.items() if i.startswith("i-") and labels.get(key[4:]) in values
            ]
    return list(dict.fromkeys(ids))


def _invoked(call: Call, command: Command, instance_id: str) -> Invocation:
    """The command on one instance, with the instance's next programmed result."""
    result = _result_for(call, instance_id)
    stdout, exit_code = result.get("stdout", ""), result.get("exit_code", 0)
    if command.document == VSS and not exit_code:
        stdout = vss.snapshots_of(call, instance_id, command.parameters) + stdout
    seconds = result.get("seconds", call.state.timing.command_seconds)
    limit = float((command.parameters.get("executionTimeout") or ["3600"])[0])
    settling = Settling(now(), seconds)
    return Invocation(instance_id, settling, exit_code, stdout, result.get("stderr", ""), limit)


def send_command(call: Call) -> dict[str, Any]:
    """AWS: Systems Manager API Reference, SendCommand."""
    document = call.params["DocumentName"].rsplit("/", 1)[-1]
    if document not in DOCUMENTS and document not in ssm_backends[call.account][call.region]._documents:
        raise AwsError("InvalidDocument", f"document {document} does not exist")
    ids = _targets(call)
    unknown = [instance_id for instance_id in ids if not registered(call, instance_id)]
    if unknown or not ids:
        raise AwsError(
            "InvalidInstanceId",
            f"Instances [[{', '.join(unknown)}]] not in a valid state for account {call.account}",
        )
    parameters = call.params.get("Parameters", {})
    command = Command(
        id=str(uuid.uuid4()),
        account=call.account,
        region=call.region,
        document=document,
        parameters=parameters,
        comment=call.params.get("Comment", ""),
        requested=now(),
    )
    command.invocations = [_invoked(call, command, instance_id) for instance_id in ids]
    call.state.commands[command.id] = command
    return {"Command": _shown(command)}


def _shown(command: Command) -> dict[str, Any]:
    done = sum(one.finished for one in command.invocations)
    return {
        "CommandId": command.id,
        "DocumentName": command.document,
        "DocumentVersion": "$DEFAULT",
        "Comment": command.comment,
        "Parameters": command.parameters,
        "InstanceIds": [one.instance_id for one in command.invocations],
        "RequestedDateTime": command.requested,
        "ExpiresAfter": command.requested + timedelta(hours=2),
        "Status": command.status,
        "StatusDetails": command.status,
        "TargetCount": len(command.invocations),
        "CompletedCount": done,
        "ErrorCount": sum(one.status == "Failed" for one in command.invocations),
    }


def _find(call: Call, command_id: str) -> Command:
    command: Command | None = call.state.commands.get(command_id)
    if command is None or (command.account, command.region) != (call.account, call.region):
        raise AwsError("InvalidCommandId", f"command {command_id} not found")
    return command


DETAILS = {"TimedOut": "ExecutionTimedOut"}


def get_command_invocation(call: Call) -> dict[str, Any]:
    """AWS: Systems Manager API Reference, GetCommandInvocation."""
    command = call.state.commands.get(call.params["CommandId"])
    here = command is not None and (command.account, command.region) == (call.account, call.region)
    found = (
        [i for i in command.invocations if i.instance_id == call.params["InstanceId"]]
        if here and command
        else []
    )
    if not found or command is None:
        raise AwsError(
            "InvocationDoesNotExist", "The command ID and managed node ID did not match any invocations."
        )
    one = found[0]
    over = one.finished and one.status in ("Success", "Failed")
    return {
        "CommandId": command.id,
        "InstanceId": one.instance_id,
        "Comment": command.comment,
        "DocumentName": command.document,
        "DocumentVersion": "$DEFAULT",
        "PluginName": DOCUMENTS.get(command.document, ("", "aws:runShellScript"))[1],
        "ResponseCode": one.exit_code if over else -1,
        "ExecutionStartDateTime": one.settling.start.strftime("%Y-%m-%dT%H:%M:%SZ")
        if one.status != "Pending"
        else "",
        "ExecutionEndDateTime": one.settling.end.strftime("%Y-%m-%dT%H:%M:%SZ") if one.finished else "",
        "Status": one.status,
        "StatusDetails": DETAILS.get(one.status, one.status),
        # AWS: GetCommandInvocation shows the first 24,000 and 8,000 characters.
        "StandardOutputContent": one.stdout[:24000] if over else "",
        "StandardErrorContent": one.stderr[:8000] if over else "",
        "StandardOutputUrl": "",
        "StandardErrorUrl": "",
    }


def list_command_invocations(call: Call) -> dict[str, Any]:
    """AWS: Systems Manager API Reference, ListCommandInvocations; output only with Details, cut at 2,500."""
    wanted, instance_id = call.params.get("CommandId"), call.params.get("InstanceId")
    commands = (
        [_find(call, wanted)]
        if wanted
        else [c for c in call.state.commands.values() if (c.account, c.region) == (call.account, call.region)]
    )
    found = []
    for command in commands:
        for one in command.invocations:
            if instance_id not in (None, one.instance_id):
                continue
            entry: dict[str, Any] = {
                "CommandId": command.id,
                "InstanceId": one.instance_id,
                "Comment": command.comment,
                "DocumentName": command.document,
                "RequestedDateTime": command.requested,
                "Status": one.status,
                "StatusDetails": DETAILS.get(one.status, one.status),
                "CommandPlugins": [],
            }
            if call.params.get("Details"):
                output = one.stdout + (f"\n----------ERROR-------\n{one.stderr}" if one.stderr else "")
                plugin = {
                    "Name": DOCUMENTS.get(command.document, ("", "aws:runShellScript"))[1],
                    "Status": one.status,
                    "StatusDetails": DETAILS.get(one.status, one.status),
                    "ResponseCode": one.exit_code if one.finished else -1,
                    "Output": output[:2500] if one.finished else "",
                }
                entry["CommandPlugins"] = [plugin]
            found.append(entry)
    return {"CommandInvocations": found}


def list_commands(call: Call) -> dict[str, Any]:
    """AWS: Systems Manager API Reference, ListCommands."""
    wanted = call.params.get("CommandId")
    here = [c for c in call.state.commands.values() if (c.account, c.region) == (call.account, call.region)]
    return {"Commands": [_shown(command) for command in here if wanted in (None, command.id)]}


def cancel_command(call: Call) -> dict[str, Any]:
    """AWS: Systems Manager API Reference, CancelCommand: what has finished stays finished."""
    for one in _find(call, call.params["CommandId"]).invocations:
        if not one.finished and call.params.get("InstanceIds", [one.instance_id]).count(one.instance_id):
            one.cancelled = now()
    return {}


def describe_instance_information(call: Call) -> dict[str, Any]:
    """AWS: Systems Manager API Reference, DescribeInstanceInformation: instances whose agent registered."""
    wanted: set[str] | None = None
    for one in call.params.get("Filters", []) + call.params.get("InstanceInformationFilterList", []):
        key, values = one.get("Key", one.get("key")), one.get("Values", one.get("valueSet", []))
        if key == "InstanceIds":
            wanted = set(values) if wanted is None else wanted & set(values)
    shown = []
    for instance_id, agent in call.state.agents.items():
        if not registered(call, instance_id) or (wanted is not None and instance_id not in wanted):
            continue
        shown.append(
            {
                "InstanceId": instance_id,
                "PingStatus": "Online",
                "LastPingDateTime": now(),
                "AgentVersion": "3.3.0.0",
                "IsLatestVersion": True,
                "ResourceType": "EC2Instance",
                "PlatformType": agent.get("platform", "Linux"),
                "PlatformName": agent.get("platform", "Linux"),
                "ComputerName": f"{instance_id}.simulated",
            }
        )
    return {"InstanceInformationList": shown}


ACTIONS = {
    "SendCommand": send_command,
    "GetCommandInvocation": get_command_invocation,
    "ListCommandInvocations": list_command_invocations,
    "ListCommands": list_commands,
    "CancelCommand": cancel_command,
    "DescribeInstanceInformation": describe_instance_information,
}
