"""Jobs and their steps: the truth that Celery messages only point at (see DESIGN.md, "Jobs")."""

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now

from cpm.lib.states import JobState, RunIf, StepState
from cpm.models.base import CpmModel
from cpm.models.user import User


def _choices(states: type[JobState] | type[StepState] | type[RunIf]) -> list[tuple[str, str]]:
    return [(state.value, state.value.capitalize()) for state in states]


class Job(CpmModel):
    """One piece of work on one subject, done by its steps.

    `open_steps` counts the steps that are not final; the update that brings it to zero settles the job.
    `secret` holds an encrypted value that the steps need and that is erased when the job settles.
    """

    kind = models.CharField(max_length=32)
    subject_type = models.CharField(max_length=32)
    subject_id = models.BigIntegerField(null=True)
    user = models.ForeignKey(User, null=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=12, choices=_choices(JobState), default=JobState.QUEUED)
    open_steps = models.PositiveIntegerField(default=0)
    abort_requested_at = models.DateTimeField(null=True, blank=True)
    deadline = models.DateTimeField(null=True, blank=True)
    secret = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta(CpmModel.Meta):
        indexes = [
            models.Index(name="job_by_subject", fields=["subject_type", "subject_id"]),
            models.Index(
                name="job_open", fields=["kind"], condition=models.Q(state__in=["queued", "running"])
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.subject_type} {self.subject_id}"


class Step(CpmModel):
    """One resumable piece of a job.

    State changes are single UPDATEs filtered on `lease_epoch` (`cpm.jobs.leases`); nobody reads, edits and
    saves a row. `pending_after` counts the unfinished steps named in `after`; at zero the step may run.
    `attempts` are failures and, beside them, claims since a turn last ended in order: what is more died.
    `intent_at` is set before a call that creates something, `token` after it. `place` is where the step would best run
    (`cpm.lib.places`); `queue` says where it runs as things are.
    """

    job = models.ForeignKey(Job, on_delete=models.CASCADE, related_name="steps")
    kind = models.CharField(max_length=48)
    queue = models.CharField(max_length=64)
    place = models.CharField(max_length=48, blank=True)
    payload = models.JSONField(default=dict)
    state = models.CharField(max_length=12, choices=_choices(StepState), default=StepState.READY)
    after = ArrayField(models.BigIntegerField(), default=list)
    pending_after = models.PositiveIntegerField(default=0)
    run_if = models.CharField(max_length=8, choices=_choices(RunIf), default=RunIf.SUCCESS)
    not_before = models.DateTimeField(db_default=Now())
    offered_until = models.DateTimeField(db_default=Now())
    poll_group = models.CharField(max_length=128, blank=True)
    lease_owner = models.CharField(max_length=128, blank=True)
    lease_until = models.DateTimeField(null=True)
    lease_epoch = models.PositiveIntegerField(default=0)
    attempts = models.PositiveIntegerField(default=0)
    failures = models.PositiveIntegerField(default=0)
    intent_at = models.DateTimeField(null=True)
    token = models.JSONField(null=True)
    cursor = models.JSONField(null=True)
    progress = models.PositiveSmallIntegerField(default=0)
    message = models.TextField(blank=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    finished_at = models.DateTimeField(null=True)

    class Meta(CpmModel.Meta):
        indexes = [
            models.Index(
                name="step_due",
                fields=["queue", "not_before"],
                condition=models.Q(state__in=["ready", "waiting"], pending_after=0),
            ),
            models.Index(name="step_blocked", fields=["job"], condition=models.Q(pending_after__gt=0)),
            models.Index(name="step_leased", fields=["lease_until"], condition=models.Q(state="running")),
            models.Index(
                name="step_placed",
                fields=["place"],
                condition=~models.Q(place="") & models.Q(state__in=["ready", "waiting"]),
            ),
            models.Index(
                name="step_poll_group",
                fields=["poll_group", "not_before"],
                condition=models.Q(state="waiting"),
            ),
        ]

    def __str__(self) -> str:
        return f"{self.kind} #{self.pk}"


class LogLine(CpmModel):
    """A line of an operation's log, as the API's logs endpoints show it. `level` is Info, Warning or Error."""

    subject_type = models.CharField(max_length=32)
    subject_id = models.BigIntegerField(null=True)
    step = models.ForeignKey(Step, null=True, on_delete=models.SET_NULL, related_name="+")
    time = models.DateTimeField(db_default=Now())
    level = models.CharField(max_length=8, default="Info")
    message = models.TextField()

    class Meta(CpmModel.Meta):
        indexes = [models.Index(name="log_by_subject", fields=["subject_type", "subject_id", "id"])]
