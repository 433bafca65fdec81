"""Policies with their targets, schedules and latest backups."""

from typing import Any

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, Min, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from cpm import permissions
from cpm.admin import policy_syncs, policy_targets
from cpm.admin.base import BAD, GOOD, IDLE, POOR, ServiceAdmin, ServiceForm, actor_of, given, link, table
from cpm.flows.s3 import operation
from cpm.lib.errors import NotFound
from cpm.models import Actor, Policy, Region, Schedule
from cpm.services import backups, policies, policy_s3, s3_operations, targets

OPTIONS = (
    "enable_agent_scripts", "agent_script_timeout", "collect_script_output", "considered_successful",
    "number_of_retries", "minutes_between_retries", "num_failures_for_alert",
)  # fmt: skip
DR = (
    "dr_enabled", "dr_frequency", "dr_regions", "dr_timeout_hours", "dr_account", "dr_account_regions",
    "copy_to_snapshot_original_region", "dr_keep_original_snapshots",
)  # fmt: skip
S3 = tuple(policy_s3.SHOWN_AS)
STATES = (
    "last_success_at",
    "consecutive_failures",
    "missed_runs",
    "retention_stuck_since",
    "last_recovery_time",
)
TARGETS_SHOWN = 200


def _regions() -> list[tuple[int, str]]:
    return list(Region.objects.filter(enabled=True).order_by("aws_region").values_list("id", "aws_region"))


class PolicyForm(ServiceForm):
    named = {shown: column for column, shown in policy_s3.SHOWN_AS.items()}
    schedule_list = forms.ModelMultipleChoiceField(Schedule.objects.none(), required=False, label="Schedules")
    dr_regions = forms.TypedMultipleChoiceField(
        choices=_regions, coerce=int, required=False, label="DR regions"
    )
    dr_account_regions = forms.TypedMultipleChoiceField(
        choices=_regions, coerce=int, required=False, label="Regions of the DR account"
    )

    class Meta:
        model = Policy
        fields = (
            "account",
            "name",
            "description",
            "enabled",
            "generations",
            "auto_remove_resource",
            *OPTIONS,
            *DR,
            *S3,
        )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if "schedule_list" not in self.fields:
            return
        rows = permissions.visible(
            actor_of(self.request).user, Schedule.objects.order_by("name"), "schedules.read"
        )
        self.fields["schedule_list"].queryset = rows  # type: ignore[attr-defined]
        if self.instance.pk:
            self.initial["schedule_list"] = list(self.instance.schedules.values_list("pk", flat=True))


class RemoveTargetForm(forms.Form):
    resource_id = forms.CharField(label="AWS id")


