"""Notification settings and the e-mail identity. Secret keys can be entered and never be read."""

from typing import Any

from django import forms
from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.utils.safestring import SafeString
from unfold.decorators import action
from unfold.widgets import UnfoldAdminPasswordWidget, UnfoldAdminTextInputWidget, UnfoldBooleanSwitchWidget

from cpm.admin.base import ServiceAdmin, ServiceForm, actor_of, log_table
from cpm.flows.messages import notify
from cpm.lib.errors import ValidationFailed
from cpm.lib.states import Authentication
from cpm.models import Actor, EmailIdentity, Notification
from cpm.services import email_identity, notifications

# Where the form shows what a service says about its fields.
SHOWN_AT = {
    "sns_authentication": "authentication", "sns_region": "region", "sns_account": "account",
    "alerts.sns_alerts_topic_arn": "alerts_topic_arn", "alerts.add_user_email": "add_user_email",
    "daily_summary.sns_summary_topic_arn": "summary_topic_arn",
    "daily_summary.use_same_sns_topic": "use_same_topic",
    "daily_summary.add_user_email_to_summary": "add_user_email_to_summary",
    "sns_access_key": "new_access_key", "sns_secret_key": "new_secret_key",
    "ses_authentication": "authentication", "ses_region": "region", "ses_account": "account",
    "ses_access_key": "new_access_key", "ses_secret_key": "new_secret_key",
}  # fmt: skip


def _switch(label: str, help_text: str = "") -> forms.BooleanField:
    return forms.BooleanField(
        required=False, label=label, help_text=help_text, widget=UnfoldBooleanSwitchWidget
    )


class KeysForm(ServiceForm):
    """A form with a pair of keys."""

    new_access_key = forms.CharField(
        required=False, max_length=128, widget=UnfoldAdminTextInputWidget, label="Access key"
    )
    new_secret_key = forms.CharField(
        required=False,
        widget=UnfoldAdminPasswordWidget(render_value=False, attrs={"autocomplete": "new-password"}),
        label="Secret key",
        help_text="Stored encrypted and never shown. Empty keeps the one that is stored.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.initial.setdefault("new_access_key", self.instance.access_key)


class NotificationForm(KeysForm):
    create_new_topic = _switch("Create the topic", "Makes a topic for the user's alerts, and uses it.")
    add_user_email = _switch("Subscribe the user", "The address must be confirmed within three days.")
    create_new_summery_topic = _switch(
        "Create the topic", "Makes a topic for the user's summaries, and uses it."
    )
    add_user_email_to_summary = _switch(
        "Subscribe the user", "The address must be confirmed within three days."
    )

    class Meta:
        model = Notification
        fields = (
            "user", "authentication", "account", "region", "include_managed_user_alerts", "alerts_enabled",
            "alerts_topic_arn", "summary_enabled", "summary_time", "use_same_topic", "summary_topic_arn",
        )  # fmt: skip


def _keys(prefix: str, data: dict[str, Any]) -> dict[str, str]:
    if data["authentication"] != Authentication.KEYS:
        return {}
    secret = {f"{prefix}_secret_key": data["new_secret_key"]} if data["new_secret_key"] else {}
    return {f"{prefix}_access_key": data["new_access_key"], **secret}


def _blaming_the_form(error: ValidationFailed) -> ValidationFailed:
    return ValidationFailed({SHOWN_AT.get(name, name): pairs for name, pairs in error.errors.items()})


@admin.register(Notification)
class NotificationAdmin(ServiceAdmin):
    form = NotificationForm
    read_right = "notifications.read"
    change_right = "notifications.change"
    fixed = ("user",)
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "user", "authentication", "new_access_key", "new_secret_key", "account", "region",
                    "include_managed_user_alerts", "last_error",
                )
            },
        ),
        ("Alerts", {"fields": ("alerts_enabled", "alerts_topic_arn", "create_new_topic", "add_user_email")}),
        (
            "Daily summary",
            {
                "fields": (
                    "summary_enabled", "summary_time", "use_same_topic", "summary_topic_arn",
                    "create_new_summery_topic", "add_user_email_to_summary", "next_summary_at", "last_summary_at",
                )
            },
        ),
        ("Log", {"fields": ("log",)}),
    )  # fmt: skip
    readonly_fields = ("last_error", "next_summary_at", "last_summary_at", "log")
    list_display = ("user", "alerts_enabled", "summary_enabled", "next_summary_at", "last_error")
    list_filter = ("alerts_enabled", "summary_enabled")
    list_select_related = ("user",)
    search_fields = ("user__username",)
    ordering = ("user__username", "id")
    actions_detail = ("test_summary",)

    @admin.display(description="Sent")
    def log(self, row: Notification) -> SafeString:
        return log_table(notify.SUBJECT, row.pk)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> Notification:
        account = data["account"]
        fields: dict[str, Any] = {
            "sns_authentication": Authentication(data["authentication"]), "sns_region": data["region"],
            "sns_account": account.pk if account else None, **_keys("sns", data),
            "include_managed_user_alerts": data["include_managed_user_alerts"],
            "alerts": {
                "enabled": data["alerts_enabled"], "sns_alerts_topic_arn": data["alerts_topic_arn"],
                "create_new_topic": data["create_new_topic"], "add_user_email": data["add_user_email"],
            },
            "daily_summary": {
                "enable_summary": data["summary_enabled"], "sns_summary_topic_arn": data["summary_topic_arn"],
                "summary_daily_time": data["summary_time"], "use_same_sns_topic": data["use_same_topic"],
                "create_new_summery_topic": data["create_new_summery_topic"],
                "add_user_email_to_summary": data["add_user_email_to_summary"],
            },
        }  # fmt: skip
        now = timezone.now()
        try:
            if change:
                kept = Notification.objects.get(pk=row.pk)
                return notifications.update(actor=actor, notification=kept, now=now, **fields)
            return notifications.create(actor=actor, user=data["user"].pk, now=now, **fields)
        except ValidationFailed as error:
            raise _blaming_the_form(error) from error

    def has_test_permission(self, request: HttpRequest, object_id: Any = None) -> bool:
        return self._may(request, notifications.RIGHT)

    @action(description="Send a summary now", url_path="test-summary", permissions=["test"])
    def test_summary(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="Send a summary now",
            text=f"Send the daily summary of {row.user} at once.",
            done="The summary was sent.",
            do=lambda _: notifications.test_daily_summary(
                actor=actor_of(request), notification=row, now=timezone.now()
            ),
        )


