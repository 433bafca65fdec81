"""The form that puts an AWS resource under a policy."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms

from cpm.admin import takes
from cpm.models import Actor, Policy, Region, Target
from cpm.resources.registry import WHOLE, WHOLE_BY_KEY
from cpm.services import targets

INSTANCE, VOLUME = "instance", "volume"
DEFAULT = ("", "Default")


def _regions() -> list[tuple[str, str]]:
    names = Region.objects.filter(enabled=True).order_by("aws_region").values_list("aws_region", flat=True)
    return [(name, name) for name in names]


class TargetForm(forms.Form):
    """Any resource. Options of a type are there for all, and count if that type is chosen."""

    kind = forms.ChoiceField(
        choices=[(INSTANCE, "Instance"), (VOLUME, "Volume"), *((one.key, one.noun) for one in WHOLE)]
    )
    region = forms.ChoiceField(choices=_regions)
    resource_id = forms.CharField(
        label="Id or name",
        help_text="As AWS knows it: i-0123456789abcdef0, vol-0123456789abcdef0, or the name of a database or table.",
    )

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for kind in WHOLE:
            for one in kind.target_takes:
                field = takes.field_of(one, empty=DEFAULT)
                field.required, field.label = False, f"{kind.noun}: {takes.label_of(one.name)}"
                self.fields[f"{kind.key}-{one.name}"] = field


def add(*, actor: Actor, policy: Policy, data: Mapping[str, Any], now: datetime) -> Target:
    """Puts what the form says under the policy. Raises what the services of targets raise."""
    kind, id = data["kind"], data["resource_id"].strip()
    if kind in WHOLE_BY_KEY:
        names = [one.name for one in WHOLE_BY_KEY[kind].target_takes]
        options = takes.said({name: data[f"{kind}-{name}"] for name in names})
        return targets.add_whole(
            actor=actor, policy=policy, key=kind, region=data["region"], resource_id=id, now=now, options=options
        )
    service = targets.add_instance if kind == INSTANCE else targets.add_volume
    return service(actor=actor, policy=policy, region=data["region"], resource_id=id, now=now)
