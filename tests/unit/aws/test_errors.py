import pickle
import traceback

import botocore.session
import pytest
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from cpm.aws import errors
from cpm.aws.error_codes import family_of
from cpm.aws.translate import Call, from_botocore

CALL = Call("ec2", "CreateSnapshot", "eu-west-1", "111122223333", ("hunter2secret",))


def answer(code, message="Something.", status=400, service="ec2", action="CreateSnapshot", headers=None):
    response = {
        "Error": {"Code": code, "Message": message},
        "ResponseMetadata": {"RequestId": "req-1", "HTTPStatusCode": status, "HTTPHeaders": headers or {}},
    }
    call = Call(service, action, "eu-west-1", "111122223333", ("hunter2secret",))
    return from_botocore(boto.ClientError(response, action), call)


@pytest.mark.parametrize(
    ("service", "code", "family"),
    [
        ("ec2", "InvalidSnapshot.NotFound", errors.NotFound),
        ("ec2", "InvalidAMIID.NotFound", errors.NotFound),
        ("ec2", "InvalidInstanceID.NotFound", errors.NotFound),
        ("ec2", "InvalidVolume.NotFound", errors.NotFound),
        ("ebs", "ResourceNotFoundException", errors.NotFound),
        ("kms", "NotFoundException", errors.NotFound),
        ("rds", "DBSnapshotNotFound", errors.NotFound),
        ("rds", "DBSnapshotNotFoundFault", errors.NotFound),
        ("iam", "NoSuchEntity", errors.NotFound),
        ("s3", "404", errors.NotFound),
        ("efs", "FileSystemNotFound", errors.NotFound),
        ("efs", "FileSystemInUse", errors.InUse),
        ("efs", "BadRequest", errors.Invalid),
        ("backup", "MissingParameterValueException", errors.Invalid),
        ("backup", "DependencyFailureException", errors.Unreachable),
        ("backup", "InvalidResourceStateException", errors.InvalidState),
        ("ec2", "RequestLimitExceeded", errors.Throttled),
        ("ebs", "RequestThrottledException", errors.Throttled),
        ("ssm", "ThrottlingException", errors.Throttled),
        ("ec2", "SnapshotCreationPerVolumeRateExceeded", errors.Throttled),
        ("ec2", "UnauthorizedOperation", errors.Denied),
        ("sts", "AccessDenied", errors.Denied),
        ("ec2", "AuthFailure", errors.BadCredentials),
        ("sts", "ExpiredToken", errors.BadCredentials),
        ("sts", "InvalidClientTokenId", errors.BadCredentials),
        ("sts", "SignatureDoesNotMatch", errors.BadCredentials),
        ("sts", "RegionDisabledException", errors.RegionDisabled),
        ("ec2", "SnapshotLimitExceeded", errors.LimitReached),
        ("ec2", "ResourceLimitExceeded", errors.LimitReached),
        ("ec2", "InsufficientInstanceCapacity", errors.LimitReached),
        ("ebs", "ServiceQuotaExceededException", errors.LimitReached),
        ("rds", "SnapshotQuotaExceeded", errors.LimitReached),
        ("rds", "InsufficientDBInstanceCapacity", errors.LimitReached),
        ("ec2", "InvalidSnapshot.InUse", errors.InUse),
        ("ec2", "VolumeInUse", errors.InUse),
        ("ec2", "DependencyViolation", errors.InUse),
        ("ec2", "IncorrectState", errors.InvalidState),
        ("ec2", "IncorrectInstanceState", errors.InvalidState),
        ("rds", "InvalidDBInstanceState", errors.InvalidState),
        ("ssm", "InvalidInstanceId", errors.InvalidState),
        ("ec2", "InvalidParameterValue", errors.Invalid),
        ("ec2", "InvalidSnapshotID.Malformed", errors.Invalid),
        ("rds", "DBSubnetGroupNotFoundFault", errors.Invalid),
        ("ec2", "InvalidAMIName.Duplicate", errors.AlreadyExists),
        ("kms", "AlreadyExistsException", errors.AlreadyExists),
        ("kms", "KMSInvalidStateException", errors.KmsUnusable),
        ("kms", "DisabledException", errors.KmsUnusable),
        ("ec2", "InvalidKMSKey.NotFound", errors.KmsUnusable),
        ("rds", "KMSKeyNotAccessibleFault", errors.KmsUnusable),
        ("ec2", "InternalError", errors.Unreachable),
        ("ec2", "Unavailable", errors.Unreachable),
        ("redshift", "ClusterSnapshotNotFound", errors.NotFound),
        ("redshift", "ClusterParameterGroupNotFound", errors.Invalid),
        ("redshift", "AuthorizationAlreadyExists", errors.AlreadyExists),
        ("redshift", "AccessToSnapshotDenied", errors.Denied),
        ("redshift", "InsufficientClusterCapacity", errors.LimitReached),
        ("redshift", "DependentServiceRequestThrottlingFault", errors.Throttled),
        ("ec2", "SomethingNew", errors.Unknown),
    ],
)
def test_a_code_belongs_to_its_family(service, code, family):
    assert type(answer(code, service=service)) is family


