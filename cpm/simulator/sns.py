"""SNS as far as CPM uses it: topics, subscriptions that wait for confirmation, and what was published.

Nothing is sent anywhere. The control endpoint shows what was published, confirms subscriptions, and tells which
addresses a message would have reached.
"""

import re
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.timing import now
from cpm.simulator.world import State

NAME = re.compile(r"[A-Za-z0-9_-]{1,256}|[A-Za-z0-9_-]{1,251}\.fifo", re.ASCII)
ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
# AWS: SNS API Reference, Publish, Subject: ASCII on one line, not beginning with a space, less than 100 characters.
SUBJECT = re.compile(r"[!-~][ -~]{0,98}", re.ASCII)
MOST_BYTES = 262_144
# AWS: SNS FAQ: a subscription that nobody confirms is deleted after three days.
CONFIRM_WITHIN = timedelta(days=3)
PENDING = "pending confirmation"
REPEATS = timedelta(minutes=5)


@dataclass
class Subscription:
    arn: str
    protocol: str
    endpoint: str
    requested: datetime
    confirmed: bool = False

    @property
    def alive(self) -> bool:
        return self.confirmed or now() - self.requested < CONFIRM_WITHIN


@dataclass
class Published:
    """One message, with the addresses that it reached."""

    id: str
    time: datetime
    subject: str
    message: str
    reached: list[str]
    deduplication: str = ""


@dataclass
class Topic:
    arn: str
    account: str
    region: str
    tags: dict[str, str]
    subscriptions: list[Subscription] = field(default_factory=list)
    published: list[Published] = field(default_factory=list)

    def living(self) -> list[Subscription]:
        self.subscriptions = [one for one in self.subscriptions if one.alive]
        return self.subscriptions


def invalid(message: str) -> AwsError:
    """AWS: SNS API Reference, Common errors of the actions, InvalidParameter."""
    return AwsError("InvalidParameter", f"Invalid parameter: {message}")


def _topic(call: Call) -> Topic:
    arn = str(call.params["TopicArn"])
    parts = arn.split(":")
    if len(parts) != 6 or parts[:1] + parts[2:3] != ["arn", "sns"]:
        raise invalid("TopicArn")
    if parts[3] != call.region:
        raise invalid("TopicArn Reason: The topic is in another region")
    if parts[4] != call.account:
        # A topic policy could admit other accounts; by default it admits none.
        text = f"is not authorized to perform: SNS:{call.action} on resource: {arn}"
        raise AwsError("AuthorizationError", f"User: arn:aws:iam::{call.account}:user/simulator {text}", 403)
    found: Topic | None = call.state.topics.get(arn)
    if found is None:
        raise AwsError("NotFound", "Topic does not exist", 404)
    return found


def create_topic(call: Call) -> dict[str, Any]:
    """AWS: SNS API Reference, CreateTopic: the same name is the same topic; with other tags it is refused."""
    name = call.params["Name"]
    if not NAME.fullmatch(name):
        raise invalid("Topic Name")
    arn = f"arn:aws:sns:{call.region}:{call.account}:{name}"
    tags = {tag["Key"]: tag["Value"] for tag in call.params.get("Tags", ())}
    known = call.state.topics.get(arn)
    if known is None:
        call.state.topics[arn] = Topic(arn, call.account, call.region, tags)
    elif tags and tags != known.tags:
        raise invalid("Tags Reason: Topic already exists with different tags")
    return {"TopicArn": arn}


def get_topic_attributes(call: Call) -> dict[str, Any]:
    """AWS: SNS API Reference, GetTopicAttributes."""
    topic = _topic(call)
    living = topic.living()
    confirmed = sum(one.confirmed for one in living)
    attributes = {
        "TopicArn": topic.arn, "Owner": topic.account, "DisplayName": "",
        "SubscriptionsConfirmed": str(confirmed), "SubscriptionsPending": str(len(living) - confirmed),
        "SubscriptionsDeleted": "0",
    }  # fmt: skip
    return {"Attributes": attributes}


