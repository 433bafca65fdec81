"""A client that a generator makes from our OpenAPI document logs in and lists policies."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from api.schema import Document, operations_of
from cpm.lib.states import AutoRemove
from tests import factories

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".venv-client" / "bin"
CONFIG = ROOT / "deploy" / "client.yaml"
# Runs where there is nothing but the generated package and what it needs.
PROGRAM = """
import importlib, json, pkgutil, sys
import cpm_client
from cpm_client import AuthenticatedClient, Client
from cpm_client.api.policies import policies_list
from cpm_client.api.system import system_support_logs_retrieve
from cpm_client.api.token import token_obtain_api_key
from cpm_client.models import ApiKeyBody, Errors, Policy, PolicyPage

modules = [found.name for found in pkgutil.walk_packages(cpm_client.__path__, "cpm_client.")]
for module in modules:
    importlib.import_module(module)
url, key = sys.argv[1:]
token = token_obtain_api_key.sync(client=Client(base_url=url), body=ApiKeyBody(api_key=key))
client = AuthenticatedClient(base_url=url, token=token.access)
everything = policies_list.sync(client=client)
page = policies_list.sync(client=client, page=1, page_size=1, ordering="-name")
refused = policies_list.sync_detailed(client=AuthenticatedClient(base_url=url, token="wrong"))
logs = system_support_logs_retrieve.sync(client=client)
assert all(isinstance(policy, Policy) for policy in everything)
assert isinstance(page, PolicyPage) and isinstance(refused.parsed, Errors)
json.dump({
    "names": [policy.name for policy in everything],
    "auto_remove": [policy.auto_remove_resource.value for policy in everything],
    "count": page.count,
    "first": page.results[0].name,
    "refused": [int(refused.status_code), list(refused.parsed.errors[0].additional_properties)],
    "operations": sum(module.startswith("cpm_client.api.") and module.count(".") == 3 for module in modules),
    "logs": logs.payload.read(3).decode(),
}, sys.stdout)
"""


@pytest.mark.timeout(300)
def test_a_generated_client_logs_in_and_lists_policies(live_server, tmp_path: Path):
    assert TOOLS.exists(), "The generator is missing. Run: make venv-client"
    root = factories.root()
    account = factories.account(root)
    factories.policy(account, name="a-web", auto_remove_resource=AutoRemove.ALERT)
    factories.policy(account, name="b-database")
    key = factories.api_key(root)

    generated = _run(
        TOOLS / "openapi-python-client", "generate", "--url", f"{live_server.url}/api/schema/", "--meta", "none",
        "--config", str(CONFIG), "--output-path", str(tmp_path / "cpm_client"), "--fail-on-warning",
    )  # fmt: skip
    answer = json.loads(_run(TOOLS / "python", "-c", PROGRAM, live_server.url, key, cwd=tmp_path))

    assert "Generating" in generated
    assert answer == {
        "names": ["a-web", "b-database"],
        "auto_remove": ["A", "N"],
        "count": 2,
        "first": "b-database",
        "refused": [401, ["non_field_errors"]],
        "operations": len(operations_of(Document().get_schema())),
        "logs": "BZh",
    }


def _run(*command: object, cwd: Path | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    sys.stderr.write(done.stderr)
    return done.stdout
