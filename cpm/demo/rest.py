"""CPM's REST API as any program would use it: a key, a token, JSON."""

import base64
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import requests

from cpm.demo.errors import DemoFailed

SECONDS = 60
Json = dict[str, Any]


class Rest:
    """One user's session. Every refusal raises DemoFailed with what CPM said."""

    def __init__(self, api_url: str, api_key: str) -> None:
        self.url = api_url
        self._session = requests.Session()
        self._session.headers["Accept"] = "application/json; version=1.5.0"
        token = self.post("token/obtain/api_key/", api_key=api_key)
        self._session.headers["Authorization"] = f"Bearer {token['access']}"
        self.user = _user_of(token["access"])

    def get(self, path: str, /, **query: Any) -> Any:
        return self._call("GET", path, query=query)

    def post(self, path: str, /, **body: Any) -> Json:
        return self._call("POST", path, body=body) or {}

    def put(self, path: str, /, **body: Any) -> Json:
        return self._call("PUT", path, body=body) or {}

    def post_for_bytes(self, path: str, /, **body: Any) -> bytes:
        """The answer to a request whose answer is a file."""
        return self._send("POST", path, body=body).content

    def delete(self, path: str) -> None:
        self._call("DELETE", path)

    def close(self) -> None:
        self._session.close()

    def _call(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> Any:
        answer = self._send(method, path, body=body, query=query)
        return answer.json() if answer.content else None

    def _send(
        self, method: str, path: str, *, body: Any = None, query: Mapping[str, Any] | None = None
    ) -> requests.Response:
        try:
            answer = self._session.request(
                method, f"{self.url}/{path}", json=body, params=query, timeout=SECONDS
            )
        except requests.RequestException as error:
            raise DemoFailed(f"{method} {path} got no answer: {error}") from error
        if not answer.ok:
            raise DemoFailed(f"{method} {path} was answered with {answer.status_code}: {answer.text[:2000]}")
        return answer


def _user_of(token: str) -> int:
    """The id of the user that a token speaks for; its middle part is JSON (RFC 7519)."""
    claims = token.split(".")[1]
    padded = claims + "=" * (-len(claims) % 4)
    return int(json.loads(base64.urlsafe_b64decode(padded))["user_id"])


def moment(text: str) -> datetime:
    """A time as the API writes it; all are UTC."""
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)
