"""Live databases: RDS instances of engine ``postgres`` that a real PostgreSQL stands behind, if the control endpoint says so.

What is made while that is on is live, and so are its snapshots, their copies and what is restored from them. Clients
connect to the endpoint that DescribeDBInstances shows: 127.0.0.1 and the port where the server really listens, whatever
port the instance was given, as many instances share this machine. The server's version is not the engine version that
is shown, and there is no TLS. Databases that are not live hold opaque bytes, see ``contents``; live ones have those too.
"""

import re
from typing import Any

import psycopg
from psycopg import sql

from cpm.simulator.call import Call
from cpm.simulator.errors import AwsError, invalid, missing
from cpm.simulator.rds_model import DBInstance
from cpm.simulator.world import World

ENGINE = "postgres"
# AWS: RDS API Reference, CreateDBInstance, MasterUserPassword: printable ASCII except three characters.
PASSWORD = re.compile(r"""(?:(?![/"@])[!-~]){8,128}""", re.ASCII)
# AWS: RDS User Guide, Understanding the rds_superuser role: what the master user is a member of.
SUPERUSERS = "rds_superuser"
GRANTED = "pg_monitor, pg_signal_backend, pg_checkpoint"


def wanted(call: Call, engine: str) -> bool:
    """Whether a new instance of this engine is to be live; checks what then cannot be left out."""
    if not (call.state.live.on and engine == ENGINE):
        return False
    if "MasterUserPassword" not in call.params:
        raise missing("MasterUserPassword")
    _check_password(call.params["MasterUserPassword"])
    return True


def create(call: Call, instance: DBInstance) -> None:
    """A server for a new instance, with its master user and its first database.

    AWS: RDS API Reference, CreateDBInstance, DBName: there is always a database ``postgres`` as well.
    """
    clusters, live = call.world.postgres, call.state.live
    name = clusters.create()
    try:
        live.ports[instance.id] = clusters.start(name)
        _furnish(clusters.url(name), instance, call.params["MasterUserPassword"])
    except psycopg.Error as refused:
        clusters.drop(name)
        raise invalid(f"The database could not be created: {refused}") from refused
    live.clusters[instance.id] = name


def _furnish(url: str, instance: DBInstance, password: str) -> None:
    master = sql.Identifier(instance.username)
    with psycopg.connect(url, autocommit=True) as link:
        link.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(SUPERUSERS)))
        link.execute(sql.SQL("GRANT {} TO {}").format(sql.SQL(GRANTED), sql.Identifier(SUPERUSERS)))
        made = sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE PASSWORD {} IN ROLE {}")
        link.execute(made.format(master, sql.Literal(password), sql.Identifier(SUPERUSERS)))
        link.execute(sql.SQL("ALTER DATABASE postgres OWNER TO {}").format(master))
        if instance.database_name not in (None, "postgres"):
            database = sql.Identifier(str(instance.database_name))
            link.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, master))


def copy(call: Call, source: str, target: str) -> None:
    """The target has from now on what the source has at this moment, whether that is rows or bytes.

    Nobody writes to snapshots, so a snapshot's copy is the same cluster; a restored instance gets its own.
    """
    call.state.contents.copy(source, target)
    clusters, live = call.world.postgres, call.state.live
    name = live.clusters.get(source)
    if name is None:
        return
    from_instance, to_instance = (":db:" in arn for arn in (source, target))
    if from_instance or to_instance:
        name = clusters.copy(name)
    if to_instance:
        live.ports[target] = clusters.start(name)
    live.clusters[target] = name


def drop(call: Call, arn: str) -> None:
    """Removes what an instance or a snapshot holds, unless another snapshot holds the same."""
    call.state.contents.drop(arn)
    live = call.state.live
    name = live.clusters.pop(arn, None)
    live.ports.pop(arn, None)
    if name is not None and name not in live.clusters.values():
        call.world.postgres.drop(name)


def turn(call: Call, instance: DBInstance, *, on: bool) -> None:
    """Starts or stops the server of a live instance; it keeps its port if nobody has taken that meanwhile."""
    live = call.state.live
    name = live.clusters.get(instance.id)
    if name is None:
        return
    if on:
        live.ports[instance.id] = call.world.postgres.start(name, live.ports[instance.id])
    else:
        call.world.postgres.stop(name)


def check_new_password(call: Call, instance: DBInstance) -> None:
    """Raises for a password that RDS does not take."""
    if "MasterUserPassword" in call.params and instance.id in call.state.live.clusters:
        _check_password(call.params["MasterUserPassword"])


def change_password(call: Call, instance: DBInstance) -> None:
    """AWS: RDS API Reference, ModifyDBInstance, MasterUserPassword: sessions that are open stay open."""
    name, password = call.state.live.clusters.get(instance.id), call.params.get("MasterUserPassword")
    if name is not None and password:
        with psycopg.connect(call.world.postgres.url(name), autocommit=True) as link:
            change = sql.SQL("ALTER ROLE {} PASSWORD {}")
            link.execute(change.format(sql.Identifier(instance.username), sql.Literal(password)))


def endpoint(call: Call, instance: DBInstance) -> dict[str, Any] | None:
    """Where a live instance is reached, None for others."""
    port = call.state.live.ports.get(instance.id)
    return {"Address": "127.0.0.1", "Port": port} if port else None


def resume(world: World) -> None:
    """After a restart: the servers of what was running, and nothing of what has been forgotten or lost."""
    live, clusters = world.state.live, world.postgres
    live.clusters = {arn: name for arn, name in live.clusters.items() if clusters.exists(name)}
    live.ports = {arn: port for arn, port in live.ports.items() if arn in live.clusters}
    clusters.keep_only(set(live.clusters.values()))
    for arn, port in live.ports.items():
        instance = world.state.db_instances.by_id.get(arn)
        if instance is not None and instance.rest != "stopped":
            live.ports[arn] = clusters.start(live.clusters[arn], port)


def _check_password(password: str) -> None:
    if not PASSWORD.fullmatch(password):
        raise AwsError(
            "InvalidParameterValue",
            "The parameter MasterUserPassword is not a valid password. It has 8 to 128 printable ASCII characters besides"
            " '/', '@', '\"' and ' '.",
        )
