"""Lookup tables with stable integer ids: AWS regions and the resource types that can be protected."""

from django.db import models

from cpm.models.base import CpmModel


class Region(CpmModel):
    """An AWS region. Ids are part of the public API and never change."""

    aws_region = models.CharField(max_length=32, unique=True)
    disp_name = models.CharField(max_length=100)
    enabled = models.BooleanField(default=True)

    def __str__(self) -> str:
        return self.aws_region


class ResourceType(CpmModel):
    """A kind of AWS resource that a tag scan may look for."""

    name = models.CharField(max_length=32, unique=True)
    label = models.CharField(max_length=64)

    def __str__(self) -> str:
        return self.label
