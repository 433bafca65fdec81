"""EFS: file systems, what is in them, mount targets and tags."""

import hashlib

import pytest
import requests

from tests.simulated_aws import SimulatedAws

OTHER = "210987654321"


def put(aws: SimulatedAws, file_system: str, path: str, data: bytes) -> None:
    requests.put(
        f"{aws.control_url}/efs/{file_system}/files/{path}", data=data, timeout=10
    ).raise_for_status()


def get(aws: SimulatedAws, file_system: str, path: str) -> bytes:
    answer = requests.get(f"{aws.control_url}/efs/{file_system}/files/{path}", timeout=10)
    answer.raise_for_status()
    return answer.content


def file_system(aws: SimulatedAws, token: str = "token", region: str = "us-east-1", **more) -> dict:
    return aws.client("efs", region).create_file_system(CreationToken=token, **more)


def test_a_creation_token_makes_one_file_system(aws: SimulatedAws, refused) -> None:
    """AWS: EFS API Reference, CreateFileSystem: FileSystemAlreadyExists tells the id of the existing one."""
    efs = aws.client("efs")
    aws.timing(file_system_seconds=0.15)

    made = file_system(aws, PerformanceMode="maxIO", Tags=[{"Key": "Name", "Value": "home"}])

    assert (made["LifeCycleState"], made["Name"], made["PerformanceMode"]) == ("creating", "home", "maxIO")
    assert made["FileSystemArn"].endswith(f":us-east-1:123456789012:file-system/{made['FileSystemId']}")
    with pytest.raises(efs.exceptions.FileSystemAlreadyExists) as again:
        file_system(aws)
    assert again.value.response["FileSystemId"] == made["FileSystemId"]
    assert again.value.response["ResponseMetadata"]["HTTPStatusCode"] == 409
    with refused("IncorrectFileSystemLifeCycleState"):
        efs.create_mount_target(FileSystemId=made["FileSystemId"], SubnetId="subnet-00000000")
    file_system(aws, region="eu-west-1")
    assert aws.client("efs", account=OTHER).describe_file_systems()["FileSystems"] == []
    with refused("FileSystemNotFound"):
        aws.client("efs", account=OTHER).describe_file_systems(FileSystemId=made["FileSystemId"])


def test_keys_need_encryption_and_must_exist(aws: SimulatedAws, refused) -> None:
    """AWS: EFS API Reference, CreateFileSystem, Encrypted and KmsKeyId."""
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]

    managed = file_system(aws, "managed", Encrypted=True)["KmsKeyId"]
    own = file_system(aws, "own", Encrypted=True, KmsKeyId=key)

    described = aws.client("kms").describe_key(KeyId=managed)["KeyMetadata"]
    assert (own["KmsKeyId"], own["Encrypted"], described["KeyManager"]) == (key, True, "AWS")
    with refused("BadRequest"):
        file_system(aws, "bad", KmsKeyId=key)
    with refused("BadRequest"):
        file_system(aws, "bad", Encrypted=True, KmsKeyId="12345678-1234-1234-1234-123456789012")
    with refused("BadRequest"):
        file_system(aws, "bad", PerformanceMode="fastest")


def test_file_systems_come_in_pages_and_by_token(aws: SimulatedAws, refused) -> None:
    """AWS: EFS API Reference, DescribeFileSystems: MaxItems, Marker, CreationToken."""
    efs = aws.client("efs")
    ids = [file_system(aws, f"token-{number}")["FileSystemId"] for number in range(5)]

    pages = list(efs.get_paginator("describe_file_systems").paginate(PaginationConfig={"PageSize": 2}))

    assert [len(page["FileSystems"]) for page in pages] == [2, 2, 1]
    assert [one["FileSystemId"] for page in pages for one in page["FileSystems"]] == ids
    (found,) = efs.describe_file_systems(CreationToken="token-3")["FileSystems"]
    assert found["FileSystemId"] == ids[3]
    with refused("BadRequest"):
        efs.describe_file_systems(Marker="nonsense")
    aws.fault(service="elasticfilesystem", action="DescribeFileSystems", list_lag_seconds=60)
    assert efs.describe_file_systems()["FileSystems"] == []


