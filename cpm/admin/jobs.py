"""Jobs with their steps and log: what the engine is doing."""

from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.decorators import action, display
from unfold.paginator import InfinitePaginator

from cpm.admin.base import BAD, BUSY, GOOD, IDLE, ROWS_SHOWN, ScopedAdmin, actor_of, log_table, table
from cpm.lib.states import JobState
from cpm.models import Job
from cpm.services import jobs

COLOURS = {
    JobState.QUEUED.value: IDLE,
    JobState.RUNNING.value: BUSY,
    JobState.SUCCEEDED.value: GOOD,
    JobState.FAILED.value: BAD,
    JobState.CANCELLED.value: IDLE,
}


@admin.register(Job)
class JobAdmin(ScopedAdmin):
    """The secret of a job is not among the fields."""

    paginator = InfinitePaginator
    list_display = ("id", "kind", "subject", "user", "shown_state", "open_steps", "created_at", "finished_at")
    list_filter = ("kind", "state")
    list_select_related = ("user",)
    search_fields = ("=id", "=subject_id")
    ordering = ("-id",)
    fields = (
        "kind", "subject", "user", "shown_state", "open_steps", "created_at", "finished_at", "deadline",
        "abort_requested_at", "step_table", "log",
    )  # fmt: skip
    readonly_fields = ("subject", "shown_state", "step_table", "log")
    actions = ("abort_chosen", "retry_chosen")
    actions_detail = ("abort", "retry")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Job]:
        return jobs.visible(actor_of(request).user)

    @admin.display(description="Subject")
    def subject(self, row: Job) -> str:
        return f"{row.subject_type} {row.subject_id or ''}"

    @display(description="State", ordering="state", label=COLOURS)
    def shown_state(self, row: Job) -> str:
        return row.state

    @admin.display(description="Steps")
    def step_table(self, row: Job) -> SafeString:
        steps = row.steps.order_by("id")[:ROWS_SHOWN]
        return table(
            ["Step", "Kind", "Queue", "State", "%", "Attempts", "Failures", "Owner", "Due", "Finished", "Message"],
            [
                (
                    s.pk, s.kind, s.queue, s.state, s.progress, s.attempts, s.failures, s.lease_owner, s.not_before,
                    s.finished_at, s.message,
                )
                for s in steps
            ],
        )  # fmt: skip

    @admin.display(description="Log")
    def log(self, row: Job) -> SafeString:
        return log_table(row.subject_type, row.subject_id)

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, jobs.RIGHT)

    @admin.action(description="Abort", permissions=["act"])
    def abort_chosen(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        actor = actor_of(request)
        self.each(request, queryset, lambda job: jobs.abort(actor=actor, job=job), "Jobs asked to stop")

    @admin.action(description="Retry failed steps", permissions=["act"])
    def retry_chosen(self, request: HttpRequest, queryset: QuerySet[Job]) -> None:
        actor = actor_of(request)
        self.each(request, queryset, lambda job: jobs.retry(actor=actor, job=job), "Jobs tried again")

    @action(description="Abort", url_path="abort", permissions=["act"])
    def abort(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        job = self.found(request, object_id)
        return self.act(
            request,
            job,
            title="Abort",
            text="Stop this job at its next boundary. What it has made is removed or recorded.",
            done="The job was asked to stop.",
            do=lambda _: jobs.abort(actor=actor_of(request), job=job),
        )

    @action(description="Retry", url_path="retry", permissions=["act"])
    def retry(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        job = self.found(request, object_id)
        return self.act(
            request,
            job,
            title="Retry",
            text="Run the failed steps of this job again.",
            done="The failed steps run again.",
            do=lambda _: jobs.retry(actor=actor_of(request), job=job),
        )
