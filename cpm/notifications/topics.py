"""Amazon SNS: the topics to which alerts and summaries go."""

import re
from collections.abc import Mapping

from cpm.aws.gateway import AwsClient
from cpm.aws.iam_policy import IamAction
from cpm.notifications.messages import Message

ALERTS, SUMMARY = "alerts", "summary"
FIFO = ".fifo"
_ARN = re.compile(
    r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):[0-9]{12}:[A-Za-z0-9_-]{1,256}(\.fifo)?", re.ASCII
)

TOPICS = "arn:{partition}:sns:*:*:*"
OUR_TOPICS = "arn:{partition}:sns:*:*:cpm-*"
IAM_ACTIONS = (
    IamAction("sns:CreateTopic", "notifications", "makes the topic of a user who asks for one", OUR_TOPICS),
    IamAction("sns:TagResource", "notifications", "tags the topics that it makes as ours", OUR_TOPICS),
    IamAction(
        "sns:Subscribe", "notifications", "subscribes the e-mail address of a user who asks for it", TOPICS
    ),
    IamAction("sns:GetTopicAttributes", "notifications", "checks a topic before it is stored", TOPICS),
    IamAction("sns:Publish", "notifications", "sends alerts and daily summaries", TOPICS),
)


def name_of(server_id: object, user_id: int, purpose: str) -> str:
    """The name of the topic that CPM makes for a user: always the same, so that making it twice is making it once."""
    return f"cpm-{server_id}-{user_id}-{purpose}"


def problem_with(arn: str, region: str) -> str:
    """What is wrong with the text as an ARN of a topic in that region; empty if nothing is."""
    match = _ARN.fullmatch(arn)
    if match is None:
        return (
            "This is not the ARN of an SNS topic, which looks like arn:aws:sns:us-east-1:123456789012:name."
        )
    if match["region"] != region:
        return f"This topic is in {match['region']}, but the region for SNS is {region}; make them the same."
    return ""


def create(sns: AwsClient, name: str, tags: Mapping[str, str]) -> str:
    """The ARN of the topic with this name, made if there is none. Raises AwsError."""
    labels = [{"Key": key, "Value": value} for key, value in tags.items()]
    return str(sns.call("CreateTopic", Name=name, Tags=labels)["TopicArn"])


def check(sns: AwsClient, arn: str) -> None:
    """Raises AwsError unless the topic exists and these credentials may look at it."""
    sns.call("GetTopicAttributes", TopicArn=arn)


def subscribe(sns: AwsClient, arn: str, email: str) -> None:
    """Have AWS ask the address whether it wants the topic's messages. It must confirm within three days."""
    sns.call("Subscribe", TopicArn=arn, Protocol="email", Endpoint=email)


def publish(sns: AwsClient, arn: str, message: Message, *, once: str) -> str:
    """Send the message and return its id. FIFO topics drop a repetition with the same `once`. Raises AwsError."""
    ordered = {"MessageGroupId": "cpm", "MessageDeduplicationId": once} if arn.endswith(FIFO) else {}
    sent = sns.call("Publish", TopicArn=arn, Subject=message.subject, Message=message.body, **ordered)
    return str(sent["MessageId"])