def test_files_have_bytes_that_count_and_live_as_long_as_the_file_system(aws: SimulatedAws, refused) -> None:
    """Our own design: a host that mounts the file system is played through the control endpoint."""
    efs = aws.client("efs")
    made = file_system(aws)["FileSystemId"]

    put(aws, made, "a/b c.bin", b"\x00\xffbytes")
    put(aws, made, "top", b"")
    put(aws, made, "a/gone", b"x")
    requests.delete(f"{aws.control_url}/efs/{made}/files/a/gone", timeout=10).raise_for_status()

    assert get(aws, made, "a/b c.bin") == b"\x00\xffbytes"
    listed = aws.control("GET", f"/efs/{made}/files")
    assert listed == {
        "a/b c.bin": hashlib.sha256(b"\x00\xffbytes").hexdigest(),
        "top": hashlib.sha256(b"").hexdigest(),
    }
    assert efs.describe_file_systems()["FileSystems"][0]["SizeInBytes"]["Value"] == 7
    for path in ("top/below", "a", "a/../b"):
        answer = requests.put(
            f"{aws.control_url}/efs/{made}/files/" + path.replace("..", "%2e%2e"), timeout=10
        )
        assert answer.status_code == 400, path
    efs.delete_file_system(FileSystemId=made)
    assert requests.get(f"{aws.control_url}/efs/{made}/files", timeout=10).status_code == 404
    with refused("FileSystemNotFound"):
        efs.delete_file_system(FileSystemId=made)


def test_mount_targets_are_one_to_a_zone_and_hold_the_file_system(aws: SimulatedAws, refused) -> None:
    """AWS: EFS API Reference, CreateMountTarget (one VPC, one per zone) and DeleteFileSystem (FileSystemInUse)."""
    efs, ec2 = aws.client("efs"), aws.client("ec2")
    home = file_system(aws)["FileSystemId"]
    first, second = ec2.describe_subnets()["Subnets"][:2]

    made = efs.create_mount_target(FileSystemId=home, SubnetId=first["SubnetId"])
    efs.create_mount_target(FileSystemId=home, SubnetId=second["SubnetId"])

    interface = ec2.describe_network_interfaces(NetworkInterfaceIds=[made["NetworkInterfaceId"]])
    assert interface["NetworkInterfaces"][0]["PrivateIpAddress"] == made["IpAddress"]
    assert (made["VpcId"], made["AvailabilityZoneName"]) == (first["VpcId"], first["AvailabilityZone"])
    assert efs.describe_file_systems()["FileSystems"][0]["NumberOfMountTargets"] == 2
    groups = efs.describe_mount_target_security_groups(MountTargetId=made["MountTargetId"])["SecurityGroups"]
    assert len(groups) == 1
    with refused("MountTargetConflict"):
        efs.create_mount_target(FileSystemId=home, SubnetId=first["SubnetId"])
    with refused("SubnetNotFound"):
        efs.create_mount_target(FileSystemId=home, SubnetId="subnet-00000000")
    with refused("FileSystemInUse"):
        efs.delete_file_system(FileSystemId=home)
    for target in efs.describe_mount_targets(FileSystemId=home)["MountTargets"]:
        efs.delete_mount_target(MountTargetId=target["MountTargetId"])
    efs.delete_file_system(FileSystemId=home)


def test_tags_go_by_id_and_by_arn_and_the_log_names_actions(aws: SimulatedAws, refused) -> None:
    """AWS: EFS API Reference, TagResource, UntagResource, ListTagsForResource."""
    efs, since = aws.client("efs"), aws.last_call()
    made = file_system(aws)

    efs.tag_resource(
        ResourceId=made["FileSystemArn"], Tags=[{"Key": k, "Value": "1"} for k in ("a", "b", "c")]
    )
    efs.untag_resource(ResourceId=made["FileSystemId"], TagKeys=["a", "b"])

    tags = efs.list_tags_for_resource(ResourceId=made["FileSystemId"])["Tags"]
    assert tags == [{"Key": "c", "Value": "1"}]
    with refused("BadRequest"):
        efs.tag_resource(ResourceId=made["FileSystemId"], Tags=[{"Key": "aws:x", "Value": "1"}])
    calls = [(call["service"], call["action"], call["error"]) for call in aws.calls(since)]
    assert calls[1:4] == [
        ("elasticfilesystem", "TagResource", None),
        ("elasticfilesystem", "UntagResource", None),
        ("elasticfilesystem", "ListTagsForResource", None),
    ]
    with refused("UnsupportedOperation"):
        efs.describe_access_points()
    aws.fault(service="elasticfilesystem", action="TagResource", error="ThrottlingException", status=429)
    with refused("ThrottlingException"):
        efs.tag_resource(ResourceId=made["FileSystemId"], Tags=[])
