"""Getting one file back, without its volume: an explore session over REST."""

import io
import zipfile

from cpm.demo.display import Display
from cpm.demo.errors import DemoFailed
from cpm.demo.images import File
from cpm.demo.rest import Json, Rest
from cpm.demo.rounds import Round
from cpm.demo.waiting import Patience
from cpm.demo.world import Volume

OPEN_WITHIN = 60
BEING_OPENED, OPEN = "U", "N"


def download(
    rest: Rest, one: Round, volume: Volume, file: File, display: Display, patience: Patience
) -> bytes:
    """The file's bytes, out of what the backup has of that volume."""
    session = rest.post("explore_sessions/", backup_record=one.backup["id"], aws_volume_ids=[volume.id])
    path = f"explore_sessions/{session['id']}"
    opened = patience.until("the explore session", lambda: _opened(rest, path), within=OPEN_WITHIN)
    if opened["status"] != OPEN:
        raise DemoFailed(f"the explore session has status {opened['status']}, not {OPEN}")
    found = _find(rest, path, file)
    display.say(f"{volume.name} of backup {one.number} has {found['path']}, {found['size']} bytes.")
    archive = rest.post_for_bytes(f"{path}/download/", paths=[found["path"]])
    rest.delete(f"{path}/")
    with zipfile.ZipFile(io.BytesIO(archive)) as content:
        (name,) = (name for name in content.namelist() if name.endswith(file.path.rpartition("/")[2]))
        return content.read(name)


def _opened(rest: Rest, path: str) -> Json | None:
    shown: Json = rest.get(f"{path}/")
    return None if shown["status"] == BEING_OPENED else shown


def _find(rest: Rest, path: str, file: File) -> Json:
    """The entry of the file, name by name; what stands before its file system in the tree has one entry each."""
    at, wanted = "", file.path.strip("/").split("/")
    while True:
        entries: list[Json] = rest.get(f"{path}/file_system_entries/", path=at)
        named = [one for one in entries if one["name"] == wanted[0]]
        (entry,) = named or entries
        if named and len(wanted) == 1:
            return entry
        at, wanted = entry["path"], wanted[1:] if named else wanted
