"""Redshift clusters, by manual snapshots. AWS: Redshift Management Guide, "Amazon Redshift snapshots and backups".

Snapshots are named by their step, so that an interrupted call's is found by its name. A restore takes neither token nor
tags: the new cluster is known by its name, its origin and its moment, and gets its tags when it is available. AWS copies
snapshots to other regions only by itself, where that is switched on for the cluster; another account may be granted the
restore of a snapshot in its own region, which is what DR is here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, ClassVar

from cpm.aws.client import AwsClient
from cpm.aws.errors import AlreadyExists, Invalid, InvalidState, NotFound
from cpm.aws.iam_policy import SERVER_TAG, IamAction, tagged_as_ours, tagging_as_ours
from cpm.lib.states import RecoveryType
from cpm.resources import redshift_answers as answers
from cpm.resources.base import Described, Limit, Shown
from cpm.resources.fields import Shows, Takes
from cpm.resources.whole import OURS as OUR_NAMES
from cpm.resources.whole import (
    Clients,
    Dr,
    Growing,
    Held,
    Listed,
    Making,
    Place,
    Problems,
    Restoring,
    WholeResource,
)

# Without two hyphens in a row and none at the end.
NAME = re.compile(r"[a-z](?:-?[a-z0-9])*")
LONGEST_NAME = 63
# Up to so many are asked for one by one; of more the list is read, a hundred to a page.
FEW = 3
# AWS's clock and ours never differ by more, or no call would be accepted.
CLOCKS = timedelta(minutes=15)
# Nothing but the moment tells our cluster from one that somebody else restores under the same name, so this one is narrow.
NARROW = timedelta(minutes=1)
FOREVER = -1
STEP_TAG = "cpm_step_id"
# AWS: Redshift API Reference, RestoreFromClusterSnapshot, Port.
PORTS: Mapping[str, Sequence[tuple[int, int]]] = {"dc2": ((1150, 65535),)}
OTHER_PORTS = ((5431, 5455), (8191, 8215))
CLUSTERS = "arn:{partition}:redshift:*:*:cluster:*"
SNAPSHOTS = "arn:{partition}:redshift:*:*:snapshot:*/*"
ROLES = "arn:{partition}:iam::*:role/*"
OURS = tagged_as_ours()


class RedshiftCluster(WholeResource):
    """A provisioned cluster with its databases."""

    key = "redshift_clusters"
    noun = "Redshift cluster"
    service = "redshift"
    id_pattern = rf"(?=.{{1,{LONGEST_NAME}}}$){NAME.pattern}"
    details = (
        "status", "cluster_type", "node_type", "nodes", "node_storage", "capacity", "encrypted", "kms_key_id", "port",
        "publicly_accessible", "zone", "multi_az", "relocation", "vpc_id", "subnet_group_name", "security_groups",
        "enhanced_vpc_routing", "parameter_group", "iam_roles", "default_iam_role", "db_name", "master_username",
        "copied_to",
    )  # fmt: skip
    target_fields = (
        Shows("aws_resource_type", "details__cluster_type"),
        Shows("encrypted", "details__encrypted", bool),
        Shows("node_storage", "details__node_storage", int),
        Shows("node_type", "details__node_type"),
        Shows("nodes", "details__nodes", int),
        Shows("publicly_accessible", "details__publicly_accessible", bool),
        Shows("status", "details__status"),
        Shows("zone", "details__zone"),
    )
    report_word = "redshift"
    limit = Limit("max_redshift_gib", "GiB of Redshift clusters", summed="capacity")
    recovery_type = RecoveryType.REDSHIFT_CLUSTER
    kind = "redshift_clusters"
    snapshot_word = "redshift"
    snapshot_fields = (
        Shows("aws_node_type", "details__node_type"),
        Shows("aws_nodes", "details__nodes", int),
        Shows("cluster_id", "source_id"),
        Shows("port", "details__port", int),
        Shows("publicly_accessible", "details__publicly_accessible", bool),
        Shows("subnet_group_name", "details__subnet_group_name"),
        Shows("zone", "details__zone"),
    )
    recover_takes = (
        Takes("aws_resource_id", required=True, help="Identifier of the new cluster."),
        Takes("port", int, help="Port of the new cluster; the original's if left out."),
        Takes("publicly_accessible", bool, help="Whether the internet may reach it; as the original if left out."),
        Takes("subnet_group_name", help="Cluster subnet group; the original's if left out."),
        Takes("zone", help="Availability zone; the original's, where the subnet group covers it, if left out."),
    )
    stages: ClassVar[Sequence[str]] = ("cluster", "tags")
    dr = Dr.GRANT
    default_key_alias = "alias/aws/redshift"
    iam_actions = (
        IamAction("redshift:DescribeClusters", "backup", "finds the clusters of a policy and what they look like"),
        IamAction("redshift:CreateClusterSnapshot", "backup", "backs up clusters", (CLUSTERS, SNAPSHOTS)),
        IamAction(
            "redshift:CreateTags", "backup", "tags snapshots as ours when they are made", SNAPSHOTS, tagging_as_ours()
        ),
        IamAction("redshift:DescribeClusterSnapshots", "backup", "waits until snapshots of clusters are complete"),
        IamAction(
            "redshift:DeleteClusterSnapshot", "retention", "deletes outlived and aborted snapshots of clusters",
            SNAPSHOTS, OURS,
        ),
        IamAction(
            "redshift:RevokeSnapshotAccess", "retention", "Redshift deletes no snapshot that is shared", SNAPSHOTS, OURS
        ),
        IamAction(
            "redshift:AuthorizeSnapshotAccess", "dr source", "lets the DR account restore snapshots of clusters",
            SNAPSHOTS, OURS,
        ),
        IamAction(
            "redshift:DescribeClusters", "recovery", "checks that the name is free and waits for a recovered cluster"
        ),
        IamAction(
            "redshift:DescribeClusterSnapshots", "catalogue", "rebuilds a lost database from the tags of our snapshots"
        ),
        IamAction("redshift:DescribeClusterSnapshots", "recovery", "finds the snapshot to recover a cluster from"),
        IamAction("redshift:DescribeClusterSubnetGroups", "recovery", "checks where a cluster is to be recovered"),
        IamAction("ec2:DescribeAvailabilityZones", "recovery", "checks that the zone of a recovered cluster exists"),
        IamAction(
            "redshift:RestoreFromClusterSnapshot", "recovery", "makes a cluster from a snapshot", (CLUSTERS, SNAPSHOTS)
        ),
        IamAction(
            "iam:PassRole", "recovery", "gives a recovered cluster the roles of the original", ROLES,
            {"StringEquals": {"iam:PassedToService": "redshift.amazonaws.com"}},
        ),
        IamAction("redshift:CreateTags", "recovery", "gives a recovered cluster its tags", CLUSTERS, tagging_as_ours()),
        IamAction("redshift:DeleteCluster", "recovery", "removes the cluster of an aborted recovery", CLUSTERS),
    )  # fmt: skip

    def describe(self, client: AwsClient, ids: Sequence[str]) -> dict[str, Described]:
        clusters = _clusters(client, ids)
        return {
            id: answers.described(one) for id, one in clusters.items() if one["ClusterStatus"] not in answers.LEAVING
        }

    def create(self, client: AwsClient, making: Making) -> str:
        made = client.call(
            "CreateClusterSnapshot",
            ClusterIdentifier=making.resource_id,
            SnapshotIdentifier=making.name,
            ManualSnapshotRetentionPeriod=FOREVER,
            Tags=answers.as_tags(making.tags),
        )
        return str(made["Snapshot"]["SnapshotIdentifier"])

    def find(self, client: AwsClient, making: Making) -> list[str]:
        found, marks = _snapshot(client, making.name), (SERVER_TAG, STEP_TAG)
        if found is None:
            return []
        labels = answers.tags_of(found)
        # The name alone is the step's; the tags keep us from taking what somebody else has named so.
        ours = all(labels.get(mark) == making.tags.get(mark) for mark in marks)
        return [str(found["SnapshotIdentifier"])] if ours else []

    def snapshots(self, client: AwsClient, held: Sequence[Held]) -> dict[str, Shown]:
        wanted = {one.aws_id for one in held}
        if len(wanted) <= FEW:
            each = {aws_id: _snapshot(client, aws_id) for aws_id in wanted}
            return {aws_id: answers.shown(one) for aws_id, one in each.items() if one is not None}
        moments = [one.started for one in held if one.started is not None]
        since = {"StartTime": min(moments) - CLOCKS} if len(moments) == len(held) else {}
        listed = client.paginate("DescribeClusterSnapshots", "Snapshots", SnapshotType="manual", **since)
        return {
            one["SnapshotIdentifier"]: answers.shown(one) for one in listed if one["SnapshotIdentifier"] in wanted
        }

    def listed(self, client: AwsClient) -> Iterator[Listed]:
        for one in client.paginate("DescribeClusterSnapshots", "Snapshots", SnapshotType="manual"):
            # What AWS copies from another region by itself is watched by nobody here.
            here = one.get("SourceRegion") in (None, "", client.region)
            if here and one["SnapshotIdentifier"].startswith(OUR_NAMES) and one["Status"] != "deleted":
                yield answers.listed(one)

    def delete(self, client: AwsClient, held: Held) -> None:
        # AWS: DeleteClusterSnapshot: only what is shared with nobody. What was granted for DR is known; others are looked for.
        for number in held.details.get("granted_to", ()):
            self.unshare(client, held.aws_id, number)
        try:
            client.call("DeleteClusterSnapshot", SnapshotIdentifier=held.aws_id)
        except InvalidState:
            allowed = _allowed(client, held.aws_id)
            if not allowed:
                raise
            for name in allowed:
                self.unshare(client, held.aws_id, name)
            client.call("DeleteClusterSnapshot", SnapshotIdentifier=held.aws_id)

    def why_not_copied(self, held: Held, target: Place) -> str:
        if not target.same_account:
            if target.region == held.region:
                return ""
            return (
                "Redshift lets another account restore a snapshot only in the region where the snapshot is. Switch on"
                " copying to the cluster's own region for the DR account."
            )
        copied_to = held.details.get("copied_to")
        if copied_to == target.region:
            return (
                f"AWS copies the snapshots of this cluster to {target.region} itself, which is switched on for the"
                " cluster; nothing of these copies is watched or deleted from here."
            )
        return (
            "Redshift copies snapshots to another region only by itself, to one region for each cluster: switch that on"
            f" for the cluster (EnableSnapshotCopy, in the console “Configure cross-region snapshot”) with"
            f" {target.region} as its destination"
            + (f" in place of {copied_to}." if copied_to else ".")
        )

    def shared_with(self, client: AwsClient, aws_id: str) -> set[str]:
        return {name for name in _allowed(client, aws_id) if name.isdigit()}

    def share(self, client: AwsClient, aws_id: str, number: str) -> None:
        try:
            client.call("AuthorizeSnapshotAccess", SnapshotIdentifier=aws_id, AccountWithRestoreAccess=number)
        except AlreadyExists:
            return

    def unshare(self, client: AwsClient, aws_id: str, number: str) -> None:
        try:
            client.call("RevokeSnapshotAccess", SnapshotIdentifier=aws_id, AccountWithRestoreAccess=number)
        except NotFound as error:
            if error.code != "AuthorizationNotFound":
                raise

    def problems(self, held: Held, request: Mapping[str, Any]) -> Problems:
        found: Problems = {}
        name = str(request.get("aws_resource_id") or "")
        if not NAME.fullmatch(name) or len(name) > LONGEST_NAME:
            found["aws_resource_id"] = (
                f"A cluster's identifier has up to {LONGEST_NAME} lower-case letters, digits and single hyphens, begins with"
                " a letter and does not end with a hyphen."
            )
        port, node_type = request.get("port"), str(held.details.get("node_type") or "")
        ranges = PORTS.get(node_type.partition(".")[0], OTHER_PORTS)
        if port is not None and not any(least <= port <= most for least, most in ranges):
            allowed = " or ".join(f"{least} to {most}" for least, most in ranges)
            found["port"] = f"The port of a cluster of {node_type} nodes is {allowed}."
        return found

    def preflight(self, clients: Clients, held: Held, request: Mapping[str, Any], place: Place) -> Problems:
        client, id = clients(self.service), str(request["aws_resource_id"])
        found: Problems = {}
        if _clusters(client, [id]):
            found["aws_resource_id"] = f"There is a cluster {id} in {place.region} already; choose another identifier."
        name, zone = answers.chosen(request, held.details, "subnet_group_name"), request.get("zone")
        if name and name != answers.IMPLICIT_GROUP:
            group = answers.subnet_group(client, name)
            if group is None:
                found["subnet_group_name"] = f"There is no cluster subnet group {name} in {place.region}."
            elif zone and zone not in answers.zones_of(group):
                covered = ", ".join(sorted(answers.zones_of(group)))
                found["zone"] = f"The cluster subnet group {name} has no subnet in {zone}, but in {covered}."
        elif zone:
            shown = clients("ec2").call("DescribeAvailabilityZones")["AvailabilityZones"]
            if zone not in {one["ZoneName"] for one in shown}:
                found["zone"] = f"There is no zone {zone} in {place.region}."
        return found

    def restore(self, client: AwsClient, restoring: Restoring, stage: str) -> str:
        if stage == "tags":
            id = str(restoring.earlier["cluster"])
            _give_tags(client, id, restoring)
            return id
        name = answers.chosen(restoring.request, restoring.held.details, "subnet_group_name")
        group = answers.subnet_group(client, name) if name and name != answers.IMPLICIT_GROUP else None
        parameters = answers.restore_parameters(restoring, group)
        try:
            made = client.call("RestoreFromClusterSnapshot", **parameters)
        except Invalid as error:
            # A security group of the original may be gone, and cannot be made again under its id: then it is the VPC's own
            # that AWS takes, which lets nobody else in.
            if "VpcSecurityGroupIds" not in parameters or "security group" not in error.message.lower():
                raise
            del parameters["VpcSecurityGroupIds"]
            made = client.call("RestoreFromClusterSnapshot", **parameters)
        return str(made["Cluster"]["ClusterIdentifier"])

    def find_restored(self, client: AwsClient, restoring: Restoring, stage: str) -> list[str]:
        if stage == "tags" or restoring.since is None:
            return []
        id, details = str(restoring.request["aws_resource_id"]), restoring.held.details
        cluster = _clusters(client, [id]).get(id)
        # The name was free when the recovery began. What was restored under it since then, with the database and the
        # administrator of the original, is ours.
        ours = (
            cluster is not None
            and cluster["ClusterStatus"] not in answers.LEAVING
            and bool(cluster.get("RestoreStatus"))
            and cluster["ClusterCreateTime"] >= restoring.since - NARROW
            and cluster.get("DBName") == details.get("db_name")
            and cluster.get("MasterUsername") == details.get("master_username")
        )
        return [id] if ours else []

    def restored(self, client: AwsClient, ids: Sequence[str], stage: str) -> dict[str, Growing]:
        if stage == "tags":
            return {id: Growing(done=True) for id in ids}
        return {id: answers.growing(one) for id, one in _clusters(client, ids).items()}

    def undo(self, clients: Clients, id: str, stage: str, request: Mapping[str, Any]) -> bool:
        if stage == "tags":
            return True
        try:
            clients(self.service).call("DeleteCluster", ClusterIdentifier=id, SkipFinalClusterSnapshot=True)
        except NotFound:
            return True
        except InvalidState:
            cluster = _clusters(clients(self.service), [id]).get(id)
            return cluster is None or cluster["ClusterStatus"] in answers.LEAVING
        return True


def _clusters(client: AwsClient, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The clusters of these ids as AWS shows them, those that are being deleted among them."""
    wanted = set(ids)
    if len(wanted) > FEW:
        listed = client.paginate("DescribeClusters", "Clusters")
        return {one["ClusterIdentifier"]: one for one in listed if one["ClusterIdentifier"] in wanted}
    found: dict[str, dict[str, Any]] = {}
    for id in wanted:
        try:
            shown = client.call("DescribeClusters", ClusterIdentifier=id)["Clusters"]
        except NotFound:
            continue
        found |= {one["ClusterIdentifier"]: one for one in shown}
    return found


