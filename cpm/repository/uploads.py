"""Filling packs from several threads, and getting them into the store with their index objects."""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from cpm.repository import index, packs
from cpm.repository.delays import VIEW_LIFETIME
from cpm.repository.errors import StaleView
from cpm.repository.index import IndexedPack, View
from cpm.repository.packs import LEAST_PACK_BYTES, PackBuilder
from cpm.repository.repository import Repository
from cpm.repository.store import PutOptions

# Packs become known to others in portions of at least so many blocks, or at a checkpoint.
INDEX_ROWS = 1 << 14


class PackUploads:
    """A fixed number of packs in memory: some being filled, some on their way to the store.

    With ``background`` uploads all threads fill one pack and go on while others are stored, so that blocks lie in
    the order in which they came; without, each of ``fillers`` threads stores the pack it filled.
    After a failure every call raises it: what was not stored is lost, and the work starts again from the cursor.
    """

    def __init__(
        self,
        repository: Repository,
        view: View,
        session: bytes,
        *,
        options: PutOptions,
        index_options: PutOptions,
        fillers: int = 2,
        background: int = 0,
        pack_bytes: int = LEAST_PACK_BYTES,
        stored: Callable[[IndexedPack], None],
    ) -> None:
        self._repository = repository
        self._view = view
        self._options = options
        self._index_options = index_options
        self._stored = stored
        # A thread needs the pack for a thirtieth of the time that it compresses for.
        self._count = 1 + background if background else fillers
        self._builders: queue.LifoQueue[PackBuilder] = queue.LifoQueue()
        for _ in range(self._count):
            self._builders.put(PackBuilder(repository.ciphers, session, pack_bytes))
        self._pool = ThreadPoolExecutor(background, "repository-upload") if background else None
        self._unindexed: list[IndexedPack] = []
        # When the oldest of these may have been stored.
        self._waiting_since = 0.0
        self._lock = threading.Lock()
        self._failure: BaseException | None = None
        self.stored_bytes = 0

    def add(
        self, block_id: bytes, kind: int, codec: int, size: int, payload: bytes | memoryview | bytearray
    ) -> None:
        builder = self._builders.get()
        try:
            self._raise_failure()
            builder.add(block_id, kind, codec, size, payload)
        except BaseException:
            self._builders.put(builder)
            raise
        if builder.full:
            self._send(builder)
        else:
            self._builders.put(builder)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _send(self, builder: PackBuilder) -> None:
        if self._pool is None:
            self._upload(builder)
            self._raise_failure()
        else:
            self._pool.submit(self._upload, builder)

    def _upload(self, builder: PackBuilder) -> None:
        try:
            name, content, table = builder.finish()
            began = self._repository.clock()
            self._repository.store.put(self._view.area.pack_key(name), content, options=self._options)
            pack = IndexedPack(name, len(content), packs.parse_table(table))
            self._stored(pack)
            with self._lock:
                self.stored_bytes += pack.size
                self._await_index(pack, began)
                ready = sum(len(each.table) for each in self._unindexed) >= INDEX_ROWS
            if ready:
                self.write_index()
        except BaseException as failure:  # noqa: BLE001  # raised by the next call of every thread
            self._failure = failure
        finally:
            builder.reset()
            self._builders.put(builder)

    def adopt(self, pack: IndexedPack) -> None:
        """Name a pack that lies in the store already, and is not condemned, in the next index object."""
        with self._lock:
            self._await_index(pack, self._repository.clock())

    def _await_index(self, pack: IndexedPack, since: float) -> None:
        self._waiting_since = min(self._waiting_since, since) if self._unindexed else since
        self._unindexed.append(pack)

    def write_index(self) -> None:
        """Name what was stored. Raises `StaleView` for packs that have waited so long that a prune, which does not know
        them, may have deleted them: naming them would make everybody take their blocks for present."""
        with self._lock:
            if self._unindexed and self._repository.clock() - self._waiting_since > VIEW_LIFETIME:
                raise StaleView("Packs were stored too long ago to be named now; go on from the last cursor.")
            waiting, self._unindexed = self._unindexed, []
        for group in index.grouped(waiting):
            index.write(
                self._repository.store,
                self._repository.ciphers,
                self._view.area,
                group,
                options=self._index_options,
            )

    def flush(self) -> None:
        """Everything added so far is stored and indexed when this returns. Nobody may add meanwhile."""
        held: list[PackBuilder] = []
        try:
            while len(held) < self._count:
                builder = self._builders.get()
                if builder.rows and self._failure is None:
                    self._send(builder)
                else:
                    held.append(builder)
        finally:
            for builder in held:
                self._builders.put(builder)
        self._raise_failure()
        self.write_index()

    def close(self) -> None:
        """Let go of threads and memory; what was not flushed is given up."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
        while not self._builders.empty():
            self._builders.get()