class IdentityForm(KeysForm):
    class Meta:
        model = EmailIdentity
        fields = ("enabled", "email_address", "authentication", "account", "region", "verify_source_address")


class AddressForm(forms.Form):
    email_address = forms.EmailField(label="Address")


@admin.register(EmailIdentity)
class EmailIdentityAdmin(ServiceAdmin):
    form = IdentityForm
    read_right = email_identity.READ_RIGHT
    change_right = email_identity.RIGHT
    fields = (
        "enabled", "email_address", "authentication", "new_access_key", "new_secret_key", "account", "region",
        "verify_source_address",
    )  # fmt: skip
    list_display = ("email_address", "enabled", "region")
    actions_detail = ("verify",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        EmailIdentity.current()
        return EmailIdentity.objects.order_by("id")

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> EmailIdentity:
        account, authentication = data["account"], data["authentication"]
        fields: dict[str, Any] = {
            "email_address": data["email_address"], "ses_region": data["region"],
            "ses_account": str(account.pk) if account else "", **_keys("ses", data),
            "verify_source_address": data["verify_source_address"],
        }  # fmt: skip
        if authentication:
            fields["ses_authentication"] = Authentication(authentication)
        try:
            return email_identity.change(actor=actor, enabled=data["enabled"], **fields)
        except ValidationFailed as error:
            raise _blaming_the_form(error) from error

    @action(description="Verify an address", url_path="verify", permissions=["change"])
    def verify(self, request: HttpRequest, object_id: Any) -> HttpResponse:
        row = self.found(request, object_id)
        return self.act(
            request,
            row,
            title="Verify an address",
            text="Amazon SES writes to the address; its owner must follow the link in that mail.",
            done="SES was asked to verify the address.",
            form=AddressForm,
            do=lambda data: email_identity.verify(actor=actor_of(request), **data),
        )
