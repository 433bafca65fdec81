"""Which engines, instance classes and kinds of storage the simulated RDS offers.

AWS: RDS API Reference, CreateDBInstance (Engine, AllocatedStorage, StorageType, Iops, Port); RDS, Aurora, DocumentDB and
Neptune user guides on instance classes. Sizes and families are a choice of the real ones.
"""

from dataclasses import dataclass
from typing import Any

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid
from cpm.simulator.rds_names import combination
from cpm.simulator.volume_rules import zones

SMALL = ("micro", "small", "medium", "large", "xlarge", "2xlarge")
LARGE = ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "12xlarge", "16xlarge", "24xlarge")


def _family(name: str, sizes: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"db.{name}.{size}" for size in sizes)


INTEL = (
    *_family("t3", SMALL), *_family("m5", LARGE), *_family("m6i", LARGE), *_family("r5", LARGE),
    *_family("r6i", LARGE),
)  # fmt: skip
GRAVITON = (
    *_family("t4g", SMALL), *_family("m6g", LARGE[:-1]), *_family("m7g", LARGE[:-1]), *_family("r6g", LARGE[:-1]),
    *_family("r7g", LARGE[:-1]),
)  # fmt: skip
MEMORY = (*_family("r5", LARGE), *_family("r6g", LARGE[:-1]), *_family("r6i", LARGE))
BURST = ("db.t3.medium", "db.t4g.medium")

DISKS = ("gp2", "gp3", "io1", "io2", "standard")
PROVISIONED = ("io1", "io2")


@dataclass(frozen=True)
class Engine:
    version: str
    port: int
    license: str
    classes: tuple[str, ...]
    storage: tuple[str, ...] = DISKS
    # Smallest allocation in GiB; 0 where a cluster's storage grows by itself.
    least: int = 20
    clustered: bool = False


OPEN = (*INTEL, *GRAVITON)
GPL = "general-public-license"
AURORA = ("aurora", "aurora-iopt1")
AURORA_CLASSES = (*BURST, "db.t3.large", "db.t4g.large", *MEMORY, "db.serverless")

ENGINES: dict[str, Engine] = {
    "mysql": Engine("8.0.42", 3306, GPL, OPEN),
    "mariadb": Engine("10.11.11", 3306, GPL, OPEN),
    "postgres": Engine("16.8", 5432, "postgresql-license", OPEN),
    "oracle-se2": Engine("19.0.0.0.ru-2025-04.rur-2025-04.r1", 1521, "license-included", INTEL),
    "oracle-ee": Engine("19.0.0.0.ru-2025-04.rur-2025-04.r1", 1521, "bring-your-own-license", INTEL),
    "sqlserver-ex": Engine("15.00.4430.1.v1", 1433, "license-included", INTEL),
    "sqlserver-web": Engine("15.00.4430.1.v1", 1433, "license-included", INTEL),
    "sqlserver-se": Engine("15.00.4430.1.v1", 1433, "license-included", INTEL),
    "sqlserver-ee": Engine("15.00.4430.1.v1", 1433, "license-included", INTEL),
    "aurora-mysql": Engine("8.0.mysql_aurora.3.08.2", 3306, GPL, AURORA_CLASSES, AURORA, 0, True),
    "aurora-postgresql": Engine("16.8", 5432, "postgresql-license", AURORA_CLASSES, AURORA, 0, True),
    "docdb": Engine("5.0.0", 27017, "na", (*BURST, *MEMORY), ("standard", "iopt1"), 0, True),
    "neptune": Engine("1.4.5.1", 8182, "amazon-license", (*BURST, *MEMORY, "db.serverless"), ("standard", "iopt1"), 0, True),
}  # fmt: skip
CLASSES = frozenset(name for engine in ENGINES.values() for name in engine.classes)


def engine(name: str) -> Engine:
    """Raises InvalidParameterValue for an engine that is not offered."""
    found = ENGINES.get(name)
    if found is None:
        raise invalid(f"Invalid DB engine: {name}")
    return found


def cluster_engine(name: str) -> Engine:
    found = engine(name)
    if not found.clustered:
        raise invalid(f"The engine {name} is not offered for clusters.")
    return found


