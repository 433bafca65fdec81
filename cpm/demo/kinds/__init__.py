"""Every kind of resource that the demo protects beside instances and volumes: how a customer makes one and looks into it."""

from cpm.demo.kinds.base import Kind
from cpm.demo.kinds.dynamodb_table import DynamoDbTable

KINDS: tuple[Kind, ...] = (DynamoDbTable(),)
