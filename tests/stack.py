"""PostgreSQL and Redis for one test run, thrown away afterwards."""

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cpm.embedded.folder import DataFolder
from cpm.embedded.postgres import Passwords, Postgres
from cpm.embedded.redis import Redis
from cpm.embedded.supervisor import Supervisor


@contextmanager
def running_servers(data_dir: Path | None = None) -> Iterator[dict[str, str]]:
    """Starts both servers and yields the environment that Django's settings read.

    Servers that CPM_DATABASE_URL or CPM_REDIS_URL name are used instead. Nothing is durable: the folder is removed.
    """
    path = Path(tempfile.mkdtemp(prefix="cpm-test-")) if data_dir is None else data_dir
    folder = DataFolder(path)
    supervisor = Supervisor(folder.logs, mark=uuid.uuid4().hex)
    postgres = Postgres(
        folder.path / "postgres", Passwords(folder.secret("database-admin"), folder.secret("database")), durable=False
    )
    env = {
        "DJANGO_SETTINGS_MODULE": "cpm.settings",
        "CPM_DATA": str(folder.path),
        "CPM_SECRET_KEY_FILE": str(folder.secret_file("secret-key", folder.secret("secret-key"))),
        "CPM_FIELD_KEYS_FILE": str(folder.field_keys_file()),
    }
    try:
        env["CPM_DATABASE_URL"] = os.environ.get("CPM_DATABASE_URL") or _start_postgres(postgres, supervisor)
        env["CPM_REDIS_URL"] = os.environ.get("CPM_REDIS_URL") or _start_redis(folder, supervisor)
        yield env
    finally:
        supervisor.stop()
        postgres.close()
        if data_dir is None:
            shutil.rmtree(path, ignore_errors=True)


def _start_postgres(postgres: Postgres, supervisor: Supervisor) -> str:
    postgres.prepare()
    supervisor.start(postgres.part(stage=1))
    postgres.ensure_database()
    return postgres.url


def _start_redis(folder: DataFolder, supervisor: Supervisor) -> str:
    redis = Redis(folder.path / "redis", folder.secret("redis"), durable=False)
    redis.prepare()
    supervisor.start(redis.part(stage=1))
    return redis.url
