"""A DynamoDB table with orders."""

import random

from cpm.demo.aws import unless_absent
from cpm.demo.kinds.base import Content, Kind, Place

ITEMS = 100
# AWS takes no more at once.
BATCH = 25


class DynamoDbTable(Kind):
    key = "dynamodb_tables"
    noun = "DynamoDB table"
    id_field = "aws_resource_name"
    compared = "every item"
    name = "orders"
    ready = "ACTIVE"

    def make(self, place: Place) -> str:
        place.client("dynamodb").create_table(
            TableName=self.name,
            KeySchema=[{"AttributeName": "order", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "order", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
        )
        return self.name

    def state(self, place: Place, id: str) -> str:
        dynamo = place.client("dynamodb")
        shown = unless_absent("ResourceNotFoundException", lambda: dynamo.describe_table(TableName=id))
        return str(shown["Table"]["TableStatus"]) if shown else ""

    def fill(self, place: Place, id: str, version: int) -> None:
        chance = random.Random(version)
        items = [
            {
                "order": {"S": f"2026-{number:04}"},
                "cents": {"N": str(chance.randrange(100_000))},
                "paid": {"BOOL": chance.random() < 0.9},
                "goods": {"L": [{"S": f"article {chance.randrange(1000)}"} for _ in range(3)]},
            }
            for number in range(ITEMS)
        ]
        dynamo = place.client("dynamodb")
        for first in range(0, ITEMS, BATCH):
            requests = [{"PutRequest": {"Item": item}} for item in items[first : first + BATCH]]
            dynamo.batch_write_item(RequestItems={id: requests})

    def content(self, place: Place, id: str) -> Content:
        pages = place.client("dynamodb").get_paginator("scan").paginate(TableName=id)
        items = [item for page in pages for item in page["Items"]]
        return Content.of_parts("items", sorted(items, key=lambda item: str(item["order"]["S"])))

    def delete(self, place: Place, id: str) -> None:
        place.client("dynamodb").delete_table(TableName=id)
