"""`cpm up` and the parts alone: `cpm api`, `cpm worker`, `cpm beat`."""

import os
import socket
import ssl
from contextlib import suppress
from pathlib import Path
from typing import Annotated, NoReturn

import structlog
import typer
from rich.console import Console
from rich.table import Table

from cpm.embedded import programs
from cpm.embedded import stack as embedded
from cpm.embedded.connection import Connection, default_data_folder, join_running_stack
from cpm.embedded.errors import StackError
from cpm.embedded.folder import DataFolder
from cpm.embedded.supervisor import Death, StopRequested
from cpm.lib import places

app = typer.Typer(no_args_is_help=True)
console = Console(stderr=True)


@app.command()
def up(
    simulated_aws: Annotated[bool, typer.Option("--simulated-aws", help="Run an AWS simulator beside it.")] = False,
    host: Annotated[str, typer.Option(help="Address the API listens on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port of the API; 0 picks a free one.", min=0, max=65535)] = 8080,
    workers: Annotated[int, typer.Option(help="Worker processes; each does two steps at a time.", min=1)] = 2,
    data: Annotated[Path | None, typer.Option(help="Folder that keeps everything. [default: $CPM_DATA]")] = None,
    connection_file: Annotated[Path | None, typer.Option(help="Where to write addresses and keys.")] = None,
) -> None:
    """Run the whole of CPM on this machine until Ctrl-C."""
    options = embedded.Options(
        data=data or default_data_folder(os.environ),
        host=host,
        port=port,
        workers=workers,
        simulated_aws=simulated_aws,
        connection_file=connection_file,
    )
    try:
        _log_to_file(DataFolder(options.data).logs / "supervisor.log")
        with (
            console.status("starting") as status,
            embedded.running(options, tell=status.update, on_death=_report) as stack,
        ):
            assert stack.connection is not None
            status.stop()
            _show(stack.connection, stack.folder)
            stack.supervisor.watch()
            console.print("Stopping …")
    except StackError as error:
        console.print(str(error), style="red", markup=False, highlight=False)
        raise typer.Exit(1) from error
    except StopRequested:
        console.print("Stopped before it was ready.")
        raise typer.Exit(1) from None
    console.print("Stopped.")


@app.command()
def api(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 picks a free one.", min=0, max=65535)] = 8080,
    processes: Annotated[int, typer.Option(help="Server processes.", min=1)] = programs.API_PROCESSES,
    threads: Annotated[int, typer.Option(help="Threads of each process.", min=1)] = programs.API_THREADS,
    certificate: Annotated[
        Path | None, typer.Option(help="Serve HTTPS with this certificate (PEM, with its chain). [default: plain HTTP]")
    ] = None,
    key: Annotated[Path | None, typer.Option(help="The key of the certificate (PEM, without a passphrase).")] = None,
) -> None:
    """Run the API and the admin alone."""
    bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    tls = _tls(certificate, key)
    if tls:
        # What clients may download as the server's certificate.
        os.environ["CPM_TLS_CERTIFICATE_FILE"] = str(tls[0])
    _become(programs.api(bind, processes=processes, threads=threads, tls=tls))


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="Queues to serve, with commas between.")] = ",".join(programs.QUEUES),
    concurrency: Annotated[int, typer.Option(help="Steps at a time.", min=1)] = embedded.WORKER_CONCURRENCY,
    name: Annotated[str, typer.Option(help="Name in the fleet. [default: from the process]")] = "",
    place: Annotated[
        str, typer.Option(help="ACCOUNT_NUMBER:REGION that this worker is near to: it takes that place's work in S3 too.")
    ] = "",
) -> None:
    """Run one worker alone."""
    wanted = [queue.strip() for queue in queues.split(",") if queue.strip()]
    unknown = [queue for queue in wanted if queue not in programs.QUEUES]
    if unknown or not (wanted or place):
        raise typer.BadParameter(f"Queues are {', '.join(programs.QUEUES)}; not {', '.join(unknown) or 'none'}.")
    if place:
        try:
            wanted += places.queues_at(places.checked(place))
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        os.environ["CPM_WORKER_PLACE"] = place
    # Two workers of one name would answer for each other in the fleet's remote control.
    _become(programs.worker(wanted, concurrency=concurrency, name=name or f"worker-{os.getpid()}"))


@app.command()
def beat() -> None:
    """Run the clock that offers due work."""
    folder = DataFolder(default_data_folder(os.environ))
    _become(programs.beat(str(folder.run / f"beat-schedule-{socket.gethostname()}")))


def _tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """The two files, after a look into them: the web server would only complain at the first connection."""
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise typer.BadParameter("--certificate and --key belong together; give both.")
    try:
        # The callback keeps OpenSSL from asking the terminal for a passphrase.
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:
        raise typer.BadParameter(
            f"No PEM certificate with its key, or the key has a passphrase: {certificate}, {key} ({error})"
        ) from error
    return certificate.absolute(), key.absolute()


def _become(command: list[str]) -> NoReturn:
    """The same process goes on as the part, so that signals of Docker or systemd reach it."""
    os.environ.update(join_running_stack(os.environ))
    os.environ.update(programs.import_path(os.environ))
    os.execve(command[0], command, os.environ)  # noqa: S606 - our own command lines


def _log_to_file(path: Path) -> None:
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.WriteLoggerFactory(file=path.open("a", buffering=1)),
    )


def _report(death: Death) -> None:
    state = "keeps ending" if death.failing else "ended"
    style = "red" if death.failing else "yellow"
    # A terminal that went away must not take the stack with it.
    with suppress(OSError):
        console.print(
            f"{death.name} {state} (exit code {death.exit_code}, {death.deaths} in a row); "
            f"starting it again in {death.pause:g} s",
            style=style,
            highlight=False,
        )


def _show(connection: Connection, folder: DataFolder) -> None:
    table = Table(title="CPM is ready", show_header=False, title_justify="left")
    table.add_row("API", connection.api_url)
    table.add_row("Admin", f"{connection.admin_url}  (user {connection.admin_user})")
    if connection.simulator_control_url:
        table.add_row("Simulated AWS", str(connection.aws_endpoint_url))
    table.add_row("Keys and passwords", str(folder.path / "connection.json"))
    table.add_row("Logs", str(folder.logs))
    console.print(table)
    console.print("Ctrl-C stops everything; the data stay.")
