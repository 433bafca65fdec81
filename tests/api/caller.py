"""A client of the REST API that is logged in as somebody."""

from typing import Any

import orjson
from rest_framework.test import APIClient

from api import authentication
from cpm.models import User
from tests import factories


class Caller:
    """Calls addresses below /api/ with a token of the user. `accept` asks for a version."""

    def __init__(self, user: User, accept: str = "application/json") -> None:
        token = authentication.obtain(factories.api_key(user)).access_token
        self.client = APIClient(headers={"Authorization": f"Bearer {token}", "Accept": accept})

    def __call__(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        """Status and content, decoded when it is JSON."""
        answer = self.client.generic(
            method,
            f"/api/{path}",
            data=b"" if body is None else orjson.dumps(body),
            content_type="application/json",
            headers=headers,
        )
        content = answer.getvalue()
        is_json = content and answer.headers.get("Content-Type", "").startswith("application/json")
        return answer.status_code, orjson.loads(content) if is_json else content


def codes(content: Any) -> dict[str, list[str]]:
    """The codes of an error answer by field."""
    (fields,) = content["errors"]
    return {name: [item["code"] for item in items] for name, items in fields.items()}
