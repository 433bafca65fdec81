"""What an answer to a request of our own says: refusals of AWS's two forms, XML, and what is no answer of AWS."""

import json
import re
from xml.etree import ElementTree

from cpm.aws.http_connection import Answer

_NAMESPACE = re.compile(r"^\{[^}]*\}")
_ERROR = re.compile(rb"\s*(<\?xml[^>]*\?>)?\s*<Error[\s>]")


class Damaged(Exception):
    """The answer came whole, but is not what its checksum or its sender's manner says. The message tells how."""

    def __init__(self, text: str, code: str = "ChecksumError") -> None:
        self.code = code
        super().__init__(text)


def said(answer: Answer) -> tuple[str, str]:
    """AWS's code and message, from either of the two forms; the bare status when there is neither."""
    body, kind = bytes(answer.body), answer.headers.get("x-amzn-errortype", "")
    bare = str(answer.status)
    if kind or body.lstrip().startswith(b"{"):
        return _said_in_json(body, kind, bare)
    if _ERROR.match(body):
        try:
            root = xml(body)
        except Damaged:
            return bare, ""
        return root.findtext("Code") or bare, root.findtext("Message") or ""
    return bare, ""


def _said_in_json(body: bytes, kind: str, bare: str) -> tuple[str, str]:
    try:
        told = json.loads(body or b"{}")
    except ValueError:
        told = {}
    told = told if isinstance(told, dict) else {}
    code = (kind or str(told.get("__type") or told.get("code") or "")).split(":")[0].split("#")[-1]
    message, reason = str(told.get("Message") or told.get("message") or ""), str(told.get("Reason") or "")
    # EBS tells by the reason which token or parameter it means.
    return code or bare, f"{reason}: {message}" if reason else message


def xml(body: bytes | bytearray | memoryview) -> ElementTree.Element:
    """The root element, all names without their name space. Raises ``Damaged`` for what is not plain XML."""
    text = bytes(body)
    if b"<!DOCTYPE" in text:
        raise Damaged("the answer is XML with a document type, which S3 never sends", "BadAnswer")
    try:
        # Without a document type there are no entities that could be abused.
        root = ElementTree.fromstring(text)  # noqa: S314
    except ElementTree.ParseError:
        raise Damaged("the answer is not XML", "BadAnswer") from None
    for element in root.iter():
        element.tag = _NAMESPACE.sub("", element.tag)
    return root
