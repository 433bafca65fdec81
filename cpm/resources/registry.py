"""All resource types. Adding one here is what makes it known to targets, filters, reports and IAM policies."""

from collections.abc import Mapping

from cpm.resources.base import ResourceType
from cpm.resources.ebs_volume import EbsVolume
from cpm.resources.ec2_instance import Ec2Instance

TYPES: tuple[ResourceType, ...] = (Ec2Instance(), EbsVolume())

BY_KEY: Mapping[str, ResourceType] = {kind.key: kind for kind in TYPES}
