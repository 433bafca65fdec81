"""Where an explore session reads from: blocks of a native snapshot, or of a copy in S3.

Nothing is restored and nothing is made in AWS. Both are `BlockSource`s of `cpm.explore.blocks`, whose device keeps the
blocks used last.
"""

import bisect
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice

from cpm.aws import errors
from cpm.aws.ebs_direct import BLOCK, EbsDirect
from cpm.aws.identity import Identity, Keys
from cpm.flows.identities import decrypt_secret, identity_of
from cpm.flows.s3 import repositories
from cpm.lib.states import Role
from cpm.models import Account, FileLevelRecoverySettings, S3Copy, Snapshot
from cpm.repository.blocks import ZERO_ID
from cpm.repository.errors import Damaged
from cpm.repository.index import Area, View
from cpm.repository.manifest import Manifest
from cpm.repository.reader import Reader
from cpm.repository.repository import Repository

GIB = 1 << 30
LISTED = 1000
"""Blocks whose tokens are asked for at once."""
LISTS_KEPT = 8
ALIGNMENT = 256
"""A list begins a little before the wanted block, at a multiple of this."""


@dataclass(frozen=True, slots=True)
class _Listed:
    """The blocks that a snapshot has from `first` up to but not including `end`, with their tokens."""

    first: int
    end: int
    indexes: list[int]
    tokens: list[str]

    def token(self, index: int) -> str | None:
        """The block's token; None where the snapshot has no such block, which reads as zeros."""
        at = bisect.bisect_left(self.indexes, index)
        return self.tokens[at] if at < len(self.indexes) and self.indexes[at] == index else None


class SnapshotSource:
    """The blocks of an EBS snapshot, by EBS direct. Lists of blocks are fetched where they are needed and kept for a while.

    Usable from several threads. Making one asks AWS for the first list, so `AwsError` says at once what cannot be read.
    """

    def __init__(self, ebs: EbsDirect, snapshot: str, size: int) -> None:
        self.size = size
        self._ebs = ebs
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._lists: OrderedDict[int, _Listed] = OrderedDict()
        self._list_of(0)

    def read_block(self, index: int) -> bytes | None:
        """Raises `AwsError`. A token that has expired is renewed."""
        listed = self._list_of(index)
        token = listed.token(index)
        if token is None:
            return None
        try:
            return bytes(self._ebs.get_block(self._snapshot, index, token))
        except errors.Invalid as error:
            if "INVALID_BLOCK_TOKEN" not in error.message:
                raise
        token = self._list_of(index, instead=listed).token(index)
        return None if token is None else bytes(self._ebs.get_block(self._snapshot, index, token))

    def _list_of(self, index: int, *, instead: _Listed | None = None) -> _Listed:
        """The list that covers the block, and is not the one that has proven too old."""
        with self._lock:
            if instead is not None and self._lists.get(instead.first) is instead:
                del self._lists[instead.first]
            for known in self._lists.values():
                if known.first <= index < known.end:
                    self._lists.move_to_end(known.first)
                    return known
            found = self._fetch(index // ALIGNMENT * ALIGNMENT)
            self._lists[found.first] = found
            while len(self._lists) > LISTS_KEPT:
                self._lists.popitem(last=False)
            return found

    def _fetch(self, first: int) -> _Listed:
        refs = list(islice(self._ebs.list_blocks(self._snapshot, first, page_size=LISTED), LISTED))
        end = refs[-1][0] + 1 if len(refs) == LISTED else -(-self.size // BLOCK)
        return _Listed(first, end, [index for index, _ in refs], [token for _, token in refs])


class CopySource:
    """The blocks of a copy in a repository. Usable from several threads; every block is authenticated."""

    def __init__(self, repository: Repository, manifest: Manifest, view: View) -> None:
        self.size = manifest.draft.size
        self._repository = repository
        self._manifest = manifest
        self._lock = threading.Lock()
        self._reader = Reader(repository, manifest, view)

    def read_block(self, index: int) -> bytes | None:
        """Raises `RepositoryError`. Where prune has moved blocks meanwhile, they are looked for in a fresh index."""
        reader = self._reader
        try:
            return _block(reader, index)
        except Damaged:
            return _block(self._fresh(reader), index)

    def _fresh(self, old: Reader) -> Reader:
        with self._lock:
            if self._reader is old:
                self._reader = Reader(self._repository, self._manifest)
            return self._reader


def _block(reader: Reader, index: int) -> bytes | None:
    return None if reader.block_id(index) == ZERO_ID else reader.read(index)


class Sources:
    """Opens what the volumes of one session are read from. What several of them need is read once.

    `session` shows up in CloudTrail as the session name of assumed roles.
    """

    def __init__(self, session: str) -> None:
        self._session = session
        self._repositories: dict[int, Repository] = {}
        self._views: dict[tuple[int, Area], View] = {}

    def of(self, record: Snapshot | S3Copy) -> SnapshotSource | CopySource:
        """The record's blocks. Some are read at once, so that whatever is wrong is raised here.

        Raises `AwsError` and `RepositoryError`, of which `NotFound` and `ObjectMissing` mean that the data is gone; and
        what `identity_of` raises.
        """
        return self._of_snapshot(record) if isinstance(record, Snapshot) else self._of_copy(record)

    def _of_snapshot(self, row: Snapshot) -> SnapshotSource:
        """As its account reads it, or as the settings of file-level recovery say where that may not."""
        assert row.account is not None
        try:
            return _snapshot(row, identity_of(row.account, session=self._session))
        except (errors.Denied, errors.BadCredentials):
            other = _stand_in(self._session)
            # If that one fails too, it is no news: the refusal of the snapshot's own account counts.
            with suppress(errors.AwsError):
                if other is not None:
                    return _snapshot(row, other)
            raise

    def _of_copy(self, row: S3Copy) -> CopySource:
        place = row.repository
        assert place is not None
        if place.pk not in self._repositories:
            self._repositories[place.pk] = repositories.opened(place, session=self._session)
        repository = self._repositories[place.pk]
        manifest = repository.copy(row.stored_id)
        area = manifest.draft.area
        if (place.pk, area) not in self._views:
            self._views[place.pk, area] = repository.view(area)
        source = CopySource(repository, manifest, self._views[place.pk, area])
        source.read_block(0)
        return source


def _snapshot(row: Snapshot, identity: Identity) -> SnapshotSource:
    assert row.capacity
    return SnapshotSource(EbsDirect(identity, row.region), row.aws_id, row.capacity * GIB)


def _stand_in(session: str) -> Identity | None:
    """Whom the settings of file-level recovery name, if they are in force."""
    row = FileLevelRecoverySettings.current()
    if not row.enabled:
        return None
    if row.use_existing_account:
        # The settings are root's, and so is the account that they name.
        account = Account.objects.filter(name=row.existing_account, user__role=Role.ROOT).first()
        return identity_of(account, session=session) if account else None
    return Keys(row.access_key, decrypt_secret(row.secret_key)) if row.access_key and row.secret_key else None
