"""S3 repositories: where they are, what they hold, how the last verification ended, and verifying them."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import Count, Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.safestring import SafeString
from unfold.decorators import action, display

from cpm.admin.base import BAD, BUSY, GOOD, IDLE, POOR, ScopedAdmin, actor_of, log_table
from cpm.lib.states import DeletionStatus, Encryption, LockMode, SnapshotStatus, VerifyDepth, VerifyResult
from cpm.models import S3Repository
from cpm.services import repositories, repository_settings

NEVER = "Never"


class VerifyForm(forms.Form):
    depth = forms.ChoiceField(choices=VerifyDepth.choices())


class SettingsForm(forms.Form):
    encryption = forms.ChoiceField(choices=Encryption.choices(), required=False)
    kms_key = forms.CharField(label="KMS key", required=False, help_text="Id or ARN, with a KMS key only.")
    lock_mode = forms.ChoiceField(choices=LockMode.choices(), required=False)
    lock_days = forms.IntegerField(
        min_value=0, help_text="For how long objects are locked; 0 without a lock."
    )
    verify_every_days = forms.IntegerField(min_value=0, help_text="Days between verifications; 0 is never.")
    verify_depth = forms.ChoiceField(choices=VerifyDepth.choices())
    export_role_arn = forms.CharField(
        label="Export role", required=False, help_text="ARN of the role with which RDS exports databases here."
    )
    export_kms_key_id = forms.CharField(
        label="Export key", required=False, help_text="Id or ARN of the key of exported files."
    )


@admin.register(S3Repository)
class S3RepositoryAdmin(ScopedAdmin):
    read_right = "s3_repositories.read"
    list_display = (
        "name", "user", "account", "aws_bucket_name", "aws_region", "copies_stored", "damaged_copies", "mebibytes",
        "verified", "last_verified_at", "verify_every_days", "deletion",
    )  # fmt: skip
    list_filter = ("last_verify_result", "deletion_status", "account")
    list_select_related = ("user", "account")
    search_fields = ("name", "aws_bucket_name")
    ordering = ("name", "id")
    fields = (
        "user", "account", "name", "description", "aws_bucket_name", "aws_region", "prefix", "versioned",
        "encryption", "kms_key", "lock_mode", "lock_days", "verify_every_days", "verify_depth",
        "export_role_arn", "export_kms_key_id",
        "copies_stored", "damaged_copies", "blocks_stored", "bytes_stored", "usage_updated_at", "last_verified_at",
        "last_verify_depth", "verified", "last_verify_details", "deletion", "deletion_error", "created_at", "log",
    )  # fmt: skip
    readonly_fields = ("verified", "deletion", "log", "mebibytes", "damaged_copies")
    actions_detail = ("verify", "configure")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        damaged = Q(s3_copies__damaged=True, s3_copies__status=SnapshotStatus.COMPLETED)
        return super().get_queryset(request).annotate(damaged=Count("s3_copies", filter=damaged))

    @admin.display(description="Damaged", ordering="damaged")
    def damaged_copies(self, row: Any) -> int:
        count: int = row.damaged
        return count

    @admin.display(description="MiB", ordering="bytes_stored")
    def mebibytes(self, row: S3Repository) -> int:
        return row.bytes_stored >> 20

    @display(
        description="Last verification",
        ordering="last_verify_result",
        label={
            VerifyResult.SOUND.label: GOOD,
            VerifyResult.DAMAGED.label: BAD,
            VerifyResult.FAILED.label: POOR,
            NEVER: IDLE,
        },
    )
    def verified(self, row: S3Repository) -> str:
        return row.get_last_verify_result_display() or NEVER

    @display(
        description="Deletion",
        ordering="deletion_status",
        label={DeletionStatus.IN_PROGRESS.label: BUSY, DeletionStatus.FAILED.label: BAD},
    )
    def deletion(self, row: S3Repository) -> str:
        return row.get_deletion_status_display()

    @admin.display(description="Log")
    def log(self, row: S3Repository) -> SafeString:
        return log_table("repository", row.pk)

    def has_act_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, repositories.RIGHT)

    @action(description="Verify", url_path="verify", permissions=["act"])
    def verify(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="Verify",
            text=f"A worker looks for damage in {row.name}. The list is quick; every byte is read and paid for.",
            done="A worker verifies the repository; the result appears here.",
            form=VerifyForm,
            do=lambda data: repositories.start_verification(
                actor=actor_of(request), repository=row, depth=VerifyDepth(data["depth"])
            ),
        )

    @action(description="Settings", url_path="configure", permissions=["act"])
    def configure(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="Settings",
            text="New objects are put like this; those that are there stay as they are. What is locked in COMPLIANCE "
            "mode nobody can delete, and that mode stays for good.",
            done="The settings are saved.",
            form=SettingsForm,
            initial={name: getattr(row, name) for name in repository_settings.FIELDS},
            do=lambda data: repository_settings.configure(actor=actor_of(request), repository=row, **data),
        )
