"""What can go wrong while exploring. Every error crosses the process boundary as its code and its data."""

from cpm.lib.errors import DomainError


class ExploreError(DomainError):
    """Base of all: the volume, or the path asked for, cannot be explored as wanted."""

    code = "explore_failed"
    template = "The volume could not be explored."


class PathNotFound(ExploreError):
    code = "path_not_found"
    template = "There is no {path} in this session."


class NotADirectory(ExploreError):
    code = "not_a_directory"
    template = "{path} is no folder."


class NotAFile(ExploreError):
    code = "not_a_file"
    template = "{path} is {what}, which has no content to read."


class VolumeUnreadable(ExploreError):
    """The file system is of a kind that cannot be opened, or it is damaged; the volume can still be restored."""

    code = "volume_unreadable"
    template = (
        "{volume} cannot be explored: {reason}. Recover the volume and attach it to an instance instead."
    )


class ContentUnreadable(ExploreError):
    """The file exists, but is stored in a form that only its own operating system can decode."""

    code = "content_unreadable"
    template = "{path} is {form} and can be read only after recovering its volume."


class Damaged(ExploreError):
    code = "file_system_damaged"
    template = "{path} could not be read, its file system seems damaged: {reason}"


class TooLarge(ExploreError):
    code = "too_large_to_explore"
    template = "{path} is too large to explore: {reason}. Recover the volume instead."


class SourceFailed(ExploreError):
    """The backup's data could not be fetched; the session goes on and the same request may work later."""

    code = "source_failed"
    template = "Data of the backup could not be fetched: {reason}. Try again."


class ExplorerDied(ExploreError):
    """The confined process ended twice on the same request; the session goes on with a new one."""

    code = "explorer_died"
    template = (
        "Reading this broke the file system reader off ({reason}). The file system may be damaged; "
        "recover the volume instead."
    )


class ExplorerTimedOut(ExploreError):
    code = "explorer_timed_out"
    template = (
        "The request took longer than {seconds:.0f} seconds and was ended. Ask for less at once; if it stays "
        "so, the file system may be damaged and the volume should be recovered instead."
    )


class ExplorerBusy(ExploreError):
    code = "explorer_busy"
    template = "Other requests of this session have kept it busy for {seconds:.0f} seconds. Try again later."


class SessionClosed(ExploreError):
    code = "explore_session_closed"
    template = "The explore session has ended. Open a new one."


BY_CODE: dict[str, type[ExploreError]] = {
    kind.code: kind
    for kind in (
        ExploreError,
        PathNotFound,
        NotADirectory,
        NotAFile,
        VolumeUnreadable,
        ContentUnreadable,
        Damaged,
        TooLarge,
        SourceFailed,
        ExplorerDied,
        ExplorerTimedOut,
        ExplorerBusy,
        SessionClosed,
    )
}
