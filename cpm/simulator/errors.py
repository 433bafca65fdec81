"""The one exception that simulator code raises: an error as AWS would answer it."""


class AwsError(Exception):
    """Answered to the client with this code, message and HTTP status in the service's own error format."""

    def __init__(self, code: str, message: str, status: int = 400, **extra: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message
        self.status = status
        self.extra = extra


def missing(name: str) -> AwsError:
    """AWS: EC2 API Reference, Error codes, MissingParameter."""
    return AwsError("MissingParameter", f"The request must contain the parameter {name}")


def invalid(message: str) -> AwsError:
    """AWS: EC2 API Reference, Error codes, InvalidParameterValue."""
    return AwsError("InvalidParameterValue", message)
