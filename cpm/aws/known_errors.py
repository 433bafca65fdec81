"""The failures of AWS that people meet with backups, what they mean and what to do: one table in five files.

The first entry that matches wins, so special cases stand before general ones. `docs/aws-errors.md` is written from
here. An error that is not listed keeps its family's general advice.
"""

from cpm.aws import (
    known_errors_access,
    known_errors_backup,
    known_errors_databases,
    known_errors_redshift,
    known_errors_resources,
)
from cpm.aws.known_error import STATE, KnownError

SECTIONS: dict[str, tuple[KnownError, ...]] = {
    "Permissions and accounts": known_errors_access.ACCESS,
    "Credentials and regions": known_errors_access.CREDENTIALS,
    "KMS keys": known_errors_access.KEYS,
    "Snapshots, AMIs and tags": known_errors_resources.SNAPSHOTS,
    "Recovered instances and volumes": known_errors_resources.RECOVERY,
    "Redshift": known_errors_redshift.REDSHIFT,
    "Databases": known_errors_databases.DATABASES,
    "AWS Backup": known_errors_backup.BACKUPS,
    "S3": known_errors_resources.STORAGE,
    "Systems Manager and mail": known_errors_resources.AGENTS,
}
KNOWN_ERRORS = tuple(entry for entries in SECTIONS.values() for entry in entries)


def find(*, family: str, service: str, action: str, aws_code: str, message: str) -> KnownError | None:
    """The entry for an error of AWS, or None if it is not a known one."""
    for entry in KNOWN_ERRORS:
        if entry.matches(family=family, service=service, action=action, aws_code=aws_code, message=message):
            return entry
    return None


def explain_state(reason: str, *, service: str = "ec2") -> str:
    """The reason that AWS shows for a resource's failed state, followed by what to do if it is a known one."""
    entry = find(family=STATE, service=service, action="", aws_code="", message=reason)
    return f"{reason.rstrip('.')}. {entry.advice} [{entry.code}]" if entry else reason
