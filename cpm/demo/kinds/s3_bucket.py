"""A bucket with pictures, and the one in the region for DR that an S3 sync makes equal to it."""

import hashlib
import random

from cpm.demo.aws import unless_absent
from cpm.demo.kinds.base import Content, Kind, Place
from cpm.demo.rest import Json

OBJECTS, OBJECT_BYTES = 40, 4096
# In the mirror before the sync, which deletes what the original does not have.
STRAY = "pictures/left-over.jpg"


class S3Bucket(Kind):
    key = "s3syncs"
    noun = "S3 bucket"
    name = "shop-pictures"
    mirror = "shop-pictures-mirror"
    id_field = "name"
    compared = "every object"

    def prepare(self, home: Place, dr: Place) -> None:
        s3 = dr.client("s3")
        _create(dr, self.mirror)
        s3.put_object(Bucket=self.mirror, Key=STRAY, Body=b"old")

    def make(self, place: Place) -> str:
        _create(place, self.name)
        return self.name

    def state(self, place: Place, id: str) -> str:
        s3 = place.client("s3")
        return self.ready if unless_absent("404", lambda: s3.head_bucket(Bucket=id)) else ""

    def fill(self, place: Place, id: str, version: int) -> None:
        chance = random.Random(version)
        for number in range(OBJECTS):
            place.client("s3").put_object(
                Bucket=id,
                Key=f"pictures/{number % 4}/{number:03}.jpg",
                Body=chance.randbytes(OBJECT_BYTES),
                ContentType="image/jpeg",
                Metadata={"article": str(chance.randrange(1000))},
            )

    def content(self, place: Place, id: str) -> Content:
        s3 = place.client("s3")
        found = {}
        for key in _keys(place, id):
            held = s3.get_object(Bucket=id, Key=key)
            sha256 = hashlib.sha256(held["Body"].read()).hexdigest()
            found[key] = [sha256, held["ContentType"], held["Metadata"]]
        return Content.of_parts("objects", found)

    def delete(self, place: Place, id: str) -> None:
        s3 = place.client("s3")
        s3.delete_objects(Bucket=id, Delete={"Objects": [{"Key": key} for key in _keys(place, id)]})
        s3.delete_bucket(Bucket=id)

    def target(self, place: Place, id: str) -> Json:
        return {self.id_field: id, "destination_bucket_name": self.mirror, "delete_extra": True}


def _create(place: Place, name: str) -> None:
    # AWS: S3 API Reference, CreateBucket: us-east-1 is not a location constraint.
    where = {} if place.region == "us-east-1" else {"LocationConstraint": place.region}
    place.client("s3").create_bucket(Bucket=name, **({"CreateBucketConfiguration": where} if where else {}))


def _keys(place: Place, bucket: str) -> list[str]:
    pages = place.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [one["Key"] for page in pages for one in page.get("Contents", ())]
