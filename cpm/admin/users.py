"""Users and delegates, made and changed by root; everybody sees their own record, and nobody's password is shown."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.models import Group
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from unfold.decorators import action
from unfold.widgets import UnfoldAdminPasswordWidget

from cpm.admin.base import ServiceAdmin, ServiceForm, actor_of, given
from cpm.lib.states import Role
from cpm.models import Actor, User
from cpm.services import user_deletion, users

USER_PROFILE = (*users.USER_FLAGS, *users.LIMITS, "applied_managed_users")
KNOWN = ("is_active", "domain_name", "tokens_valid_from", "last_login", "date_joined")
PROFILES = {
    Role.ROOT: (), Role.INDEPENDENT: USER_PROFILE, Role.MANAGED: USER_PROFILE, Role.DELEGATE: users.DELEGATE_FLAGS,
}  # fmt: skip


class UserForm(ServiceForm):
    class Meta:
        model = User
        fields = ("username", "role", "original_user", "email", *USER_PROFILE, *users.DELEGATE_FLAGS)


class NewUserForm(UserForm):
    password = forms.CharField(widget=UnfoldAdminPasswordWidget(render_value=False), strip=False)


class PasswordForm(forms.Form):
    password = forms.CharField(widget=forms.PasswordInput, strip=False, label="New password")


@admin.register(User)
class UserAdmin(ServiceAdmin):
    form = UserForm
    change_right = "users.change"
    fixed = ("username", "original_user")
    fields = ("username", "password", "role", "original_user", "email", *USER_PROFILE, *users.DELEGATE_FLAGS)
    readonly_fields = KNOWN
    list_display = ("username", "role", "original_user", "email", "is_active", "last_login")
    list_filter = ("role", "is_active")
    list_select_related = ("original_user",)
    search_fields = ("username", "email")
    actions_detail = ("set_password", "end_tokens", "activate", "deactivate")

    def get_queryset(self, request: HttpRequest) -> QuerySet[User]:
        actor = actor_of(request)
        rows = User.objects.order_by("username")
        return rows if self._may(request, self.change_right) else rows.filter(pk=actor.user.pk)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        if obj is None:
            return self.fields
        return ("username", "role", "original_user", "email", *PROFILES[Role(obj.role)], *KNOWN)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        given = super().get_readonly_fields(request, obj)
        return (*given, "role") if obj and obj.role in (Role.ROOT, Role.DELEGATE) else given

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        return super().get_form(request, obj, change, **{"form": UserForm if obj else NewUserForm, **kwargs})

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.change_right) and (obj is None or obj.role != Role.ROOT)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return forms.ModelChoiceField(User.objects.filter(original_user=None), required=False)

    def formfield_for_manytomany(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        return super().formfield_for_manytomany(
            db_field, request, queryset=User.objects.filter(role=Role.MANAGED), **kwargs
        )

    def formfield_for_choice_field(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if db_field.name == "role":
            kwargs["choices"] = [choice for choice in Role.choices() if choice[0] != Role.ROOT]
        return super().formfield_for_choice_field(db_field, request, **kwargs)

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> User:
        stored = User.objects.get(pk=row.pk) if change else None
        role = Role(data.get("role") or (stored.role if stored else Role.INDEPENDENT))
        profile = given(data, "email", *PROFILES[role])
        if "applied_managed_users" in profile:
            profile["applied_managed_users"] = [user.pk for user in profile["applied_managed_users"]]
        if stored:
            wanted = role if "role" in data else None
            return users.update(actor=actor, user=stored, role=wanted, **profile)  # type: ignore[typeddict-item]
        original = data["original_user"]
        return users.create(
            actor=actor,
            username=data["username"],
            password=data["password"],
            role=role,
            original_user=original.pk if original else None,
            **profile,  # type: ignore[typeddict-item]
        )

    def remove(self, actor: Actor, row: Any) -> None:
        user_deletion.delete(actor=actor, user=row)

    @action(description="Set password", url_path="set-password")
    def set_password(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        user = self.found(request, object_id)
        if user.pk == actor_of(request).user.pk:
            return HttpResponseRedirect(reverse("admin:password_change"))
        return self.act(
            request,
            user,
            title="Set password",
            text=f"Give {user.username} a new password. Sessions and tokens end; API keys go on.",
            done=f"{user.username} has a new password.",
            form=PasswordForm,
            do=lambda data: users.reset_password(
                actor=actor_of(request), user=user, password=data["password"], now=timezone.now()
            ),
        )

    @action(description="End tokens", url_path="end-tokens")
    def end_tokens(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        user = self.found(request, object_id)
        return self.act(
            request,
            user,
            title="End tokens",
            text=f"All access and refresh tokens of {user.username} stop working. API keys go on and give new ones.",
            done=f"The tokens of {user.username} have ended.",
            do=lambda _: users.revoke_tokens(actor=actor_of(request), user=user, now=timezone.now()),
        )

    @action(description="Activate", url_path="activate")
    def activate(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self._set_active(request, object_id, active=True)

    @action(description="Deactivate", url_path="deactivate")
    def deactivate(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        return self._set_active(request, object_id, active=False)

    def _set_active(self, request: HttpRequest, object_id: Any, *, active: bool) -> HttpResponse:
        user = self.found(request, object_id)
        what = (
            "may log in again"
            if active
            else "and delegates of it can no longer log in; tokens and sessions end"
        )
        return self.act(
            request,
            user,
            title="Activate" if active else "Deactivate",
            text=f"{user.username} {what}. Policies go on as they are.",
            done=f"{user.username} is {'active' if active else 'no longer active'}.",
            do=lambda _: users.set_active(
                actor=actor_of(request), user=user, active=active, now=timezone.now()
            ),
        )


# Rights are those of `cpm.permissions`; Django's groups would suggest otherwise.
admin.site.unregister(Group)
