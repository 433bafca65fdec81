"""``python -m cpm.simulator --host 127.0.0.1 --port 0 --data DIR --port-file FILE``."""

import argparse
import os
from pathlib import Path

# moto reads these when it is first imported: no AMIs of Amazon's, and no calls home.
os.environ["MOTO_EC2_LOAD_DEFAULT_AMIS"] = "false"
os.environ.setdefault("MOTO_ENABLE_ISO_REGIONS", "false")

from cpm.simulator.server import serve


def main() -> None:
    """Parses the command line and serves until a signal ends it."""
    parser = argparse.ArgumentParser(prog="python -m cpm.simulator", description="AWS on one machine")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--data", type=Path, required=True, help="folder for block data")
    parser.add_argument("--port-file", type=Path, help="written with the port when ready")
    chosen = parser.parse_args()
    serve(chosen.host, chosen.port, chosen.data, chosen.port_file)


if __name__ == "__main__":
    main()
