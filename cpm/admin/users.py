"""Users, made by root; nobody's password is ever shown."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from unfold.decorators import action
from unfold.widgets import UnfoldAdminPasswordWidget

from cpm.admin.base import ServiceAdmin, ServiceForm, actor_of, given
from cpm.models import Actor, User
from cpm.services import users

PROFILE = (
    "email", "allow_account_changes", "allow_backup_changes", "allow_recovery", "allow_settings_changes",
    "allow_file_level_recovery", "allow_cost_explorer", "max_accounts", "max_instances", "max_independent_ebs_gib",
)  # fmt: skip


class UserForm(ServiceForm):
    password = forms.CharField(widget=UnfoldAdminPasswordWidget(render_value=False), strip=False)

    class Meta:
        model = User
        fields = ("username", "role", "original_user", *PROFILE)


class PasswordForm(forms.Form):
    password = forms.CharField(widget=forms.PasswordInput, strip=False, label="New password")


@admin.register(User)
class UserAdmin(ServiceAdmin):
    form = UserForm
    change_right = "users.change"
    fields = ("username", "password", "role", "original_user", *PROFILE)
    list_display = ("username", "role", "original_user", "email", "is_active", "last_login")
    list_filter = ("role", "is_active")
    list_select_related = ("original_user",)
    search_fields = ("username", "email")
    actions_detail = ("set_password",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        actor = actor_of(request)
        rows = User.objects.order_by("username")
        return rows if self._may(request, self.change_right) else rows.filter(pk=actor.user.pk)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        shown = ("username", "role", "original_user", *PROFILE, "is_active", "last_login", "date_joined")
        return shown if obj is not None else self.fields

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return forms.ModelChoiceField(User.objects.filter(original_user=None), required=False)

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> User:
        return users.create(
            actor=actor,
            username=data["username"],
            password=data["password"],
            role=data["role"],
            original_user=data["original_user"],
            **given(data, *PROFILE),  # type: ignore[typeddict-item]
        )

    @action(description="Set password", url_path="set-password")
    def set_password(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        user = self.found(request, object_id)
        return self.act(
            request,
            user,
            title="Set password",
            text=f"Give {user.username} a new password. Sessions that are open end.",
            done=f"{user.username} has a new password.",
            form=PasswordForm,
            do=lambda data: users.set_password(actor=actor_of(request), user=user, password=data["password"]),
        )


# Rights are those of `cpm.permissions`; Django's groups would suggest otherwise.
admin.site.unregister(Group)
