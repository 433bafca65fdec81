"""The process: a threaded HTTP server on loopback, a port file, and an orderly end."""

import os
import signal
import threading
from pathlib import Path
from types import FrameType

import structlog
from moto.moto_server.werkzeug_app import MotoRequestHandler
from werkzeug.serving import BaseWSGIServer, make_server

from cpm.simulator import rds_live
from cpm.simulator.application import Application
from cpm.simulator.persistence import Keeper, load
from cpm.simulator.world import World

log = structlog.get_logger(__name__)
LOOPBACK = ("127.0.0.1", "::1", "localhost")


class QuietHandler(MotoRequestHandler):
    """Keeps connections open between requests and writes no access log: the call log has it all."""

    protocol_version = "HTTP/1.1"
    # Answers are small and come in two writes; waiting for acknowledgements would cost 40 ms each.
    disable_nagle_algorithm = True

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: every call is in the call log."""


def serve(host: str, port: int, folder: Path, port_file: Path | None) -> None:
    """Runs until SIGTERM or SIGINT. Refuses addresses other than loopback: it has no access control to speak of."""
    if host not in LOOPBACK:
        raise SystemExit(f"the simulator listens on loopback only, not on {host}")
    folder.mkdir(parents=True, exist_ok=True)
    world = World(folder)
    if load(world):
        log.info(
            "state restored",
            volumes=len(world.state.volumes.by_id),
            snapshots=len(world.state.snapshots.by_id),
        )
    rds_live.resume(world)
    keeper = Keeper(world)
    keeper.start()
    server = make_server(host, port, Application(world), threaded=True, request_handler=QuietHandler)
    _stop_on_signals(server)
    if port_file is not None:
        temporary = port_file.with_name(port_file.name + ".new")
        temporary.write_text(f"{server.server_port}\n")
        os.replace(temporary, port_file)
    log.info("simulator ready", port=server.server_port)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    keeper.stop()
    world.postgres.close()
    log.info("simulator stopped")


def _stop_on_signals(server: BaseWSGIServer) -> None:
    def stop(number: int, frame: FrameType | None) -> None:
        # shutdown() waits for the loop that runs in this very thread, so another one calls it.
        threading.Thread(target=server.shutdown, daemon=True).start()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
