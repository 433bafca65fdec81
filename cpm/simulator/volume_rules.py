"""What AWS allows of a volume's type, size, IOPS and throughput, and which zones exist.

AWS: EBS User Guide, Amazon EBS volume types.
"""

from functools import cache

from moto.ec2.models.availability_zones_and_regions import RegionsAndZonesBackend

from cpm.simulator.errors import AwsError, invalid

# type -> smallest and largest size in GiB
SIZES = {
    "gp2": (1, 16384),
    "gp3": (1, 65536),
    "io1": (4, 16384),
    "io2": (4, 65536),
    "st1": (125, 16384),
    "sc1": (125, 16384),
    "standard": (1, 1024),
}
# type -> fewest and most IOPS, most IOPS per GiB
IOPS = {"gp3": (3000, 80000, 500), "io1": (100, 64000, 50), "io2": (100, 256000, 1000)}


def check(kind: str, size: int, iops: int | None, throughput: int | None) -> None:
    """Raises InvalidParameterValue or InvalidParameterCombination for what AWS does not offer."""
    if kind not in SIZES:
        raise invalid(f"Invalid volume type: {kind}")
    least, most = SIZES[kind]
    if not least <= size <= most:
        raise invalid(f"Volume of {size}GiB is invalid for {kind}; it must be between {least} and {most} GiB")
    if kind in ("io1", "io2") and iops is None:
        raise AwsError("MissingParameter", f"The request must contain the parameter iops for {kind} volumes")
    if iops is not None:
        if kind not in IOPS:
            raise AwsError(
                "InvalidParameterCombination", f"The parameter iops is not supported for {kind} volumes."
            )
        fewest, largest, per_gib = IOPS[kind]
        if not fewest <= iops <= largest or iops > max(fewest, per_gib * size):
            raise invalid(f"Volume iops of {iops} is invalid for a {kind} volume of {size} GiB")
    if throughput is not None:
        if kind != "gp3":
            raise AwsError(
                "InvalidParameterCombination",
                f"The parameter throughput is not supported for {kind} volumes.",
            )
        if not 125 <= throughput <= 2000:
            raise invalid(f"Throughput of {throughput} is invalid; it must be between 125 and 2000")


def default_iops(kind: str, size: int) -> int | None:
    """IOPS that AWS reports when none were asked for."""
    if kind == "gp2":
        return min(16000, max(100, 3 * size))
    return 3000 if kind == "gp3" else None


def default_throughput(kind: str) -> int | None:
    """Throughput in MiB/s that AWS reports when none was asked for."""
    return 125 if kind == "gp3" else None


@cache
def zones(region: str) -> frozenset[str]:
    """Names of a region's availability zones."""
    return frozenset(zone.name for zone in RegionsAndZonesBackend.zones.get(region, []))