@pytest.mark.parametrize(
    "code", ["404", "NotImplemented", "Gone", "", "InvalidZone.NotFound", "AuthFailure", "400"]
)
def test_only_a_definite_answer_means_absent(code):
    assert not isinstance(answer(code, status=404), errors.NotFound)


@pytest.mark.parametrize(
    ("status", "family"), [(500, errors.Unreachable), (503, errors.Unreachable), (429, errors.Throttled)]
)
def test_an_unknown_code_is_judged_by_its_status(status, family):
    assert family_of("ec2", "Mystery", "", status) is family


@pytest.mark.parametrize("service", ["ebs", "kms", "sts", "ec2"])
def test_no_modelled_error_becomes_absent_unless_its_name_says_so(service):
    shapes = botocore.session.get_session().get_service_model(service).error_shapes

    for shape in shapes:
        code = shape.metadata.get("error", {}).get("code") or shape.name
        if family_of(service, code, "", 400) is errors.NotFound:
            assert "NotFound" in code


def test_not_found_tells_which_ids():
    error = answer(
        "InvalidSnapshot.NotFound",
        "The snapshots 'snap-0123456789abcdef0, snap-0123456789abcdef1' do not exist.",
    )

    assert error.ids == ("snap-0123456789abcdef0", "snap-0123456789abcdef1")
    assert not error.transient


def test_denied_names_the_missing_action_and_drops_the_encoded_text():
    error = answer(
        "UnauthorizedOperation",
        "You are not authorized to perform this operation. User: arn:aws:iam::111122223333:user/cpm is not "
        "authorized to perform: ec2:CreateTags on resource: arn:aws:ec2:eu-west-1::snapshot/* because no "
        "identity-based policy allows the ec2:CreateTags action. "
        "Encoded authorization failure message: AbC" + "d" * 400,
        status=403,
    )

    assert error.missing_action == "ec2:CreateTags"
    assert "ddd" not in error.message
    assert "The permission ec2:CreateTags is missing" in error.explain()


def test_denied_without_a_name_blames_the_called_action():
    assert answer("UnauthorizedOperation", "No.").missing_action == "ec2:CreateSnapshot"


def test_denied_by_a_control_policy_says_where_to_look():
    error = answer(
        "AccessDenied",
        "User: x is not authorized to perform: sts:AssumeRole on resource: y with an explicit deny in a "
        "service control policy",
        service="sts",
    )

    assert error.denied_by == "service control policy"
    assert "service control policy" in error.explain()


def test_an_image_that_is_not_shared_is_denied_and_not_bad_credentials():
    assert type(answer("AuthFailure", "Not authorized for images: [ami-1]")) is errors.Denied


def test_a_limit_on_copies_in_progress_passes_and_a_quota_does_not():
    copies = answer(
        "ResourceLimitExceeded", "Too many snapshot copies in progress. The limit is 20 for this region."
    )
    quota = answer("SnapshotLimitExceeded", "You have reached the maximum number of snapshots.")

    assert copies.transient and not quota.transient


def test_the_rate_per_volume_asks_for_15_seconds():
    assert answer("SnapshotCreationPerVolumeRateExceeded").retry_after == 15
    assert answer("RequestLimitExceeded", headers={"retry-after": "7"}).retry_after == 7


@pytest.mark.parametrize(
    ("caught", "family", "maybe_done"),
    [
        (boto.EndpointConnectionError(endpoint_url="https://x"), errors.Unreachable, False),
        (boto.ConnectTimeoutError(endpoint_url="https://x"), errors.Unreachable, False),
        (boto.SSLError(endpoint_url="https://x", error="bad"), errors.Unreachable, False),
        (boto.ReadTimeoutError(endpoint_url="https://x"), errors.Unreachable, True),
        (boto.ConnectionClosedError(endpoint_url="https://x"), errors.Unreachable, True),
        (boto.HTTPClientError(error="reset"), errors.Unreachable, True),
        (ResponseParserError("not XML"), errors.Unreachable, True),
        (boto.NoCredentialsError(), errors.BadCredentials, None),
        (boto.ParamValidationError(report="missing"), errors.Invalid, None),
        (boto.PaginationError(message="odd"), errors.Unknown, None),
    ],
)
def test_failures_without_an_answer_tell_whether_the_call_may_have_arrived(caught, family, maybe_done):
    error = from_botocore(caught, CALL)

    assert type(error) is family
    assert getattr(error, "maybe_done", None) is maybe_done


def test_the_explanation_gives_the_call_the_place_the_code_and_the_request_id():
    text = answer("IncorrectState", "The volume is not available.").explain()

    for part in (
        "ec2:CreateSnapshot",
        "eu-west-1",
        "111122223333",
        "IncorrectState",
        "not available",
        "req-1",
    ):
        assert part in text


def test_a_planted_secret_is_in_no_form_of_an_error():
    error = answer(
        "SignatureDoesNotMatch", "The canonical string: x-amz-security-token:hunter2secret and hunter2secret"
    )

    shown = (
        str(error)
        + repr(error)
        + error.explain()
        + "".join(traceback.format_exception(error))
        + repr(vars(error))
    )

    assert "hunter2secret" not in shown
    assert "hunter2secret" not in repr(CALL)


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "InternalError", "InvalidSnapshot.NotFound", "Odd"])
def test_errors_survive_pickling(code):
    error = answer(code)

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert copy.explain() == error.explain()
