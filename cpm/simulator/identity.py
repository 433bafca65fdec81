"""Who is calling: access keys, their accounts, and the check of Signature Version 4."""

import hashlib
import hmac
import secrets
import string
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, quote

from moto.iam.models import iam_backends

from cpm.simulator.errors import AwsError
from cpm.simulator.timing import now

DEFAULT_ACCOUNT = "123456789012"
DEFAULT_ACCESS_KEY = "AKIASIMULATOR0000001"
DEFAULT_SECRET_KEY = "simulator-secret-key-for-account-1234567"  # noqa: S105 - opens nothing but the simulator
DEFAULT_USER = "simulator"


@dataclass
class Key:
    """A credential: a user's long-lived key, or a session's with token and expiry."""

    access_key: str
    secret_key: str
    account: str
    arn: str
    user_id: str
    session_token: str | None = None
    expires: datetime | None = None
    revoked: bool = False


@dataclass
class Identities:
    """Known credentials and accounts."""

    keys: dict[str, Key] = field(default_factory=dict)
    accounts: set[str] = field(default_factory=set)
    roles_must_exist: bool = False

    def __post_init__(self) -> None:
        if not self.keys:
            self.add_user(DEFAULT_ACCOUNT, DEFAULT_ACCESS_KEY, DEFAULT_SECRET_KEY)

    def add_user(self, account: str, access_key: str | None = None, secret_key: str | None = None) -> Key:
        """A new user with a key of its own in an account, which is made if it did not exist."""
        self.accounts.add(account)
        name = DEFAULT_USER
        return self._add(
            Key(
                access_key=access_key or "AKIA" + _letters(16),
                secret_key=secret_key or secrets.token_urlsafe(30),
                account=account,
                arn=f"arn:aws:iam::{account}:user/{name}",
                user_id="AIDA" + _letters(17),
            )
        )

    def add_session(self, account: str, arn: str, user_id: str, expires: datetime) -> Key:
        """Temporary credentials."""
        self.accounts.add(account)
        return self._add(
            Key(
                access_key="ASIA" + _letters(16),
                secret_key=secrets.token_urlsafe(30),
                account=account,
                arn=arn,
                user_id=user_id,
                session_token=secrets.token_urlsafe(120),
                expires=expires,
            )
        )

    def _add(self, key: Key) -> Key:
        self.keys[key.access_key] = key
        return key

    def find(self, access_key: str) -> Key | None:
        """The key, also one that was made through IAM's CreateAccessKey; None when unknown, revoked or inactive."""
        key = self.keys.get(access_key)
        if key is not None:
            return None if key.revoked else key
        for account, partitions in list(iam_backends.items()):
            made = partitions["aws"].access_keys.get(access_key)
            if made is not None and made.status == "Active":
                arn = f"arn:aws:iam::{account}:user/{made.user_name}"
                return Key(access_key, made.secret_access_key, account, arn, "AIDA" + access_key[4:])
        return None


def _letters(length: int) -> str:
    return "".join(secrets.choice(string.ascii_uppercase + "234567") for _ in range(length))


@dataclass(slots=True)
class Credential:
    """The scope that an Authorization header names."""

    access_key: str
    date: str
    region: str
    service: str
    signed_headers: list[str]
    signature: str


def credential_of(authorization: str) -> Credential | None:
    """The parts of an AWS4-HMAC-SHA256 header; None for anything else."""
    kind, _, rest = authorization.partition(" ")
    fields = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    scope = fields.get("Credential", "").split("/")
    if kind != "AWS4-HMAC-SHA256" or len(scope) != 5:
        return None
    headers = fields.get("SignedHeaders", "").split(";")
    return Credential(scope[0], scope[1], scope[2], scope[3], headers, fields.get("Signature", ""))


def signature(key: Key, credential: Credential, request: dict[str, Any]) -> str:
    """AWS: IAM User Guide, Create a signed AWS API request. ``request``: method, raw_path, query, headers, body."""
    headers = request["headers"]
    pairs = sorted(parse_qsl(request["query"], keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
    path = request["raw_path"] if credential.service == "s3" else quote(request["raw_path"], safe="/-_.~")
    payload = headers.get("x-amz-content-sha256") or hashlib.sha256(request["body"]).hexdigest()
    canonical = "\n".join(
        [
            request["method"],
            path or "/",
            query,
            *(f"{name}:{' '.join(headers.get(name, '').split())}" for name in credential.signed_headers),
            "",
            ";".join(credential.signed_headers),
            payload,
        ]
    )
    scope = f"{credential.date}/{credential.region}/{credential.service}/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{headers.get('x-amz-date', '')}\n{scope}\n{digest}"
    secret = f"AWS4{key.secret_key}".encode()
    for part in (credential.date, credential.region, credential.service, "aws4_request"):
        secret = hmac.new(secret, part.encode(), hashlib.sha256).digest()
    return hmac.new(secret, to_sign.encode(), hashlib.sha256).hexdigest()


def authenticate(identities: Identities, credential: Credential | None, request: dict[str, Any]) -> Key:
    """The key behind a request; raises what the service answers to a bad one."""
    service = credential.service if credential else ""
    if credential is None:
        raise AwsError("MissingAuthenticationToken", "Request is missing Authentication Token", 403)
    key = identities.find(credential.access_key)
    if key is None:
        raise unknown_key(service)
    token = request["headers"].get("x-amz-security-token")
    if key.session_token != token and not (key.session_token is None and not token):
        raise unknown_key(service)
    if key.expires is not None and now() >= key.expires:
        code = "RequestExpired" if service == "ec2" else "ExpiredTokenException"
        code = "ExpiredToken" if service in ("sts", "s3", "iam") else code
        raise AwsError(code, "The security token included in the request is expired", 400)
    if not hmac.compare_digest(signature(key, credential, request), credential.signature):
        raise _bad_signature(service)
    return key


def unknown_key(service: str) -> AwsError:
    """AWS: EC2 API Reference, Error codes, AuthFailure; STS, IAM, SNS, SES: Common errors, InvalidClientTokenId."""
    if service == "ec2":
        return AwsError("AuthFailure", "AWS was not able to validate the provided access credentials", 401)
    if service in ("sts", "iam", "sns", "ses"):
        return AwsError("InvalidClientTokenId", "The security token included in the request is invalid.", 403)
    if service == "s3":
        return AwsError(
            "InvalidAccessKeyId", "The AWS Access Key Id you provided does not exist in our records.", 403
        )
    return AwsError(
        "UnrecognizedClientException", "The security token included in the request is invalid.", 400
    )


def _bad_signature(service: str) -> AwsError:
    if service == "ec2":
        return unknown_key(service)
    code = "InvalidSignatureException" if service in ("ssm", "kms", "ebs") else "SignatureDoesNotMatch"
    return AwsError(
        code, "The request signature we calculated does not match the signature you provided.", 403
    )
