"""Buckets in the simulated AWS and policies that mirror them."""

from typing import Any

from cpm.models import Backup, Policy, Snapshot, Target
from cpm.services import s3_sync_targets
from tests.domain.world import World

HERE, THERE = "us-east-1", "eu-west-1"


def bucket(world: World, name: str, account: str | None = None, region: str = HERE) -> str:
    place = {} if region == HERE else {"CreateBucketConfiguration": {"LocationConstraint": region}}
    world.aws.client("s3", region, account).create_bucket(Bucket=name, **place)
    return name


def put(world: World, bucket: str, **objects: str) -> None:
    """Objects by key; two underscores stand for a slash."""
    s3 = world.aws.client("s3")
    for key, content in objects.items():
        s3.put_object(Bucket=bucket, Key=key.replace("__", "/"), Body=content.encode())


def content(world: World, bucket: str, account: str | None = None) -> dict[str, str]:
    s3 = world.aws.client("s3", HERE, account)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [one["Key"] for page in pages for one in page.get("Contents", ())]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in keys}


def sync(world: World, source: str, destination: str, policy: Policy | None = None, **options: Any) -> Target:
    world.region_id(HERE), world.region_id(THERE)
    return s3_sync_targets.add(
        actor=world.actor, policy=policy or world.policy(), name=source, destination_bucket_name=destination,
        now=world.now(), **options,
    )  # fmt: skip


def row_of(backup: Backup) -> Snapshot:
    return backup.snapshots.get(kind="s3_syncs")
