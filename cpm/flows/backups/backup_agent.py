"""Application consistency on the instances themselves, through Systems Manager: their own scripts, and VSS.

AWS's SSM Agent does the work; no agent of ours is needed. `agent_commands` says where the scripts lie.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cpm.aws.errors import AwsError
from cpm.flows.backups import agent_commands, backup_vss, run_command, script_results
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib.states import BACKUP_RUNNING, RunIf
from cpm.models import Backup, ScriptLog, Target

QUEUE = "backup"
KIND = "backup.agent_script"


@dataclass(frozen=True, slots=True)
class Agent:
    """An instance that runs scripts of its own in a backup."""

    target: Target
    account: int
    server: str
    windows: bool


def steps(phase: str, agents: Sequence[Agent], *, after: tuple[str | int, ...]) -> list[StepSpec]:
    """One step per instance. "after" runs in any case, so that what was frozen is thawed."""
    run_if = RunIf.ALWAYS if phase == "after" else RunIf.ENDED
    return [
        StepSpec(
            KIND,
            {
                "phase": phase,
                "account": agent.account,
                "server": agent.server,
                "windows": agent.windows,
                "region": agent.target.aws_region,
                "instance": agent.target.aws_resource_id,
                "name": agent.target.name or agent.target.aws_resource_id,
                "target": agent.target.pk,
                "timeout": agent.target.agent_script_timeout,
                "collect": agent.target.collect_script_output,
            },
            key=f"agent-{phase}-{agent.target.pk}",
            after=after,
            run_if=run_if,
        )
        for agent in agents
    ]


def start_script(context: StepContext) -> Outcome:
    """Send the script of the payload's phase to its instance."""
    payload = context.payload
    if context.token is None and not _running(context):
        return Failed("The backup is over; its scripts are not run again.")
    lines = agent_commands.lines(
        payload["phase"], _arguments(context), context.subject_id, windows=payload["windows"]
    )
    parameters = {"commands": lines, "executionTimeout": [str(payload["timeout"])]}
    run_command.send(context, agent_commands.document(windows=payload["windows"]), parameters)
    return run_command.waiting(context)


def poll_scripts(contexts: Sequence[StepContext]) -> Mapping[int, Outcome | Exception]:
    """Ask for the scripts of one account and region."""
    answers = run_command.results(contexts)
    return {context.step_id: _outcome(context, answers[context.step_id]) for context in contexts}


def cancel_script(context: StepContext) -> None:
    """Abort: stop the script; the "after" script waits until it has ended."""
    if run_command.cancel(context):
        context.log(f"Stopped the {context.payload['phase']} script on {context.payload['name']}.")


def _running(context: StepContext) -> bool:
    return Backup.objects.filter(pk=context.subject_id, status__in=BACKUP_RUNNING).exists()


def _arguments(context: StepContext) -> list[str]:
    phase = context.payload["phase"]
    if phase == "before":
        return []
    if phase == "after":
        return [script_results.worked(context, KIND, "before", context.payload["target"])]
    return [script_results.everything_worked(context)]


def _outcome(context: StepContext, answer: run_command.Answer) -> Outcome | Exception:
    if answer is None:
        return run_command.waiting(context)
    if isinstance(answer, AwsError):
        return answer
    payload = context.payload
    script = f"{payload['phase']} script on {payload['name']}"
    if answer.succeeded and answer.stdout.startswith(agent_commands.NO_SCRIPT):
        folder = agent_commands.WINDOWS_FOLDER if payload["windows"] else agent_commands.LINUX_FOLDER
        context.warn(f"There is no {script} in {folder}.")
        return Done("No script.")

    def write() -> None:
        ScriptLog.objects.create(
            backup_id=context.subject_id,
            title=script[:255],
            log=answer.stderr.replace("\0", "") if payload["collect"] else "",
            exit_code=answer.exit_code,
        )
        if payload["phase"] == "before" and answer.succeeded:
            Backup.objects.filter(pk=context.subject_id).update(performed_quiesce=True)

    if answer.succeeded:
        context.log(f"The {script} worked.")
        return Done(write=write)
    if answer.exit_code is None:
        return Failed(
            f"The {script} did not end within {payload['timeout']} s: {answer.detail}.", write=write
        )
    return Failed(f"The {script} ended with exit code {answer.exit_code}.", write=write)


KINDS: tuple[StepKind, ...] = (
    StepKind(KIND, QUEUE, start_script, poll=poll_scripts, cancel=cancel_script),
    *backup_vss.KINDS,
)
