"""The form that has a policy mirror a bucket, or changes how it does."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django import forms

from cpm.lib.errors import NotFound
from cpm.lib.states import SyncStorageClass
from cpm.models import Account, Actor, Policy, Target
from cpm.services import s3_sync_targets


class SyncForm(forms.Form):
    """All of a sync. A bucket that the policy mirrors already gets what is said here instead."""

    name = forms.CharField(label="Source bucket")
    source_prefix = forms.CharField(required=False, strip=False, help_text="Folder of the source, if not all of it.")
    destination_bucket_name = forms.CharField(label="Destination bucket")
    destination_prefix = forms.CharField(required=False, strip=False, help_text="Folder in the destination.")
    destination_account = forms.CharField(
        required=False, help_text="Name of the account of the destination; empty for the policy's."
    )
    keep_source_prefix = forms.BooleanField(
        required=False, help_text="Keys in the destination begin with the source's prefix, too."
    )
    delete_extra = forms.BooleanField(
        required=False, help_text="Objects that the source does not have are deleted in the destination."
    )
    storage_class = forms.ChoiceField(choices=SyncStorageClass.choices())


def save(*, actor: Actor, policy: Policy, data: Mapping[str, Any], now: datetime) -> Target:
    """Does what the form says. Raises what `s3_sync_targets` raises."""
    account = _account(policy, data["destination_account"].strip())
    said = {**data, "destination_account": account, "storage_class": SyncStorageClass(data["storage_class"])}
    present = policy.targets.filter(resource_type=s3_sync_targets.KEY, aws_resource_id=data["name"]).first()
    if present is None:
        return s3_sync_targets.add(actor=actor, policy=policy, now=now, **said)
    return s3_sync_targets.update(actor=actor, target=present, now=now, **said)


def _account(policy: Policy, name: str) -> int | None:
    if not name:
        return None
    found = Account.objects.filter(user=policy.user_id, name=name).first()
    if found is None:
        raise NotFound("account", name, field=s3_sync_targets.ACCOUNT)
    return found.pk