def subscribe(call: Call) -> dict[str, Any]:
    """AWS: SNS API Reference, Subscribe: an address must confirm; asking again does not make a second subscription."""
    topic = _topic(call)
    protocol, endpoint = call.params["Protocol"], call.params.get("Endpoint", "")
    if protocol not in ("email", "email-json"):
        raise AwsError("UnsupportedOperation", "The simulator offers subscriptions by e-mail only.")
    if not ADDRESS.fullmatch(endpoint):
        raise invalid("Email address")
    for one in topic.living():
        if (one.protocol, one.endpoint) == (protocol, endpoint):
            one.requested = now()
            return {"SubscriptionArn": one.arn if one.confirmed else PENDING}
    topic.subscriptions.append(Subscription(f"{topic.arn}:{uuid.uuid4()}", protocol, endpoint, now()))
    return {"SubscriptionArn": PENDING}


def list_subscriptions_by_topic(call: Call) -> dict[str, Any]:
    """AWS: SNS API Reference, ListSubscriptionsByTopic; one page holds all."""
    topic = _topic(call)
    shown = [
        {
            "SubscriptionArn": one.arn if one.confirmed else "PendingConfirmation", "Owner": topic.account,
            "Protocol": one.protocol, "Endpoint": one.endpoint, "TopicArn": topic.arn,
        }
        for one in topic.living()
    ]  # fmt: skip
    return {"Subscriptions": shown}


def publish(call: Call) -> dict[str, Any]:
    """AWS: SNS API Reference, Publish. FIFO topics need a group and drop repetitions for five minutes."""
    params = call.params
    if "TopicArn" not in params:
        raise AwsError("UnsupportedOperation", "The simulator publishes to topics only.")
    topic = _topic(call)
    subject, message = params.get("Subject", ""), params["Message"]
    if not message:
        raise invalid("Empty message")
    if len(message.encode()) > MOST_BYTES:
        raise invalid("Message too long")
    if "Subject" in params and not SUBJECT.fullmatch(subject):
        raise invalid("Subject")
    once = params.get("MessageDeduplicationId", "")
    if topic.arn.endswith(".fifo"):
        if not params.get("MessageGroupId"):
            raise invalid("The MessageGroupId parameter is required for FIFO topics")
        for sent in topic.published:
            if once and sent.deduplication == once and now() - sent.time < REPEATS:
                return {"MessageId": sent.id}
    reached = [one.endpoint for one in topic.living() if one.confirmed]
    sent = Published(str(uuid.uuid4()), now(), subject, message, reached, once)
    topic.published.append(sent)
    return {"MessageId": sent.id}


def delete_topic(call: Call) -> dict[str, Any]:
    """AWS: SNS API Reference, DeleteTopic: deleting what is not there succeeds."""
    call.state.topics.pop(call.params["TopicArn"], None)
    return {}


def shown(state: State) -> list[dict[str, Any]]:
    """Every topic with its subscriptions and messages, for the control endpoint."""
    return [
        {
            "arn": topic.arn, "account": topic.account, "region": topic.region, "tags": topic.tags,
            "subscriptions": [
                {"protocol": one.protocol, "endpoint": one.endpoint, "confirmed": one.confirmed}
                for one in topic.living()
            ],
            "published": [
                {
                    "id": one.id, "time": one.time, "subject": one.subject, "message": one.message,
                    "reached": one.reached,
                }
                for one in topic.published
            ],
        }
        for topic in state.topics.values()
    ]  # fmt: skip


def confirm(state: State, arn: str, endpoint: str) -> bool:
    """The owner of an address follows the link in the mail; whether there was such a subscription."""
    topic: Topic | None = state.topics.get(arn)
    found = [one for one in topic.living() if one.endpoint == endpoint] if topic else []
    for one in found:
        one.confirmed = True
    return bool(found)


ACTIONS = {
    "CreateTopic": create_topic,
    "DeleteTopic": delete_topic,
    "GetTopicAttributes": get_topic_attributes,
    "ListSubscriptionsByTopic": list_subscriptions_by_topic,
    "Publish": publish,
    "Subscribe": subscribe,
}