def _snapshot(client: AwsClient, aws_id: str) -> dict[str, Any] | None:
    try:
        found: list[dict[str, Any]] = client.call("DescribeClusterSnapshots", SnapshotIdentifier=aws_id)["Snapshots"]
    except NotFound:
        return None
    return found[0] if found else None


def _allowed(client: AwsClient, aws_id: str) -> list[str]:
    """Who may restore the snapshot: numbers of accounts, and the name of AWS's support."""
    found = _snapshot(client, aws_id) or {}
    return [one.get("AccountId") or one["AccountAlias"] for one in found.get("AccountsWithRestoreAccess") or ()]


def _give_tags(client: AwsClient, id: str, restoring: Restoring) -> None:
    """Tag the new cluster, with as many as fit beside those that it may have of its snapshot."""
    cluster = client.call("DescribeClusters", ClusterIdentifier=id)["Clusters"][0]
    had, labels = answers.tags_of(cluster), dict(restoring.tags)
    room = answers.MOST_TAGS - len(had)
    new = [key for key in labels if key not in had]
    for key in new[max(room, 0) :]:
        del labels[key]
    # AWS does not show a cluster's own ARN; that of its namespace differs in its end only.
    arn = f"{cluster['ClusterNamespaceArn'].split(':namespace:')[0]}:cluster:{id}"
    client.call("CreateTags", ResourceName=arn, Tags=answers.as_tags(labels))
