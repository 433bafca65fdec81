"""Amazon SES: the address that mail comes from must be verified by its owner."""

from cpm.aws.gateway import AwsClient
from cpm.aws.iam_policy import IamAction

SUCCESS = "Success"
# Our word for an address that SES has never been asked about; the others are SES's own.
UNKNOWN = "NotStarted"

IAM_ACTIONS = (
    IamAction("ses:VerifyEmailIdentity", "mail", "asks the owner of the sender's address to confirm it"),
    IamAction("ses:GetIdentityVerificationAttributes", "mail", "learns whether the address is confirmed"),
)


def status_of(ses: AwsClient, address: str) -> str:
    """Where SES stands with the address: Pending, Success, Failed, TemporaryFailure or NotStarted. Raises AwsError."""
    answer = ses.call("GetIdentityVerificationAttributes", Identities=[address])
    found = answer["VerificationAttributes"].get(address)
    return str(found["VerificationStatus"]) if found else UNKNOWN


def verify(ses: AwsClient, address: str) -> str:
    """Have SES write to the address unless it is verified already; returns the status before. Raises AwsError."""
    status = status_of(ses, address)
    if status != SUCCESS:
        ses.call("VerifyEmailIdentity", EmailAddress=address)
    return status
