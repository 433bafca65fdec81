"""`cpm api --certificate` serves HTTPS, and refuses files that it could not serve with."""

import os
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cpm.commands import stack
from tests import certificates

ROOT = Path(__file__).resolve().parents[2]


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def test_the_api_answers_over_https_with_this_certificate(tmp_path):
    certificate, key = certificates.write(tmp_path)
    port = _free_port()
    command = [
        *(sys.executable, "-m", "cpm.cli", "api", "--port", str(port), "--processes", "1"),
        *("--certificate", str(certificate), "--key", str(key)),
    ]
    trust = ssl.create_default_context(cafile=str(certificate))
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "CPM_DATA": str(tmp_path)}, stderr=subprocess.PIPE
    )

    try:
        answer = _ask(f"https://localhost:{port}/api/policies/", trust, process)
    finally:
        process.terminate()
        process.communicate(timeout=30)

    assert answer == 401


def _ask(url: str, trust: ssl.SSLContext, process: "subprocess.Popen[bytes]") -> int:
    ends = time.monotonic() + 60
    while time.monotonic() < ends and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10, context=trust) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            time.sleep(0.2)
    raise AssertionError(process.communicate(timeout=30))


@pytest.mark.parametrize("wrong", ["one", "swapped", "missing", "empty"])
def test_files_that_are_no_pair_are_refused_before_anything_starts(tmp_path, wrong, monkeypatch):
    monkeypatch.setattr(stack, "_become", lambda command: pytest.fail("it has started"))
    certificate, key = certificates.write(tmp_path)
    empty = tmp_path / "empty.pem"
    empty.touch()
    pairs = {
        "one": ["--certificate", str(certificate)],
        "swapped": ["--certificate", str(key), "--key", str(certificate)],
        "missing": ["--certificate", str(certificate), "--key", str(tmp_path / "none.pem")],
        "empty": ["--certificate", str(empty), "--key", str(key)],
    }

    result = CliRunner().invoke(stack.app, ["api", *pairs[wrong]])

    assert result.exit_code == 2
    assert "--certificate and --key" in result.output or "No PEM" in result.output
