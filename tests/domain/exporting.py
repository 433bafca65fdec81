"""Databases whose snapshots go to S3: what tests of copying and recovering them build on."""

import json
from typing import Any

from cpm.flows.s3 import repositories as flow
from cpm.models import Backup, Policy, S3Copy, S3Repository
from cpm.repository import tar_image
from cpm.repository.reader import Reader
from cpm.services import repository_settings, targets
from tests.domain import copying
from tests.domain.world import World

CONTENT = b"rows of the shop " * 100_000


def repository(world: World) -> S3Repository:
    """A repository into which RDS may export."""
    row = copying.repository(world)
    trust = {"Statement": [{"Effect": "Allow", "Principal": {"Service": "export.rds.amazonaws.com"}, "Action": "sts:AssumeRole"}]}
    role = world.aws.client("iam").create_role(RoleName="export", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    key = world.aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    return repository_settings.configure(
        actor=world.actor, repository=row, export_role_arn=role, export_kms_key_id=key
    )


def database(world: World, name: str, engine: str = "postgres", content: bytes = CONTENT, **more: Any) -> str:
    made = world.aws.client("rds").create_db_instance(
        DBInstanceIdentifier=name, DBInstanceClass="db.t3.micro", Engine=engine, AllocatedStorage=20,
        MasterUsername="shop", MasterUserPassword="not-a-secret", **more,
    )["DBInstance"]  # fmt: skip
    world.aws.fill(made["DBInstanceArn"], content)
    return name


def policy_over(
    world: World, repository: S3Repository, *databases: str, volumes: tuple[str, ...] = (), **fields: Any
) -> Policy:
    policy = copying.policy_with_s3(world, *volumes, s3_repository=repository, **fields)
    for name in databases:
        world.region_id("us-east-1")
        targets.add_whole(
            actor=world.actor, policy=policy, key="rds_databases", region="us-east-1", resource_id=name,
            now=world.now(), options={},
        )  # fmt: skip
    return policy


def copy_of(backup: Backup, name: str = "shop") -> S3Copy:
    return S3Copy.objects.get(backup=backup, snapshot__source_id=name)


def files(copy: S3Copy) -> dict[str, bytes]:
    """The files of a copied database by name, read from its repository."""
    assert copy.repository is not None
    opened = flow.opened(copy.repository)
    with tar_image.opened(Reader(opened, opened.copy(copy.stored_id))) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]


def staged(world: World) -> list[str]:
    listed = world.aws.client("s3").list_objects_v2(Bucket=copying.BUCKET).get("Contents", [])
    return [one["Key"] for one in listed if "/exports/" in one["Key"]]


def tasks(world: World) -> list[dict[str, Any]]:
    pages = world.aws.client("rds").get_paginator("describe_export_tasks").paginate()
    return [task for page in pages for task in page["ExportTasks"]]


def objects(world: World, bucket: str, prefix: str = "") -> dict[str, bytes]:
    """The objects of a bucket with what they hold."""
    s3 = world.aws.client("s3")
    listed = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])
    return {one["Key"]: s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read() for one in listed}
