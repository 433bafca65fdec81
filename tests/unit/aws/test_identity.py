import copy
import pickle
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpm.aws.identity import AssumedRole, Keys, ServerRole, role_arn, session_name

KEYS = Keys("AKIAEXAMPLE", "planted-secret", "planted-token")


def test_identities_show_no_secret():
    role = AssumedRole.of(KEYS, "111122223333", "Backup", external_id="planted-external")

    for shown in (repr(KEYS), str(KEYS), f"{KEYS}", repr(role), str(role)):
        assert "planted" not in shown
    assert set(role.secrets()) == {"planted-secret", "planted-token", "planted-external"}


def test_identities_are_not_sent_anywhere():
    role = AssumedRole.of(ServerRole(), "111122223333", "Backup")

    for identity in (KEYS, ServerRole(), role):
        with pytest.raises(TypeError):
            pickle.dumps(identity)
        with pytest.raises(TypeError):
            copy.deepcopy(identity)


def test_identities_with_another_secret_are_others():
    assert Keys("AKIAEXAMPLE", "one") != Keys("AKIAEXAMPLE", "two")
    assert len({Keys("AKIAEXAMPLE", "one"), Keys("AKIAEXAMPLE", "one")}) == 1


@pytest.mark.parametrize("partition", ["aws", "aws-cn", "aws-us-gov"])
def test_a_chain_stays_in_the_partition_of_its_source(partition):
    source = Keys("AKIAEXAMPLE", "secret", partition=partition)

    role = AssumedRole.of(AssumedRole.of(source, "111122223333", "Hub"), "444455556666", "team/Backup")

    assert role.role_arn == f"arn:{partition}:iam::444455556666:role/team/Backup"
    assert role.partition == partition
    assert role.account_key == "444455556666"


@pytest.mark.parametrize(
    ("account", "role"),
    [
        ("123", "Backup"),
        ("1111222233334", "Backup"),
        ("111122223333", ""),
        ("111122223333", "a b"),
        ("111122223333", "arn:aws:iam::111122223333:role/x"),
    ],
)
def test_what_is_no_account_or_role_name_is_refused(account, role):
    with pytest.raises(ValueError):
        role_arn("aws", account, role)


def test_a_chained_role_lasts_an_hour_at_most():
    first = AssumedRole.of(KEYS, "111122223333", "Hub", duration=43200)

    with pytest.raises(ValueError):
        AssumedRole.of(first, "444455556666", "Backup", duration=3601)


@given(st.text())
def test_any_text_makes_a_session_name_that_sts_accepts(wanted):
    assert re.fullmatch(r"[\w+=,.@-]{2,64}", session_name(wanted), re.ASCII)


def test_a_session_name_shows_the_job():
    assert session_name("cpm job 17/backup") == "cpm-job-17-backup"
