"""What a request to recover a database from S3 must fulfil, in either of its two forms, before anything starts."""

import re
from collections.abc import Mapping
from typing import Any

from cpm.flows import whole
from cpm.models import Snapshot
from cpm.services import s3_recovery_checks
from cpm.services.recovery_checks import Problems

LOADED = "postgres"
"""The engine whose rows can be loaded; of others the files come back."""
# S3 user guide, "General purpose bucket naming rules".
_BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
# RDS API Reference, CreateDBInstance: MasterUsername and MasterUserPassword of PostgreSQL.
_USERNAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")
_PASSWORD = re.compile(r"[!#-.0-?A-~]{8,128}")
_OF_DATABASE = ("aws_resource_id", "master_username", "master_password", "engine_version", "database_name")


def check(snapshot: Snapshot, request: Mapping[str, Any], problems: Problems) -> None:
    """Collect what is wrong."""
    s3_recovery_checks.retrieval(snapshot, request, problems)
    if request.get("export_bucket"):
        _files(request, problems)
    elif snapshot.details.get("engine") != LOADED:
        words = "Only rows of PostgreSQL can be loaded; say into which bucket the files of this database shall come."
        problems.add("export_bucket", words, "required")
    else:
        _database(snapshot, request, problems)


def _files(request: Mapping[str, Any], problems: Problems) -> None:
    bucket, prefix = request["export_bucket"], request.get("export_prefix") or ""
    if not _BUCKET_NAME.fullmatch(bucket):
        problems.add("export_bucket", f"“{bucket}” is not the name of a bucket.")
    if not prefix.endswith("/") or prefix.startswith("/"):
        problems.add("export_prefix", "Must be a folder, as restored/shop/.", "required" if not prefix else "invalid")
    for field in _OF_DATABASE:
        if request.get(field):
            problems.add(field, "Files come into a bucket without a database: leave this out.", "not_offered")


def _database(snapshot: Snapshot, request: Mapping[str, Any], problems: Problems) -> None:
    for field in ("aws_resource_id", "master_username", "master_password"):
        if not request.get(field):
            problems.add(field, "Needed for a new database; or give an export_bucket for files.", "required")
    if request.get("master_username") and not _USERNAME.fullmatch(request["master_username"]):
        problems.add("master_username", "A user has letters, digits and underscores, and begins with a letter.")
    if request.get("master_password") and not _PASSWORD.fullmatch(request["master_password"]):
        words = 'A password has 8 to 128 printable characters, but neither /, ", @ nor spaces.'
        problems.add("master_password", words)
    if request.get("export_prefix"):
        problems.add("export_prefix", "Goes with an export_bucket only.", "not_offered")
    if request.get("aws_resource_id"):
        problems.add_all(whole.type_of(snapshot).problems(whole.held(snapshot), request))