def check_class(name: str, engine_name: str, version: str) -> None:
    """Raises for a class that does not exist, or not for this engine."""
    if name not in CLASSES:
        raise invalid(f"Invalid DB Instance class: {name}")
    if name not in engine(engine_name).classes:
        raise combination(
            "RDS does not support creating a DB instance with the following combination:"
            f" DBInstanceClass={name}, Engine={engine_name}, EngineVersion={version}. For supported combinations of"
            " instance class and database engine version, see the documentation."
        )


def check_storage(engine_name: str, kind: str, size: int, iops: int | None) -> None:
    """Raises for storage that the engine is not offered with, and for IOPS that do not go with it."""
    offered = engine(engine_name)
    if kind not in offered.storage:
        if kind not in DISKS:
            raise invalid(f"Invalid storage type: {kind}")
        raise AwsError(
            "StorageTypeNotSupported", f"The storage type {kind} is not supported for {engine_name}."
        )
    if offered.clustered:
        return
    most = 3072 if kind == "standard" else 65536
    if not offered.least <= size <= most:
        raise invalid(f"Invalid storage size for engine name {engine_name} and storage type {kind}: {size}")
    if kind in PROVISIONED and not iops:
        raise combination(f"You must specify the IOPS for the storage type {kind}.")
    if iops and kind not in (*PROVISIONED, "gp3"):
        raise combination(f"IOPS cannot be specified for the storage type {kind}.")
    if iops and iops < 1000:
        raise invalid(f"Invalid iops value: {iops}; it must be at least 1000")


def check_port(port: int) -> int:
    """AWS: RDS API Reference, RestoreDBInstanceFromDBSnapshot, Port."""
    if not 1150 <= port <= 65535:
        raise invalid(f"Invalid port: {port}. Valid port range is 1150-65535.")
    return port


def orderable(call: Call) -> dict[str, Any]:
    """AWS: RDS API Reference, DescribeOrderableDBInstanceOptions: no option at all means that nothing fits."""
    name = call.params["Engine"]
    offered = engine(name)
    if call.params.get("Filters"):
        raise invalid("This parameter isn't currently supported: Filters")
    wanted, version = call.params.get("DBInstanceClass"), call.params.get("EngineVersion", offered.version)
    license_wanted = call.params.get("LicenseModel", offered.license)
    options = [
        _option(call, name, offered, instance_class, storage)
        for instance_class in offered.classes
        if wanted in (None, instance_class)
        and version == offered.version
        and license_wanted == offered.license
        for storage in offered.storage
    ]
    most = call.params.get("MaxRecords", 100)
    if not 20 <= most <= 10000:
        raise invalid(f"Invalid value {most} for MaxRecords. Must be between 20 and 10000")
    marker = call.params.get("Marker", "0")
    if not marker.isdigit():
        raise invalid("Invalid value for Marker")
    end = int(marker) + most
    return {
        "OrderableDBInstanceOptions": options[int(marker) : end],
        "Marker": str(end) if end < len(options) else None,
    }


def _option(call: Call, name: str, offered: Engine, instance_class: str, storage: str) -> dict[str, Any]:
    provisioned = storage in (*PROVISIONED, "gp3") and not offered.clustered
    option: dict[str, Any] = {
        "Engine": name,
        "EngineVersion": offered.version,
        "DBInstanceClass": instance_class,
        "LicenseModel": offered.license,
        "AvailabilityZones": [{"Name": zone} for zone in sorted(zones(call.region))],
        "MultiAZCapable": not offered.clustered,
        "ReadReplicaCapable": not name.startswith("sqlserver"),
        "Vpc": True,
        "SupportsStorageEncryption": True,
        "StorageType": storage,
        "SupportsIops": provisioned,
        "SupportsClusters": offered.clustered,
        "SupportedNetworkTypes": ["IPV4"],
    }
    if not offered.clustered:
        option.update(MinStorageSize=offered.least, MaxStorageSize=3072 if storage == "standard" else 65536)
    if provisioned:
        option.update(MinIopsPerDbInstance=1000, MaxIopsPerDbInstance=256000)
    return option


ACTIONS = {"DescribeOrderableDBInstanceOptions": orderable}
