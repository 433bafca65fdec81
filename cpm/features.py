"""Features that a server may be without. The only place that knows which there are; every one is on by default."""

from enum import StrEnum

from django.conf import settings

from cpm.lib.errors import FeatureOff


class Feature(StrEnum):
    CROSS_ACCOUNT = "cross_account"
    VPC = "vpc"
    COPY_TO_S3 = "copy_to_s3"
    RESOURCE_CONTROL = "resource_control"
    COST_EXPLORER = "cost_explorer"
    IDENTITY_PROVIDER = "identity_provider"
    PROXY = "proxy"


def is_on(feature: Feature) -> bool:
    """Whether the server has the feature: it has all that `CPM_FEATURES_OFF` does not name."""
    return feature not in settings.CPM_FEATURES_OFF


def require(feature: Feature) -> None:
    """Raises `FeatureOff` without the feature."""
    if not is_on(feature):
        raise FeatureOff(feature.value)
