"""What every model shares."""

from django.db import models


class CpmModel(models.Model):
    """Abstract base: 64-bit ids and the application label."""

    id = models.BigAutoField(primary_key=True)

    class Meta:
        abstract = True
        app_label = "cpm"
