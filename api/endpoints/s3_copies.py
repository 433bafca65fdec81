"""Copies of a backup's volumes in S3, with their archives."""

from django.db.models import Case, F, TextField, Value, When
from django.db.models.functions import Cast, Coalesce, Now
from django.urls import path

from api.endpoints.snapshots import in_region
from api.fields import Boolean, Choice, Fields, Integer, Moment, NumberAsText, Text, TextOrNull
from api.filters import Exactly, Filter, Ids, Since, Until
from api.views import Operation, Records, Rows
from cpm.lib.states import CopyStatus, RetrievalStatus, Tier
from cpm.models import Backup, S3Copy
from cpm.reports.snapshots import snapshot_type

# What was retrieved goes without anybody being told.
RETRIEVE_STATUS = Case(
    When(
        retrieve_status=RetrievalStatus.AVAILABLE,
        retrieve_expiration__lte=Now(),
        then=Value(RetrievalStatus.EXPIRED.value),
    ),
    default=F("retrieve_status"),
    output_field=TextField(),
)
# As for snapshots: the account without a prefix is the one that was backed up, the other the one of the snapshot.
FIELDS = Fields(
    account_id=Integer("backup__account_id"),
    account_name=Text("backup__account_name"),
    archive_status=Choice("archive_status", CopyStatus),
    aws_account_number=Text("backup__account__account_number"),
    backed_up_resource_id=Text("snapshot__source_id"),
    backed_up_resource_name=Text("snapshot__source_name"),
    backup_id=NumberAsText("backup_id"),
    capacity=Integer("snapshot__capacity"),
    deletion_time=Moment("deletion_time"),
    device=Text("snapshot__device"),
    encrypted=Boolean("snapshot__encrypted"),
    # Backups keep the key, which AWS gives, and not its aliases, which come and go.
    encryption_key_alias=Text("snapshot__details__kms_key_id"),
    end_time=Moment("end_time"),
    id=Integer("id"),
    instance_id=TextOrNull("snapshot__instance_id"),
    instance_name=TextOrNull("snapshot__instance_name"),
    iops=Integer("snapshot__details__iops"),
    policy_name=Text("backup__policy_name"),
    region=Text("snapshot__region"),
    repository_id=NumberAsText("repository_id"),
    retrieve_expiration=Moment("retrieve_expiration"),
    retrieve_status=TextOrNull(RETRIEVE_STATUS),
    snapshot_account_id=NumberAsText("snapshot__account_id"),
    snapshot_account_name=Text("snapshot__account_name"),
    snapshot_aws_account_number=Text("snapshot__aws_account_number"),
    snapshot_type=Text(snapshot_type("snapshot__kind")),
    start_time=Moment("backup__start_time"),
    status=Text("status"),
    # A text here, and a copy of which nobody knows yet has not succeeded.
    succeeded=Text(Coalesce(Cast("succeeded", TextField()), Value("false", output_field=TextField()))),
    tier=Choice("tier", Tier),
    type=Text("snapshot__details__type"),
    username=Text("backup__user__username"),
    zone=Text("snapshot__details__zone"),
)
FILTERS: dict[str, Filter] = {
    "account": Ids("backup__account_id"),
    "account_name": Exactly("backup__account_name"),
    "aws_region": Exactly("snapshot__region"),
    "aws_resource_id": Exactly("snapshot__source_id"),
    "from_time": Since("backup__start_time"),
    "region": in_region("snapshot__region"),
    "to_time": Until("backup__start_time"),
}


class S3Copies(Records):
    """What a backup has in S3, volume by volume."""

    model, fields, noun, filters = S3Copy, FIELDS, "S3 copy", FILTERS
    operations = {
        "list": Operation("backups.read", since="1.1.0", many=True, summary="List a backup's S3 copies"),
        "retrieve": Operation("backups.read", since="1.1.0", summary="Show a backup's S3 copy"),
    }

    def narrow(self, queryset: Rows) -> Rows:
        backup: Backup = self.found(Backup.objects.all(), self.kwargs["backup_id"], "backup")
        return queryset.filter(backup=backup)


urlpatterns = [
    path("backups/<id:backup_id>/snapshots/copy_to_s3/", S3Copies.as_view({"get": "list"})),
    path("backups/<id:backup_id>/snapshots/copy_to_s3/<id:id>/", S3Copies.as_view({"get": "retrieve"})),
]
