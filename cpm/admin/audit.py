"""The audit log: who changed what. Nobody changes it."""

import json
from typing import Any, ClassVar

from django.apps import apps
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from unfold.paginator import InfinitePaginator

from cpm.admin.base import ScopedAdmin, table
from cpm.models import AuditRecord, User

USERS_OFFERED = 200


class ByUser(admin.SimpleListFilter):
    """What one user did. Who is not offered, or is gone, is found by the search."""

    title, parameter_name = "user", "by"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        users = User.objects.order_by("username").values_list("pk", "username")[:USERS_OFFERED]
        return [(str(pk), name) for pk, name in users]

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditRecord]) -> QuerySet[AuditRecord]:
        value = self.value()
        return queryset.filter(user_id=int(value)) if value and value.isdigit() else queryset


class ByNoun(admin.SimpleListFilter):
    """What was changed. The nouns are those of our models, so that no query over all records is needed."""

    title, parameter_name = "kind", "kind"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        models = apps.get_app_config("cpm").get_models()
        return sorted((m._meta.model_name or "", str(m._meta.verbose_name)) for m in models)

    def queryset(self, request: HttpRequest, queryset: QuerySet[AuditRecord]) -> QuerySet[AuditRecord]:
        return queryset.filter(subject_type=self.value()) if self.value() else queryset


@admin.register(AuditRecord)
class AuditAdmin(ScopedAdmin):
    read_right = "audit.read"
    paginator = InfinitePaginator
    list_display = ("event_time", "username", "delegate_of", "event_type", "log", "source")
    list_filter: ClassVar[Any] = ("event_time", ByNoun, ByUser, "user_type")
    search_fields = ("log", "=username", "=original_username", "event_type__startswith")
    search_help_text = "Words of the text, a username, or an event such as policy or policy.created."
    ordering = ("-event_time", "-id")
    fields = (
        "event_time", "event_type", "log", "username", "user_type", "delegate_of", "source", "request_id",
        "subject_type", "subject_id", "owner_id", "changes", "seal", "position",
    )  # fmt: skip
    readonly_fields = ("delegate_of", "changes")

    def get_queryset(self, request: HttpRequest) -> QuerySet[AuditRecord]:
        # Whoever may read the log reads all of it; nobody else gets here (`read_right`).
        return AuditRecord.objects.all()

    @admin.display(description="Delegate of", ordering="original_username")
    def delegate_of(self, row: AuditRecord) -> str:
        return row.original_username or "-"

    @admin.display(description="Changes")
    def changes(self, row: AuditRecord) -> Any:
        names = sorted({**row.before, **row.after})
        return table(
            ["Field", "Before", "After"],
            [(name, _text(row.before.get(name)), _text(row.after.get(name))) for name in names],
        )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)
