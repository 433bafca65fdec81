"""Backup scripts on the server: before, after and complete, for instances that have no agent.

A user's scripts lie in the scripts folder under the user's name (root's in the folder itself) and are called
<phase>_<policy>, with any extension and, after a separator, any addition. Exit code 0 is success. "after" is told
whether "before" worked, "complete" whether the whole backup did (1 or 0).
"""

import os
import re
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import structlog
from django.conf import settings

from cpm.flows.backups import backup_agent, script_results
from cpm.jobs.context import StepContext
from cpm.jobs.kinds import Done, Failed, Outcome, StepKind, StepSpec
from cpm.lib.states import Role, RunIf
from cpm.models import Backup, Policy, ScriptLog

log = structlog.get_logger(__name__)

QUEUE = "backup"
MOST_OUTPUT = 1024 * 1024
# Scripts get a plain environment: the worker's own holds secrets.
PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "USER")


@dataclass(frozen=True, slots=True)
class Scripts:
    """Whether and how a run uses scripts on the server."""

    enabled: bool
    folder: str
    policy: str
    timeout: int
    collect: bool
    backup: int

    def payload(self, phase: str) -> dict[str, object]:
        return {
            "phase": phase,
            "folder": self.folder,
            "policy": self.policy,
            "timeout": self.timeout,
            "collect": self.collect,
        }


def before(policy: Policy, backup: Backup) -> Scripts:
    """The script settings of a run of this policy."""
    owner = backup.user
    root = settings.CPM_SCRIPTS_DIR
    folder = root if owner.role == Role.ROOT else root / owner.username
    return Scripts(
        policy.enable_agent_scripts,
        str(folder),
        policy.name,
        policy.agent_script_timeout,
        policy.collect_script_output,
        backup.pk,
    )


def before_steps(scripts: Scripts, agents: list[backup_agent.Agent]) -> list[StepSpec]:
    """Quiesce: the server's script, then the agents' scripts."""
    steps = []
    if scripts.enabled:
        steps.append(StepSpec("backup.script", scripts.payload("before"), key="before"))
    steps.extend(backup_agent.steps("before", agents, after=tuple(step.key for step in steps)))
    return steps


def after_steps(
    scripts: Scripts, agents: list[backup_agent.Agent], *, after: tuple[str | int, ...]
) -> list[StepSpec]:
    """Thaw as soon as every snapshot has been started, also when the run is aborted."""
    steps = backup_agent.steps("after", agents, after=after)
    if scripts.enabled:
        steps.append(
            StepSpec("backup.script", scripts.payload("after"), key="after", after=after, run_if=RunIf.ALWAYS)
        )
    return steps


def complete_steps(
    scripts: Scripts, agents: list[backup_agent.Agent], *, after: tuple[str | int, ...]
) -> list[StepSpec]:
    """Tell everybody who was frozen how the whole run ended."""
    steps = backup_agent.steps("complete", agents, after=after)
    if scripts.enabled:
        payload = scripts.payload("complete")
        steps.append(StepSpec("backup.script", payload, key="complete", after=after, run_if=RunIf.ENDED))
    return steps


def find_script(folder: Path, phase: str, policy: str) -> Path | None:
    """The script of a phase: the exact name first, else the first with an addition after a separator."""
    pattern = re.compile(rf"{re.escape(f'{phase}_{policy}')}(?:[._ -].*)?", re.DOTALL)
    if not folder.is_dir():
        return None
    found = sorted(path for path in folder.iterdir() if path.is_file() and pattern.fullmatch(path.name))
    exact = [path for path in found if path.stem == f"{phase}_{policy}"]
    return next(iter(exact or found), None)


def run_script(context: StepContext) -> Outcome:
    """Run the script of the payload's phase. A missing script is no failure: not every policy needs all three."""
    payload = context.payload
    phase = payload["phase"]
    path = find_script(Path(payload["folder"]), phase, payload["policy"])
    if path is None:
        context.log(f"There is no {phase} script for policy {payload['policy']} in {payload['folder']}.")
        return Done("No script.")
    if not os.access(path, os.X_OK):
        return Failed(f"The {phase} script {path.name} is not executable; chmod +x it.")
    try:
        code, output = _execute([str(path), *_arguments(context, phase)], payload["timeout"], context)
    except OSError as error:
        return Failed(f"The {phase} script {path.name} cannot be run: {error.strerror}.")

    def write() -> None:
        ScriptLog.objects.create(
            backup_id=context.subject_id,
            title=f"{phase} script {path.name}",
            log=output if payload["collect"] else "",
            exit_code=code,
        )
        if phase == "before" and code == 0:
            Backup.objects.filter(pk=context.subject_id).update(performed_quiesce=True)

    if code is None:
        return Failed(
            f"The {phase} script ran longer than {payload['timeout']} s and was killed.", write=write
        )
    if code != 0:
        return Failed(f"The {phase} script ended with exit code {code}.", write=write)
    context.log(f"The {phase} script worked.")
    return Done(write=write)


def _execute(command: list[str], timeout: int, context: StepContext) -> tuple[int | None, str]:
    """Exit code (None: killed for its time) and what was written to stderr."""
    environment = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    environment["CPM_BACKUP_ID"] = str(context.subject_id)
    process = subprocess.Popen(  # noqa: S603 (the operator's own script)
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        _, errors = process.communicate(timeout=timeout)
        code: int | None = process.returncode
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
        code = None
    return code, errors[-MOST_OUTPUT:].decode(errors="replace").replace("\0", "")


def _arguments(context: StepContext, phase: str) -> list[str]:
    if phase == "before":
        return []
    if phase == "after":
        return [script_results.worked(context, "backup.script", "before")]
    return [script_results.everything_worked(context)]


KINDS = (StepKind("backup.script", QUEUE, run_script), *backup_agent.KINDS)
