"""Logging in to the admin and changing one's own password there: failures are counted as they are in the API."""

from typing import Any

from django import forms
from django.contrib import admin
from django.contrib.auth.views import PasswordChangeView
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import reverse_lazy
from django.utils import timezone
from django.views.decorators.cache import never_cache
from unfold.forms import AdminOwnPasswordChangeForm, AuthenticationForm

from cpm.admin.base import actor_of
from cpm.lib.errors import DomainError, TooManyAttempts
from cpm.services import attempts, audit, users


class LoginForm(AuthenticationForm):
    """Name and password, as long as neither the name nor the address has failed too often."""

    def clean(self) -> dict[str, Any]:
        request: HttpRequest = self.request
        name, password = self.cleaned_data.get("username"), self.cleaned_data.get("password")
        if not (name and password):
            # Nothing is looked at, so it is neither a failure nor a success.
            incomplete: dict[str, Any] = super().clean()
            return incomplete
        counters = attempts.by_password(request.META.get("REMOTE_ADDR", ""), name)
        try:
            with attempts.counted(counters, now=timezone.now(), refusals=(forms.ValidationError,)):
                found: dict[str, Any] = super().clean()
        except TooManyAttempts as error:
            request.retry_after = error.seconds  # type: ignore[attr-defined]
            raise forms.ValidationError(str(error), code=error.code) from error
        return found


class OwnPasswordForm(AdminOwnPasswordChangeForm):
    """The old password and a new one. What the service refuses is shown at the field that it blames."""

    names = {"old_password": "old_password", "new_password": "new_password1"}
    request: HttpRequest

    def clean_old_password(self) -> str:
        # The service looks at it, and counts.
        old: str = self.cleaned_data["old_password"]
        return old

    def clean(self) -> dict[str, Any]:
        cleaned: dict[str, Any] = super().clean()
        if self.errors:
            return cleaned
        try:
            users.change_own_password(
                actor=actor_of(self.request),
                old_password=cleaned["old_password"],
                new_password=cleaned["new_password1"],
                now=timezone.now(),
            )
        except DomainError as error:
            for field, problems in error.to_fields().items():
                for problem in problems:
                    refusal = forms.ValidationError(problem["message"], code=problem["code"])
                    self.add_error(self.names.get(field), refusal)
        else:
            # What the session is tied to has changed.
            self.user.refresh_from_db()
        return cleaned

    def save(self, commit: bool = True) -> Any:
        return self.user


class OwnPasswordView(PasswordChangeView):
    form_class = OwnPasswordForm
    success_url = reverse_lazy("admin:password_change_done")
    template_name = "registration/password_change_form.html"

    def get_form(self, form_class: Any = None) -> Any:
        form: Any = super().get_form(form_class)
        form.request = self.request
        return form

    def get_context_data(self, **kwargs: Any) -> dict[str, Any]:
        return super().get_context_data(**admin.site.each_context(self.request), **kwargs)


@never_cache
def login(request: HttpRequest) -> HttpResponse:
    """The admin's login page; 429 while logging in is blocked."""
    response = admin.site.login(request)
    if request.method == "POST" and request.user.is_authenticated and response.status_code == 302:
        audit.record(actor_of(request), "user.logged_in", actor_of(request).user)
    if seconds := getattr(request, "retry_after", 0):
        response.status_code = 429
        response["Retry-After"] = str(seconds)
    return response


def change_password(request: HttpRequest) -> HttpResponseBase:
    """The page on which people change their own password."""
    return admin.site.admin_view(OwnPasswordView.as_view(), cacheable=True)(request)


admin.site.login_form = LoginForm
