"""SNS and SES: topics, addresses that must confirm, and what would have been delivered to whom."""

from tests.simulated_aws import SimulatedAws

ALICE = "alice@example.com"


def test_a_name_is_one_topic_and_other_tags_are_refused(aws: SimulatedAws, refused) -> None:
    """AWS: SNS API Reference, CreateTopic."""
    sns = aws.client("sns")
    tags = [{"Key": "cpm_server_id", "Value": "1"}]

    arn = sns.create_topic(Name="cpm-alerts", Tags=tags)["TopicArn"]

    assert arn == "arn:aws:sns:us-east-1:123456789012:cpm-alerts"
    assert sns.create_topic(Name="cpm-alerts", Tags=tags)["TopicArn"] == arn
    assert aws.client("sns", "eu-west-1").create_topic(Name="cpm-alerts")["TopicArn"] != arn
    with refused("InvalidParameter"):
        sns.create_topic(Name="cpm-alerts", Tags=[{"Key": "other", "Value": "1"}])
    with refused("InvalidParameter"):
        sns.create_topic(Name="no spaces")
    assert len(aws.control("GET", "/sns")["topics"]) == 2


def test_a_topic_exists_in_its_account_and_region_only(aws: SimulatedAws, refused) -> None:
    """AWS: SNS API Reference, GetTopicAttributes: NotFound, InvalidParameter, AuthorizationError."""
    sns = aws.client("sns")
    arn = sns.create_topic(Name="here")["TopicArn"]

    shown = sns.get_topic_attributes(TopicArn=arn)["Attributes"]

    assert (shown["TopicArn"], shown["Owner"]) == (arn, "123456789012")
    with refused("NotFound"):
        sns.get_topic_attributes(TopicArn=arn + "x")
    with refused("InvalidParameter"):
        sns.get_topic_attributes(TopicArn="here")
    with refused("InvalidParameter"):
        aws.client("sns", "eu-west-1").get_topic_attributes(TopicArn=arn)
    with refused("AuthorizationError"):
        aws.client("sns", account="210987654321").publish(TopicArn=arn, Message="text")
    sns.delete_topic(TopicArn=arn)
    with refused("NotFound"):
        sns.publish(TopicArn=arn, Message="text")


def test_only_confirmed_addresses_are_reached(aws: SimulatedAws, refused) -> None:
    """AWS: SNS API Reference, Subscribe and ListSubscriptionsByTopic; Developer Guide, Email notifications."""
    sns = aws.client("sns")
    arn = sns.create_topic(Name="news")["TopicArn"]
    with refused("InvalidParameter"):
        sns.subscribe(TopicArn=arn, Protocol="email", Endpoint="nobody")

    for _ in range(2):
        asked = sns.subscribe(TopicArn=arn, Protocol="email", Endpoint=ALICE)
        assert asked["SubscriptionArn"] == "pending confirmation"
    sns.publish(TopicArn=arn, Subject="one", Message="first")
    aws.control("POST", "/sns/confirm", {"topic": arn, "endpoint": ALICE})
    sns.publish(TopicArn=arn, Subject="two", Message="sécond")

    (listed,) = sns.list_subscriptions_by_topic(TopicArn=arn)["Subscriptions"]
    assert (listed["Endpoint"], listed["SubscriptionArn"].startswith(arn)) == (ALICE, True)
    (topic,) = aws.control("GET", "/sns")["topics"]
    sent = [(one["subject"], one["message"], one["reached"]) for one in topic["published"]]
    assert sent == [("one", "first", []), ("two", "sécond", [ALICE])]
    assert sns.get_topic_attributes(TopicArn=arn)["Attributes"]["SubscriptionsConfirmed"] == "1"


def test_subject_and_message_have_limits(aws: SimulatedAws, refused) -> None:
    """AWS: SNS API Reference, Publish: constraints of Subject and Message."""
    sns = aws.client("sns")
    arn = sns.create_topic(Name="limits")["TopicArn"]

    sns.publish(TopicArn=arn, Subject="x" * 99, Message="x" * 262_144)

    for subject in ("x" * 100, "two\nlines", "ümlaut", " indented"):
        with refused("InvalidParameter"):
            sns.publish(TopicArn=arn, Subject=subject, Message="text")
    with refused("InvalidParameter"):
        sns.publish(TopicArn=arn, Message="x" * 262_145)


def test_fifo_topics_drop_repetitions(aws: SimulatedAws, refused) -> None:
    """AWS: SNS Developer Guide, Message deduplication for FIFO topics."""
    sns = aws.client("sns")
    arn = sns.create_topic(Name="ordered.fifo", Attributes={"FifoTopic": "true"})["TopicArn"]

    with refused("InvalidParameter"):
        sns.publish(TopicArn=arn, Message="text")
    first, again = (
        sns.publish(TopicArn=arn, Message="text", MessageGroupId="g", MessageDeduplicationId="d")
        for _ in range(2)
    )

    assert first["MessageId"] == again["MessageId"]
    assert len(aws.control("GET", "/sns")["topics"][0]["published"]) == 1


def test_an_address_is_verified_when_its_owner_confirms(aws: SimulatedAws) -> None:
    """AWS: SES API Reference, VerifyEmailIdentity and GetIdentityVerificationAttributes."""
    ses = aws.client("ses")

    def status() -> dict:
        return ses.get_identity_verification_attributes(Identities=[ALICE])["VerificationAttributes"]

    assert status() == {}
    ses.verify_email_identity(EmailAddress=ALICE)
    assert status()[ALICE]["VerificationStatus"] == "Pending"
    assert (
        aws.client("ses", "eu-west-1").get_identity_verification_attributes(Identities=[ALICE])[
            "VerificationAttributes"
        ]
        == {}
    )
    aws.control("POST", "/ses", {"address": ALICE})
    ses.verify_email_identity(EmailAddress=ALICE)
    assert status()[ALICE]["VerificationStatus"] == "Success"
    (known,) = aws.control("GET", "/ses")["identities"]
    assert (known["account"], known["address"]) == ("123456789012", ALICE)


def test_what_the_simulator_does_not_know_it_refuses(aws: SimulatedAws, refused) -> None:
    with refused("UnsupportedOperation"):
        aws.client("sns").list_topics()
    with refused("UnsupportedOperation"):
        aws.client("ses").get_send_quota()
    aws.fault(service="sns", action="CreateTopic", error="Throttled", status=429)
    with refused("Throttled"):
        aws.client("sns").create_topic(Name="x")
