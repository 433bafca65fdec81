"""API keys: shown once when minted, stored as a hash."""

from django.db import models

from cpm.models.base import CpmModel
from cpm.models.user import User


class ApiKey(CpmModel):
    """A long-lived secret that is exchanged for tokens. `prefix` is the part that people may see."""

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=100)
    prefix = models.CharField(max_length=16)
    key_hash = models.CharField(max_length=64, unique=True)
    created_at = models.DateTimeField(auto_now_add=True)
    last_used_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"