@admin.register(Policy)
class PolicyAdmin(ServiceAdmin):
    form = PolicyForm
    read_right = "policies.read"
    change_right = "policies.change"
    fixed = ("account",)
    fieldsets = (
        (None, {"fields": ("account", "name", "description", "enabled", "generations", "auto_remove_resource",
                           "schedule_list")}),
        ("Scripts, success and retries", {"fields": OPTIONS, "classes": ["tab"]}),
        ("Disaster recovery", {"fields": DR, "classes": ["tab"]}),
        ("Copies in S3", {"fields": S3, "classes": ["tab"]}),
        ("State", {"fields": (*STATES, "running_in_s3", "latest_backups"), "classes": ["tab"]}),
        ("Targets", {"fields": ("target_table",), "classes": ["tab"]}),
    )  # fmt: skip
    readonly_fields = (*STATES, "running_in_s3", "latest_backups", "target_table")
    list_display = (
        "name",
        "user",
        "account",
        "enabled",
        "n_targets",
        "next_run",
        "last_success_at",
        "health",
    )
    list_filter = ("enabled", "dr_enabled", "s3_enabled", "account")
    list_select_related = ("user", "account")
    search_fields = ("name", "targets__aws_resource_id")
    ordering = ("name", "id")
    actions = ("run_now",)
    actions_detail = ("run", "add_target", "set_sync", "remove_target", "abort_in_s3")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Policy]:
        rows = super().get_queryset(request)
        return rows.annotate(
            targets_total=Count("targets", distinct=True), next_moment=Min("policy_schedules__next_run_at")
        )

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        sets = super().get_fieldsets(request, obj)
        if obj is None:
            return sets[:4]
        if self.has_change_permission(request, obj):
            return sets
        plain = {**sets[0][1], "fields": [name for name in sets[0][1]["fields"] if name != "schedule_list"]}
        return [(sets[0][0], plain), *sets[1:]]

    @admin.display(description="Targets", ordering="targets_total")
    def n_targets(self, row: Any) -> int:
        return row.targets_total

    @admin.display(description="Next run", ordering="next_moment")
    def next_run(self, row: Any) -> Any:
        return row.next_moment

    @display(
        description="Health",
        label={
            "Good": GOOD,
            "Failing": BAD,
            "Retention stuck": POOR,
            "Runs missed": POOR,
            "No success yet": IDLE,
        },
    )
    def health(self, row: Policy) -> str:
        if row.consecutive_failures:
            return "Failing"
        if row.retention_stuck_since:
            return "Retention stuck"
        if row.missed_runs:
            return "Runs missed"
        return "Good" if row.last_success_at else "No success yet"

    @admin.display(description="Targets")
    def target_table(self, row: Policy) -> SafeString:
        rows = row.targets.order_by("id")[:TARGETS_SHOWN]
        return table(
            ["Type", "AWS id", "Name", "Region", "Last seen"],
            [(t.resource_type, t.aws_resource_id, t.name, t.aws_region, t.last_seen_at) for t in rows],
        )

    @admin.display(description="Latest backups")
    def latest_backups(self, row: Policy) -> SafeString:
        rows = row.backups.order_by("-start_time", "-id")[:10]
        return table(
            ["Backup", "Status", "DR", "S3", "Ended"],
            [
                (
                    link(b),
                    b.get_status_display(),
                    b.get_dr_status_display(),
                    b.get_s3_copy_status_display(),
                    b.end_time,
                )
                for b in rows
            ],
        )

    @admin.display(description="Running in S3")
    def running_in_s3(self, row: Policy) -> SafeString | str:
        job = operation.running(row)
        return link(job, s3_operations.NAMES.get(job.kind, job.kind).capitalize()) if job else "-"

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> Policy:
        plain = given(data, "name", "description", "enabled", "generations", "auto_remove_resource")
        plain |= {"schedules": [schedule.pk for schedule in data["schedule_list"]], "now": timezone.now()}
        if change:
            policy = policies.update(actor=actor, policy=Policy.objects.get(pk=row.pk), **plain)
        else:
            policy = policies.create(actor=actor, account=data["account"].pk, **plain)
        policy = policies.set_options(actor=actor, policy=policy, **given(data, *OPTIONS))  # type: ignore[typeddict-item]
        dr_account = data["dr_account"]
        dr = given(data, *DR) | {"dr_account": dr_account.pk if dr_account else None}
        policy = policies.set_dr(actor=actor, policy=policy, **dr)  # type: ignore[typeddict-item]
        repository = data["s3_repository"]
        s3 = given(data, *S3) | {"s3_repository": repository.pk if repository else None}
        return policy_s3.set_copy_to_s3(actor=actor, policy=policy, **s3)  # type: ignore[typeddict-item]

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        super().save_model(request, obj, form, change)
        for hint in policy_s3.hints(Policy.objects.get(pk=obj.pk)):
            messages.warning(request, hint)

    def remove(self, actor: Actor, row: Any) -> None:
        policies.delete(actor=actor, policy=row)

    @admin.action(description="Run now", permissions=["run"])
    def run_now(self, request: HttpRequest, queryset: QuerySet[Policy]) -> None:
        actor = actor_of(request)
        self.each(
            request,
            queryset,
            lambda p: backups.start(actor=actor, policy=p, now=timezone.now()),
            "Backups started",
        )

    def has_run_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, "policies.run")

    @action(description="Run now", url_path="run", permissions=["run"])
    def run(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        policy = self.found(request, object_id)
        return self.act(
            request,
            policy,
            title="Run now",
            text=f"Start a backup of {policy.name}.",
            done=f"A backup of {policy.name} has started.",
            do=lambda _: backups.start(actor=actor_of(request), policy=policy, now=timezone.now()),
        )

    def has_abort_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, s3_operations.RIGHT)

    @action(description="Abort in S3", url_path="abort-in-s3", permissions=["abort"])
    def abort_in_s3(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        policy = self.found(request, object_id)
        return self.act(
            request,
            policy,
            title="Abort in S3",
            text=f"Stop the copy, archiving or cleanup that runs for {policy.name} in S3.",
            done="It was asked to stop.",
            do=lambda _: s3_operations.abort_running(actor=actor_of(request), policy=policy),
        )

    @action(description="Add target", url_path="add-target", permissions=["change"])
    def add_target(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        policy = self.found(request, object_id)

        def add(data: dict[str, Any]) -> None:
            policy_targets.add(actor=actor_of(request), policy=policy, data=data, now=timezone.now())

        return self.act(
            request,
            policy,
            title="Add target",
            text=f"Put an AWS resource under {policy.name}. AWS is asked whether it exists.",
            done="The target was added.",
            form=policy_targets.TargetForm,
            do=add,
        )

    @action(description="Set S3 sync", url_path="set-sync", permissions=["change"])
    def set_sync(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        policy = self.found(request, object_id)

        def save(data: dict[str, Any]) -> None:
            policy_syncs.save(actor=actor_of(request), policy=policy, data=data, now=timezone.now())

        return self.act(
            request,
            policy,
            title="Set S3 sync",
            text=f"Have {policy.name} mirror a bucket into another one. This is no backup: nothing can be recovered from it.",
            done="The S3 sync is set.",
            form=policy_syncs.SyncForm,
            do=save,
        )

    @action(description="Remove target", url_path="remove-target", permissions=["change"])
    def remove_target(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        policy = self.found(request, object_id)

        def remove(data: dict[str, Any]) -> None:
            target = policy.targets.filter(aws_resource_id=data["resource_id"].strip()).first()
            if target is None:
                raise NotFound("target", data["resource_id"])
            targets.remove(actor=actor_of(request), target=target)

        return self.act(
            request,
            policy,
            title="Remove target",
            text=f"Take a resource out of {policy.name}. Its snapshots stay until retention removes them.",
            done="The target was removed.",
            form=RemoveTargetForm,
            do=remove,
        )
