"""A page that something on the way has written is no answer of AWS, least of all an empty list."""

import pytest

from cpm.aws import errors, gateway
from cpm.aws.identity import Keys
from tests.contract.gateway.fake_aws import Reply

KEYS = Keys("AKIAEXAMPLE", "planted-secret-key", account_number="111122223333")
PAGES = [
    "<html><body>Sign in</body></html>",
    "<!DOCTYPE html><html><body>Sign in</body></html>",
    '<?xml version="1.0"?>\n<html xmlns="http://www.w3.org/1999/xhtml"><body>Blocked</body></html>',
    "Blocked",
    "",
]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize(
    ("service", "action", "params"),
    [
        ("ec2", "DescribeVolumes", {}),
        ("ec2", "CreateSnapshot", {"VolumeId": "vol-0123456789abcdef0"}),
        ("sts", "GetCallerIdentity", {}),
    ],
)
def test_a_page_with_status_200_leaves_the_call_without_an_answer(fake, page, service, action, params):
    fake.responders[action] = lambda request, before: Reply(page)

    with pytest.raises(errors.Unreachable) as caught:
        gateway.client(KEYS, service, "eu-west-1").call(action, **params)

    assert caught.value.maybe_done


@pytest.mark.parametrize("page", PAGES[:3])
def test_a_page_is_no_json_either(fake, page):
    fake.responders[""] = lambda request, before: Reply(page)

    with pytest.raises(errors.Unreachable):
        gateway.client(KEYS, "kms", "eu-west-1").call("ListAliases")


def test_an_empty_list_of_aws_is_an_empty_list(fake):
    fake.responders["DescribeVolumes"] = lambda request, before: Reply(
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<DescribeVolumesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><volumeSet/></DescribeVolumesResponse>'
    )

    assert list(gateway.client(KEYS, "ec2", "eu-west-1").paginate("DescribeVolumes", "Volumes")) == []
