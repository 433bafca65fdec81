"""A mirror on an S3 server written by others, which keeps conditions of copies and tags that moto does not."""

from dataclasses import replace
from pathlib import Path

from cpm.aws import gateway
from cpm.aws.identity import Keys
from cpm.aws.s3_copies import S3Copies
from cpm.s3_sync import slices
from cpm.s3_sync.buckets import Page
from cpm.s3_sync.mirror import Mirror
from cpm.s3_sync.s3_buckets import S3Buckets
from tests.repository import seaweed
from tests.s3_sync.test_over_s3 import IN_PARTS, MIB, keys, never

ODD_KEYS = ("a/b c", "a/b+c", "a/b%20c", "a/ü", "a/😀", "a/<&>\"'", "a/x\x01y", "~!*'()")


class Stale(S3Buckets):
    """Lists the source as it was before its objects were written anew."""

    def list_source(self, prefix: str, after: str | None, token: str | None) -> Page:
        page = super().list_source(prefix, after, token)
        return Page([replace(one, etag="0" * 32) for one in page.objects], page.token)


def test_another_s3_agrees_about_keys_versions_parts_and_tags(tmp_path: Path) -> None:
    with seaweed.running(tmp_path) as client:
        gateway.configure(gateway.GatewayConfig(endpoint_url=client.meta.endpoint_url))
        mirror = Mirror("source", "copies", destination_prefix="to", delete_extra=True)
        bodies = {**{key: key.encode() for key in ODD_KEYS}, "large": b"z" * (11 * MIB)}
        for bucket in ("source", "copies"):
            client.create_bucket(Bucket=bucket)
        for key, body in bodies.items():
            client.put_object(Bucket="source", Key=key, Body=body, Metadata={"m": "1"}, Tagging="t=2")
        sides = [S3Copies(Keys(*seaweed.KEYS), "us-east-1", bucket) for bucket in ("source", "copies")]

        stale = slices.run(mirror, Stale(*sides, sizes=IN_PARTS), cursor=None, stop=never)
        nothing = keys(client, "copies")
        whole = slices.run(mirror, S3Buckets(*sides, sizes=IN_PARTS), cursor=None, stop=never)

        assert stale.finished and stale.counts.skipped["changed"].count == len(bodies) and not nothing
        assert whole.finished and whole.counts.copied == len(bodies) and whole.counts.untagged == 0
        for key, body in bodies.items():
            got = client.get_object(Bucket="copies", Key=f"to/{key}")
            assert (got["Body"].read(), got["Metadata"], got["TagCount"]) == (body, {"m": "1"}, 1), key

        for key in bodies:
            client.delete_object(Bucket="source", Key=key)
        emptied = slices.run(mirror, S3Buckets(*sides), cursor=None, stop=never)

        assert emptied.counts.deleted == len(bodies) and not keys(client, "copies")
