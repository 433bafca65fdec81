"""Targets: the resources that a policy protects. One table for all resource types."""

from django.db import models

from cpm.lib.states import AmiOption, WhichVolumes
from cpm.models.base import CpmModel
from cpm.models.policy import Policy


class Target(CpmModel):
    """One AWS resource under a policy.

    `resource_type` is a key of the resource registry, `details` what AWS last said of the resource
    (validated by its type), `options` what the user chose for it beyond the columns here.
    """

    policy = models.ForeignKey(Policy, on_delete=models.CASCADE, related_name="targets")
    resource_type = models.CharField(max_length=32)
    aws_region = models.CharField(max_length=32)
    aws_resource_id = models.CharField(max_length=255)
    name = models.CharField(max_length=255, blank=True)
    tagged = models.BooleanField(default=False)
    details = models.JSONField(default=dict, blank=True)
    options = models.JSONField(default=dict, blank=True)

    which_volumes = models.CharField(max_length=1, choices=WhichVolumes.choices(), default=WhichVolumes.ALL)
    ami_backup_option = models.CharField(max_length=1, choices=AmiOption.choices(), default=AmiOption.NONE)
    ami_reboot_option = models.BooleanField(default=False)
    force_full_s3_copy = models.BooleanField(default=False)
    enable_agent_vss = models.BooleanField(default=False)
    vss_volumes = models.CharField(max_length=255, blank=True)
    enable_agent_scripts = models.BooleanField(default=False)
    agent_script_timeout = models.PositiveIntegerField(default=30)
    collect_script_output = models.BooleanField(default=False)
    use_remote_agent = models.BooleanField(default=False)
    last_seen_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(CpmModel.Meta):
        constraints = [
            models.UniqueConstraint(
                name="target_once_in_policy",
                fields=["policy", "resource_type", "aws_region", "aws_resource_id"],
            )
        ]

    def __str__(self) -> str:
        return f"{self.resource_type} {self.aws_resource_id}"


class TargetVolume(CpmModel):
    """A volume of an instance target that `which_volumes` includes or excludes."""

    target = models.ForeignKey(Target, on_delete=models.CASCADE, related_name="volumes")
    aws_resource_id = models.CharField(max_length=64)
    details = models.JSONField(default=dict, blank=True)

    class Meta(CpmModel.Meta):
        constraints = [
            models.UniqueConstraint(name="target_volume_once", fields=["target", "aws_resource_id"])
        ]
