"""S3 repositories: the folders of buckets that copies of backups go to."""

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef
from django.http.response import HttpResponseBase
from django.urls import path
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from api import serializers as shapes
from api.fields import Choice, Fields, Integer, Items, Text, TextOrNull
from api.filters import Ids
from api.views import Operation, Records
from cpm.lib.states import DeletionStatus
from cpm.models import Policy, S3Repository
from cpm.services import repositories

FIELDS = Fields(
    account=Integer("account_id"),
    aws_bucket_name=Text("aws_bucket_name"),
    aws_region=Text("aws_region"),
    deletion_status=Choice("deletion_status", DeletionStatus),
    description=TextOrNull("description"),
    id=Integer("id"),
    name=Text("name"),
    related_policies=Items(
        ArraySubquery(Policy.objects.filter(s3_repository=OuterRef("pk")).order_by("pk").values("pk")),
        of="integer",
    ),
    user=Integer("user_id"),
)


class RepositoryBody(shapes.Body):
    """What may change once a repository holds data."""

    description = shapes.Words()


class NewRepositoryBody(RepositoryBody):
    account = shapes.Id(
        help_text="The account whose credentials reach the bucket. Its user owns the repository."
    )
    aws_bucket_name = serializers.CharField(
        max_length=63, help_text="A bucket that exists and has default encryption."
    )
    aws_region = serializers.CharField(max_length=32, help_text="The bucket's region, such as us-east-1.")
    name = shapes.Name(
        help_text="Letters, digits, underscores and dashes; also names its folder in the bucket."
    )


class S3Repositories(Records):
    """Folders of buckets that copies of backups go to."""

    model, fields, noun = S3Repository, FIELDS, "S3 repository"
    filters = {"account": Ids("account_id"), "user": Ids("user_id")}
    ordering = {
        "account": "account__name",
        "aws_bucket_name": "aws_bucket_name",
        "aws_region": "aws_region",
        "name": "name",
        "username": "user__username",
    }
    search = ("name", "description")
    operations = {
        "list": Operation("s3_repositories.read", since="1.1.0", many=True, summary="List S3 repositories"),
        "create": Operation(
            "s3_repositories.change", since="1.1.0", body=NewRepositoryBody, answers=201,
            summary="Add a S3 repository",
        ),
        "retrieve": Operation("s3_repositories.read", since="1.1.0", summary="Show a S3 repository"),
        "update": Operation(
            "s3_repositories.change", since="1.1.0", body=RepositoryBody, summary="Change a S3 repository"
        ),
        "destroy": Operation(
            "s3_repositories.change", since="1.1.0", answers=204, content=False,
            summary="Delete a S3 repository with its data",
        ),
        "force_destroy": Operation(
            "s3_repositories.change", since="1.5.0", answers=204, content=False,
            summary="Delete a S3 repository, even if its data cannot be deleted",
        ),
    }  # fmt: skip

    def create(self, request: Request) -> HttpResponseBase:
        made = repositories.create(actor=self.actor, **self.body())
        return self.show(made.pk)

    def update(self, request: Request, id: int) -> HttpResponseBase:
        repositories.update(actor=self.actor, repository=self.find(id), **self.body())
        return self.show(id)

    def destroy(self, request: Request, id: int) -> Response:
        repositories.delete(actor=self.actor, repository=self.find(id))
        return self.done()

    def force_destroy(self, request: Request, id: int) -> Response:
        repositories.delete(actor=self.actor, repository=self.find(id), force=True)
        return self.done()


urlpatterns = [
    path("s3_repositories/", S3Repositories.as_view({"get": "list", "post": "create"})),
    path(
        "s3_repositories/<id:id>/",
        S3Repositories.as_view({"get": "retrieve", "put": "update", "delete": "destroy"}),
    ),
    path("s3_repositories/<id:id>/force/", S3Repositories.as_view({"delete": "force_destroy"})),
]
