"""Stopping what runs in S3: the copy of a backup, the archiving or the cleanup of a policy."""

from django.db.models import BigIntegerField, Value
from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from api.fields import Always, Fields, Integer
from api.views import Endpoint, Operation
from cpm.features import Feature
from cpm.models import Backup, Policy
from cpm.services import s3_operations

RIGHT, FEATURE = s3_operations.RIGHT, Feature.COPY_TO_S3
# What an abort of anything answers: `copy`, `archive` or `cleanup`, and the backup whose copy it is.
ABORTED_FIELDS = Fields(
    backup=Integer(Value(None, output_field=BigIntegerField())),
    operation=Always("copy", {"type": "string", "enum": ["copy", "archive", "cleanup"]}),
)


class BackupCopy(Endpoint):
    """The copy of one backup to S3."""

    operations = {
        "abort": Operation(
            RIGHT, since="1.3.0", answers=201, content=False, feature=FEATURE,
            summary="Stop copying a backup to S3",
        ),
    }  # fmt: skip

    def abort(self, request: Request, backup_id: int) -> Response:
        backup = self.found(Backup.objects.all(), backup_id, "backup")
        s3_operations.abort_copy(actor=self.actor, backup=backup)
        return self.done()


class PolicyOperations(Endpoint):
    """What runs in S3 for a policy. To stop archiving or a cleanup that does not run is no mistake."""

    operations = {
        "abort_archive": Operation(
            RIGHT, since="1.4.0", content=False, feature=FEATURE, summary="Stop archiving for a policy"
        ),
        "abort_cleanup": Operation(
            RIGHT, since="1.4.0", content=False, feature=FEATURE, summary="Stop a policy's cleanup in S3"
        ),
        "abort": Operation(
            RIGHT, since="1.4.0", answers=201, fields=ABORTED_FIELDS, feature=FEATURE,
            summary="Stop whatever runs in S3 for a policy",
        ),
    }  # fmt: skip

    def policy(self, id: int) -> Policy:
        found: Policy = self.found(Policy.objects.all(), id, "policy")
        return found

    def abort_archive(self, request: Request, policy_id: int) -> Response:
        s3_operations.abort_archive(actor=self.actor, policy=self.policy(policy_id))
        return self.done()

    def abort_cleanup(self, request: Request, policy_id: int) -> Response:
        s3_operations.abort_cleanup(actor=self.actor, policy=self.policy(policy_id))
        return self.done()

    def abort(self, request: Request, policy_id: int) -> Response:
        stopped = s3_operations.abort_running(actor=self.actor, policy=self.policy(policy_id))
        shown = {"backup": stopped.backup_id, "operation": stopped.name}
        return Response(shown, status=self.operation.answers)


urlpatterns = [
    path("backups/<id:backup_id>/copy_to_s3/abort/", BackupCopy.as_view({"post": "abort"})),
    path("policies/<id:policy_id>/archive/abort/", PolicyOperations.as_view({"post": "abort_archive"})),
    path("policies/<id:policy_id>/cleanup_s3/abort/", PolicyOperations.as_view({"post": "abort_cleanup"})),
    path("policies/<id:policy_id>/s3_operations/abort/", PolicyOperations.as_view({"post": "abort"})),
]
