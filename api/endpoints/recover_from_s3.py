"""Recovering volumes, instances and databases from their copies in S3, and stopping that."""

from dataclasses import replace

from django.urls import path
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.endpoints.recover import (
    SNAPSHOTS,
    CredentialsBody,
    InstanceRecoveryBody,
    Recovering,
    Switch,
    VolumeRecoveryBody,
    Word,
    recovering,
)
from api.endpoints.snapshots import Instances, Volumes
from api.endpoints.whole_resources import body
from api.views import Endpoint, Operation
from cpm.features import Feature
from cpm.lib.states import RetrievalTier
from cpm.models import Recovery
from cpm.resources.rds_database import RdsDatabase
from cpm.services import recoveries


class RetrieveOptionsBody(shapes.Body):
    """How a copy comes out of the archive."""

    days_to_keep = shapes.Whole(
        required=False,
        min_value=1,
        max_value=365,
        help_text="How long it stays readable; 7 days if not given.",
    )
    retrieval_tier = shapes.Choice(RetrievalTier)


class WorkerConfigurationBody(shapes.Body):
    """A network for a worker. The server's workers write the blocks themselves, so this is only kept with the recovery."""

    aws_key_pair = Word()
    aws_security_group = Word(required=True)
    aws_subnet = Word(required=True, help_text="Empty for any.")
    aws_vpc = Word(required=True)
    http_proxy_address = Word()
    http_proxy_password_encrypted = Word(help_text="Never stored.")
    http_proxy_port = shapes.Whole(required=False, max_value=65535)
    http_proxy_user_name = Word()
    requires_http_proxy = Switch()


class VolumeFromS3Body(VolumeRecoveryBody):
    """How a volume comes back from S3. What is left out is as it was."""

    encryption_key = Word(
        help_text="KMS key of the target region by ARN, id or alias: the volume is encrypted with it."
    )
    region = Word(help_text="Name of the region to recover to.")
    retrieve_options = RetrieveOptionsBody(required=False)
    worker_configuration = WorkerConfigurationBody(required=False)


class InstanceFromS3Body(InstanceRecoveryBody):
    """How an instance comes back from S3. What is left out is as it was."""

    encryption_key = Word(
        help_text="KMS key of the target region by ARN, id or alias: all volumes are encrypted with it."
    )
    retrieve_options = RetrieveOptionsBody(required=False)
    use_default_volume_encryption_keys = Switch(
        help_text="Encrypted volumes come back under the region's default key for EBS."
    )
    worker_configuration = WorkerConfigurationBody(required=False)


DatabaseFromS3Body = body(
    "DatabaseFromS3Body",
    "How a database comes back from S3: its rows in a new PostgreSQL database, which needs an id, a user and a password, or its"
    " files in a bucket. What is left out is as it was.",
    *(replace(one, required=False) for one in RdsDatabase.recover_takes),
    credentials=CredentialsBody(required=False),
    database_name=Word(help_text="Which of several exported databases; without it all of them come back."),
    engine_version=Word(help_text="Version of PostgreSQL, if not that of the original."),
    export_bucket=Word(help_text="Bucket for the files of the export, in the region to recover to."),
    export_prefix=Word(help_text="Where in that bucket; nothing may be there yet."),
    master_password=Word(write_only=True, help_text="Of the new database; erased when the recovery is over."),
    master_username=Word(help_text="Of the new database."),
    preserve_tags=Switch(default=True),
    region=Word(help_text="Name of the region to recover to."),
    retrieve_options=RetrieveOptionsBody(required=False),
)


class RecoverVolumeFromS3(Recovering, Volumes):
    """Recovery of a volume from its copy in S3."""

    service = staticmethod(recoveries.recover_volume_from_s3)
    operations = recovering(VolumeFromS3Body, "1.2.0", "a volume from S3")


class RecoverInstanceFromS3(Recovering, Instances):
    """Recovery of an instance from the copies of its volumes in S3."""

    service = staticmethod(recoveries.recover_instance_from_s3)
    operations = recovering(InstanceFromS3Body, "1.3.0", "an instance from S3")


class RecoverDatabaseFromS3(Recovering):
    """Recovery of a database from its copy in S3."""

    kind, noun = RdsDatabase.kind, "RDS database snapshot"
    service = staticmethod(recoveries.recover_database_from_s3)
    operations = recovering(DatabaseFromS3Body, "1.5.0", "a database from S3")


class RecoveriesFromS3(Endpoint):
    """Recoveries from S3 that are going on."""

    operations = {
        "abort": Operation(
            recoveries.ABORT_FROM_S3, since="1.3.0", answers=201, content=False, feature=Feature.COPY_TO_S3,
            summary="Stop a recovery from S3",
        ),
    }  # fmt: skip

    def abort(self, request: Request, recovery_id: int) -> Response:
        recovery: Recovery = self.found(Recovery.objects.all(), recovery_id, "recovery")
        recoveries.abort_from_s3(actor=self.actor, recovery=recovery)
        return self.done()


urlpatterns = [
    path(
        f"{SNAPSHOTS}/volumes/<id:snapshot_record_id>/recover_from_s3/",
        RecoverVolumeFromS3.as_view({"post": "recover"}),
    ),
    path(
        f"{SNAPSHOTS}/instances/<id:snapshot_record_id>/recover_from_s3/",
        RecoverInstanceFromS3.as_view({"post": "recover"}),
    ),
    path(
        f"{SNAPSHOTS}/rds_databases/<id:snapshot_record_id>/recover_from_s3/",
        RecoverDatabaseFromS3.as_view({"post": "recover"}),
    ),
    path("recoveries/<id:recovery_id>/recover_from_s3/abort/", RecoveriesFromS3.as_view({"post": "abort"})),
]
