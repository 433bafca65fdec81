"""SES as far as CPM uses it: addresses that their owners must confirm. The control endpoint plays the owner."""

import re
from typing import Any

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError
from cpm.simulator.world import State

ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
STATUSES = ("Pending", "Success", "Failed", "TemporaryFailure", "NotStarted")


def verify_email_identity(call: Call) -> dict[str, Any]:
    """AWS: SES API Reference, VerifyEmailIdentity: pending until the owner follows the link; asking again is harmless."""
    address = call.params["EmailAddress"]
    if not ADDRESS.fullmatch(address):
        raise AwsError("InvalidParameterValue", f"Invalid email address {address}.")
    known = call.state.mail_identities.setdefault((call.account, call.region), {})
    if known.get(address) != "Success":
        known[address] = "Pending"
    return {}


def get_identity_verification_attributes(call: Call) -> dict[str, Any]:
    """AWS: SES API Reference, GetIdentityVerificationAttributes: addresses that nobody asked to verify are left out."""
    known = call.state.mail_identities.get((call.account, call.region), {})
    asked = [address for address in call.params["Identities"] if address in known]
    return {"VerificationAttributes": {address: {"VerificationStatus": known[address]} for address in asked}}


def shown(state: State) -> list[dict[str, str]]:
    """Every address, for the control endpoint."""
    return [
        {"account": account, "region": region, "address": address, "status": status}
        for (account, region), known in state.mail_identities.items()
        for address, status in known.items()
    ]


def settle(state: State, address: str, status: str) -> int:
    """The owner confirms the address, or does not in time; in how many accounts and regions that was awaited."""
    if status not in STATUSES:
        raise AwsError("BadControl", f"status is one of {', '.join(STATUSES)}")
    found = [known for known in state.mail_identities.values() if address in known]
    for known in found:
        known[address] = status
    return len(found)


ACTIONS = {
    "GetIdentityVerificationAttributes": get_identity_verification_attributes,
    "VerifyEmailIdentity": verify_email_identity,
}
