"""Form fields for what a resource type says that its requests take."""

from collections.abc import Mapping, Sequence
from typing import Any

from django import forms

from cpm.models import Account
from cpm.resources.fields import Takes

ACCOUNT = "to_account"
AS_IT_WAS = ("", "As it was")
ABBREVIATIONS = {"aws", "arn", "az", "db", "efs", "iam", "id", "iops", "kms", "vpc"}


def label_of(name: str) -> str:
    """The name of a field as a person reads it."""
    words = [word.upper() if word in ABBREVIATIONS else word for word in name.split("_")]
    text = " ".join(words)
    return text[0].upper() + text[1:]


def field_of(one: Takes, *, empty: tuple[str, str] = AS_IT_WAS) -> forms.Field:
    """A form field for it; what is left empty says nothing."""
    common: dict[str, Any] = {"required": one.required, "label": label_of(one.name), "help_text": one.help}
    if one.choices is not None or one.words:
        choices = one.choices.choices() if one.choices is not None else [(word, word) for word in one.words]
        return forms.ChoiceField(choices=choices if one.required else [empty, *choices], **common)
    if one.holds is bool:
        switch = [empty, ("yes", "Yes"), ("no", "No")]
        return forms.TypedChoiceField(
            choices=switch, coerce=lambda text: text == "yes", empty_value=None, **common
        )
    if one.holds is int:
        return forms.IntegerField(min_value=0, **common)
    return forms.CharField(max_length=1024, **common)


def recovery_form(takes: Sequence[Takes], accounts: Any) -> type[forms.Form]:
    """A form for a recovery; its data has the `request` as services take it."""
    fields: dict[str, Any] = {}
    for one in takes:
        if one.name == ACCOUNT:
            fields[one.name] = forms.ModelChoiceField(
                accounts, required=one.required, label="To account", empty_label=AS_IT_WAS[1]
            )
        else:
            fields[one.name] = field_of(one)

    def clean(self: forms.Form) -> dict[str, Any]:
        return {"request": said(self.cleaned_data)}

    return type("RecoveryForm", (forms.Form,), {**fields, "clean": clean})


def said(data: Mapping[str, Any]) -> dict[str, Any]:
    """What was filled in, with ids in place of rows."""
    return {
        name: value.pk if isinstance(value, Account) else value
        for name, value in data.items()
        if value not in (None, "")
    }
