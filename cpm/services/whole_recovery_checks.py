"""What a request to recover a database, cluster, table or file system must fulfil before anything starts."""

from collections.abc import Mapping
from typing import Any

from cpm.aws import gateway
from cpm.aws.client import AwsClient
from cpm.aws.errors import AwsError
from cpm.aws.identity import Identity, Keys
from cpm.flows import whole
from cpm.flows.identities import account_number_of, identity_of
from cpm.lib.errors import PreconditionFailed
from cpm.lib.secrets import KeyFileError, SecretUnreadable
from cpm.lib.states import BackupStatus, SnapshotStatus
from cpm.models import Account, Snapshot
from cpm.resources.registry import WHOLE_BY_KEY
from cpm.resources.whole import Place, Problems, WholeResource
from cpm.services import recovery_checks


def type_of(snapshot: Snapshot) -> WholeResource:
    """The type of the resource; raises PreconditionFailed for a record that is recovered otherwise."""
    if snapshot.resource_type not in WHOLE_BY_KEY:
        raise PreconditionFailed("not_offered", "This record is not recovered as a whole.")
    return whole.type_of(snapshot)


def recoverable(snapshot: Snapshot) -> None:
    """Raise PreconditionFailed unless this very snapshot is complete and its backup was not deleted."""
    recovery_checks.finished(snapshot)
    backup = snapshot.backup
    if backup.deleted_at is not None or backup.status in {BackupStatus.DELETED, BackupStatus.FAILED}:
        label = BackupStatus(backup.status).label
        raise PreconditionFailed("backup_not_recoverable", f"This backup cannot be recovered from: {label}.")
    if snapshot.status == SnapshotStatus.DELETED:
        message = f"The snapshot of {snapshot.source_id} in this backup was deleted."
        raise PreconditionFailed("snapshot_not_recoverable", message)
    if snapshot.status != SnapshotStatus.COMPLETED or not snapshot.aws_id or snapshot.account_id is None:
        message = f"This backup has no complete snapshot of {snapshot.source_id}. {snapshot.error}".strip()
        raise PreconditionFailed("snapshot_not_recoverable", message)


def preflight(
    snapshot: Snapshot, request: Mapping[str, Any], where: Mapping[str, Any], credentials: Mapping[str, str] | None
) -> Problems:
    """What AWS has, or lacks, that makes the recovery impossible. Raises PreconditionFailed if it cannot be asked."""
    account = Account.objects.select_related("assume_from_account").get(pk=where["target_account"])
    try:
        identity = _identity(account, credentials)
        number = account.account_number or account_number_of(account, session="cpm-preflight")
        place = Place(number, where["target_region"], same_account=account.pk == snapshot.account_id)

        def client(service: str) -> AwsClient:
            return gateway.client(identity, service, place.region)

        return whole.type_of(snapshot).preflight(client, whole.held(snapshot), request, place)
    except AwsError as error:
        raise PreconditionFailed(f"aws_{error.family}", error.explain()) from error
    except (SecretUnreadable, KeyFileError) as error:
        raise PreconditionFailed("secret_unreadable", str(error)) from error


def _identity(account: Account, credentials: Mapping[str, str] | None) -> Identity:
    key, secret = ((credentials or {}).get(name) for name in ("aws_access_key", "aws_secret_key"))
    if key and secret:
        return Keys(key, secret, account_number=account.account_number or None)
    return identity_of(account, session="cpm-preflight")
