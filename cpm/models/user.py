"""People who log in: root, independent and managed users, and delegates who act for one of them."""

from collections.abc import Mapping, Sequence
from typing import ClassVar

from django.contrib.auth.base_user import AbstractBaseUser, BaseUserManager
from django.contrib.auth.models import PermissionsMixin
from django.db import models

from cpm.lib.states import Role


class UserManager(BaseUserManager["User"]):
    """Finds users by name; creation belongs to `cpm.services.users`."""

    use_in_migrations = True

    def get_by_natural_key(self, username: str | None) -> "User":
        return self.get(username=username)


class User(AbstractBaseUser, PermissionsMixin):
    """One person or program. A delegate acts in the environment of `original_user`, with fewer rights."""

    id = models.BigAutoField(primary_key=True)
    username = models.CharField(max_length=150, unique=True)
    email = models.EmailField(blank=True)
    role = models.CharField(max_length=12, choices=Role.choices(), default=Role.INDEPENDENT)
    original_user = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.PROTECT, related_name="delegates"
    )
    applied_managed_users = models.ManyToManyField(
        "self", blank=True, symmetrical=False, related_name="managing_users"
    )
    is_active = models.BooleanField(default=True)
    date_joined = models.DateTimeField(auto_now_add=True)
    # Set for users who log in through an identity provider: they have no password here.
    domain_name = models.CharField(max_length=255, blank=True)
    # Tokens issued earlier are refused.
    tokens_valid_from = models.DateTimeField(null=True, blank=True)

    allow_account_changes = models.BooleanField(default=False)
    allow_backup_changes = models.BooleanField(default=False)
    allow_recovery = models.BooleanField(default=False)
    allow_settings_changes = models.BooleanField(default=False)
    allow_file_level_recovery = models.BooleanField(default=True)
    allow_cost_explorer = models.BooleanField(default=True)

    max_accounts = models.PositiveIntegerField(null=True, blank=True)
    max_instances = models.PositiveIntegerField(null=True, blank=True)
    max_independent_ebs_gib = models.PositiveIntegerField(null=True, blank=True)
    max_rds_gib = models.PositiveIntegerField(null=True, blank=True)
    max_redshift_gib = models.PositiveIntegerField(null=True, blank=True)
    max_dynamodb_gib = models.PositiveIntegerField(null=True, blank=True)
    max_controlled_entities = models.PositiveIntegerField(null=True, blank=True)

    # Ids of the users of each role but delegates, where they came along with root; no column. See permissions.owners.
    tenants: Mapping[str, Sequence[int]] | None = None

    objects = UserManager()

    USERNAME_FIELD = "username"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    class Meta:
        app_label = "cpm"
        constraints = [
            models.CheckConstraint(
                name="user_delegate_has_original",
                condition=models.Q(role=Role.DELEGATE, original_user__isnull=False)
                | (~models.Q(role=Role.DELEGATE) & models.Q(original_user__isnull=True)),
            ),
            models.UniqueConstraint(
                name="user_one_root", fields=["role"], condition=models.Q(role=Role.ROOT)
            ),
        ]

    @property
    def environment(self) -> "User":
        """Whose objects this user works with: a delegate's original user, else the user itself."""
        return self.original_user or self

    @property
    def is_staff(self) -> bool:
        """Everybody who may log in may open the admin; what they see there is scoped to them.

        A delegate may not where its original user may not.
        """
        return self.is_active and self.environment.is_active
