"""API keys: minted, shown once, revoked."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.debug import sensitive_variables
from unfold.decorators import display

from cpm.admin.base import GOOD, IDLE, ServiceAdmin, ServiceForm, actor_of
from cpm.lib.secrets import hash_api_key
from cpm.lib.states import Role
from cpm.models import Actor, ApiKey, User
from cpm.services import apikeys


class KeyForm(ServiceForm):
    class Meta:
        model = ApiKey
        fields = ("user", "name")


@admin.register(ApiKey)
class ApiKeyAdmin(ServiceAdmin):
    """Everybody sees and makes their own keys; root those of all users."""

    form = KeyForm
    fields = ("user", "name")
    list_display = ("name", "user", "prefix", "state", "created_at", "last_used_at")
    list_select_related = ("user",)
    search_fields = ("name", "user__username")
    actions = ("revoke",)

    @display(description="State", label={"Active": GOOD, "Revoked": IDLE})
    def state(self, row: ApiKey) -> str:
        return "Revoked" if row.revoked_at else "Active"

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiKey]:
        user = actor_of(request).user
        rows = ApiKey.objects.order_by("user__username", "-id")
        return rows if user.role == Role.ROOT else rows.filter(user=user)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return isinstance(request.user, User)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return isinstance(request.user, User)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        user = actor_of(request).user
        users = User.objects.all() if user.role == Role.ROOT else User.objects.filter(pk=user.pk)
        return forms.ModelChoiceField(users, initial=user)

    @sensitive_variables()
    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        data = form.cleaned_data
        # Kept for the answer to this request only.
        key = apikeys.mint(actor=actor_of(request), user=data["user"], name=data["name"])
        request.minted = key  # type: ignore[attr-defined]
        made = ApiKey.objects.get(key_hash=hash_api_key(key))
        obj.pk, obj._state.adding = made.pk, False

    def response_add(self, request: HttpRequest, obj: Any, post_url_continue: Any = None) -> HttpResponse:
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "title": f"API key {obj.name}",
            "key": request.minted,  # type: ignore[attr-defined]
            "back": reverse("admin:cpm_apikey_changelist"),
        }
        # The admin marks all its pages no-store, so the key stays in no cache.
        return TemplateResponse(request, "admin/cpm/key.html", context)

    @admin.action(description="Revoke", permissions=["view"])
    def revoke(self, request: HttpRequest, queryset: QuerySet[ApiKey]) -> None:
        actor: Actor = actor_of(request)
        self.each(
            request,
            queryset,
            lambda key: apikeys.revoke(actor=actor, key=key, now=timezone.now()),
            "Keys revoked",
        )
