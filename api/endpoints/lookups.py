"""Regions and resource types: lists with stable ids that other calls refer to."""

from django.urls import path

from api.fields import Fields, Integer, Text
from api.views import Operation, Records, Rows
from cpm.models import Region, ResourceType


class Regions(Records):
    """The AWS regions that may be used, as targets of DR too."""

    model, noun = Region, "region"
    fields = Fields(aws_region=Text("aws_region"), disp_name=Text("disp_name"), id=Integer("id"))
    operations = {
        "list": Operation("lookups.read", since="1.0.0", many=True, summary="List the enabled AWS regions"),
    }

    def narrow(self, queryset: Rows) -> Rows:
        return queryset.filter(enabled=True)

    def scoped(self, queryset: Rows) -> Rows:
        return queryset


class ResourceTypes(Records):
    """The kinds of resources that a tag scan may look for."""

    model, noun = ResourceType, "resource type"
    fields = Fields(id=Integer("id"), label=Text("label"), name=Text("name"))
    operations = {
        "list": Operation("lookups.read", since="1.4.0", many=True, summary="List the resource types"),
    }

    def scoped(self, queryset: Rows) -> Rows:
        return queryset


urlpatterns = [
    path("regions/", Regions.as_view({"get": "list"})),
    path("resource_types/", ResourceTypes.as_view({"get": "list"})),
]
