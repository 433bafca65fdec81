"""What every admin page shares: rows within the user's reach, writes through services, refusals shown in the form."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from unfold.admin import ModelAdmin
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextInputWidget

from cpm import permissions
from cpm.lib.errors import NON_FIELD, DomainError
from cpm.models import Actor, LogLine, User

ROWS_SHOWN = 200
GOOD, BUSY, POOR, BAD, IDLE = "success", "info", "warning", "danger", ""


def actor_of(request: HttpRequest) -> Actor:
    """Who acts on this page."""
    if not isinstance(request.user, User):
        raise PermissionDenied
    return Actor.of(request.user, source=request.META.get("REMOTE_ADDR", ""))


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> SafeString:
    """Rows as an HTML table; every cell is escaped."""
    head = format_html_join(
        "", '<th class="px-3 py-2 text-left font-semibold">{}</th>', ((c,) for c in columns)
    )
    body = format_html_join(
        "",
        '<tr class="border-t border-base-200 dark:border-base-800">{}</tr>',
        (
            (format_html_join("", '<td class="px-3 py-1">{}</td>', ((_cell(cell),) for cell in row)),)
            for row in rows
        ),
    )
    return format_html(
        '<table class="w-full text-sm"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>', head, body
    )


def _cell(value: Any) -> Any:
    if hasattr(value, "astimezone"):
        return f"{timezone.localtime(value):%Y-%m-%d %H:%M:%S}"
    return "-" if value is None or value == "" else value


def log_table(subject_type: str, subject_id: int | None) -> SafeString:
    """The newest log lines of an operation, oldest first."""
    lines = LogLine.objects.filter(subject_type=subject_type, subject_id=subject_id).order_by("-id")[
        :ROWS_SHOWN
    ]
    return table(["Time", "Level", "Message"], [(x.time, x.level, x.message) for x in reversed(lines)])


def link(row: models.Model, text: object = None) -> SafeString:
    """A link to the admin page of a row."""
    address = reverse(f"admin:cpm_{row._meta.model_name}_change", args=[row.pk])
    return format_html('<a class="text-primary-600" href="{}">{}</a>', address, text or row)


class ServiceForm(forms.ModelForm):
    """Shows what a service refused, at the fields it blames; `named` has those that it calls otherwise."""

    request: HttpRequest
    named: Mapping[str, str] = {}

    def clean(self) -> dict[str, Any] | None:
        cleaned = super().clean()
        refusal: DomainError | None = getattr(self.request, "refusal", None)
        for name, problems in refusal.to_fields().items() if refusal else ():
            field = self.named.get(name, name)
            known = field in self.fields and field != NON_FIELD
            for problem in problems:
                text = problem["message"] if known or field == NON_FIELD else f"{field}: {problem['message']}"
                self.add_error(field if known else None, forms.ValidationError(text, code=problem["code"]))
        return cleaned


class ScopedAdmin(ModelAdmin):
    """Read-only unless a subclass names a right to change; rows out of the user's reach do not exist."""

    read_right = "backups.read"
    change_right = ""
    actions: Any = None
    show_full_result_count = False
    list_per_page = 50

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return permissions.visible(actor_of(request).user, super().get_queryset(request), self.read_right)

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return (
            isinstance(request.user, User) and request.user.is_active and self._may(request, self.read_right)
        )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def _may(self, request: HttpRequest, right: str) -> bool:
        return isinstance(request.user, User) and permissions.allowed(request.user, right)

    def found(self, request: HttpRequest, object_id: Any) -> Any:
        """The row of a detail action. Raises PermissionDenied for one out of reach."""
        row = self.get_object(request, str(object_id))
        if row is None:
            raise PermissionDenied
        return row

    def act(
        self,
        request: HttpRequest,
        row: models.Model,
        *,
        title: str,
        text: str,
        done: str,
        do: Callable[[dict[str, Any]], object],
        form: type[forms.Form] = forms.Form,
        initial: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """Ask for confirmation, with a form if there is something to say; then do it and go back to the row.

        Nothing happens on GET: detail actions are links, and a link may be followed by anything.
        """
        back = reverse(f"admin:cpm_{self.opts.model_name}_change", args=[row.pk])
        bound = form(request.POST if request.method == "POST" else None, initial=initial)
        if request.method == "POST" and bound.is_valid():
            try:
                do(bound.cleaned_data)
            except DomainError as error:
                bound.add_error(None, str(error))
            else:
                messages.success(request, done)
                return HttpResponseRedirect(back)
        style(bound)
        context = {
            **self.admin_site.each_context(request),
            "opts": self.opts, "title": title, "text": text, "form": bound, "back": back, "original": row,
        }  # fmt: skip
        return TemplateResponse(request, "admin/cpm/act.html", context)

    def each(self, request: HttpRequest, rows: Iterable[Any], do: Callable[[Any], object], done: str) -> None:
        """Do something with each chosen row and report; a refusal of one stops none of the others."""
        count = 0
        for row in rows:
            try:
                do(row)
                count += 1
            except DomainError as error:
                messages.error(request, f"{row}: {error}")
        if count:
            messages.success(request, f"{done}: {count}.")


def style(form: forms.Form) -> None:
    """Give plain form fields the look of the admin."""
    for field in form.fields.values():
        if isinstance(field, forms.ChoiceField):
            widget = UnfoldAdminSelectWidget(choices=field.choices)
            field.widget.attrs["class"] = widget.attrs["class"]
        elif not isinstance(field, forms.BooleanField):
            field.widget.attrs["class"] = UnfoldAdminTextInputWidget().attrs["class"]


class ServiceAdmin(ScopedAdmin):
    """A noun that operators make and change. Subclasses implement `store` and `remove` by calling services."""

    form = ServiceForm
    # Fields that cannot be changed once the row is there.
    fixed: tuple[str, ...] = ()

    def store(self, actor: Actor, row: Any, data: dict[str, Any], change: bool) -> models.Model:
        """Create or update through a service and return what it made. May raise DomainError."""
        raise NotImplementedError

    def remove(self, actor: Actor, row: Any) -> None:
        """Delete through a service. May raise DomainError."""
        raise NotImplementedError

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.change_right)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.change_right)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return self._may(request, self.change_right)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        given = super().get_readonly_fields(request, obj)
        return (*given, *self.fixed) if obj is not None else given

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        made = super().get_form(request, obj, change, **kwargs)
        return type(made.__name__, (made,), {"request": request})

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        user = actor_of(request).user
        model = db_field.remote_field.model
        if model is User:
            kwargs["queryset"] = User.objects.filter(pk__in=permissions.owners(user, self.read_right))
        elif model in permissions.OWNER:
            kwargs["queryset"] = permissions.visible(user, model._default_manager.all(), self.read_right)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)

    def changeform_view(
        self, request: HttpRequest, object_id: Any = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        try:
            return super().changeform_view(request, object_id, form_url, extra_context)
        except DomainError as error:
            # Everything is rolled back by now; the second pass shows the same input with what was wrong with it.
            request.refusal = error  # type: ignore[attr-defined]
            return super().changeform_view(request, object_id, form_url, extra_context)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        made = self.store(actor_of(request), obj, form.cleaned_data, change)
        obj.pk, obj._state.adding = made.pk, False

    def save_related(self, request: HttpRequest, form: Any, formsets: Any, change: bool) -> None:
        for formset in formsets:
            self.save_formset(request, form, formset, change=change)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> Any:
        try:
            return super().delete_view(request, object_id, extra_context)
        except DomainError as error:
            messages.error(request, str(error))
            return HttpResponseRedirect(reverse(f"admin:cpm_{self.opts.model_name}_change", args=[object_id]))

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        self.remove(actor_of(request), obj)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Services say what may go and what goes with it; a list of thousands of rows would help nobody."""
        return [str(row) for row in objs], {}, set(), []


def given(data: dict[str, Any], *names: str) -> dict[str, Any]:
    """Those of the named fields that the form has."""
    return {name: data[name] for name in names if name in data}
