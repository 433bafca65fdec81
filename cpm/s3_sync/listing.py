"""One side of a mirror in order of name, with the next page on its way while the last is looked at."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor

from cpm.s3_sync.buckets import Listed, Page
from cpm.s3_sync.errors import Halted

ListPage = Callable[[str, str | None, str | None], Page]


class Listing:
    """Names and objects below ``base`` after the name ``after``. ``pages`` counts the calls.

    What S3 calls a list is in order of key. Some kinds of buckets and some servers give none, and every decision of a
    mirror stands on it, so keys out of order are an error. ``nameless`` says that the object whose key is ``base``
    itself counts too; S3 consoles make such objects to show a folder.
    """

    def __init__(
        self, page: ListPage, base: str, after: str | None, *, executor: Executor, nameless: bool
    ) -> None:
        self._page = page
        self._base = base
        self._after = after
        self._executor = executor
        self._nameless = nameless
        self.pages = 0

    def __iter__(self) -> Iterator[tuple[str, Listed]]:
        start = None if self._after is None else self._base + self._after
        last = start
        coming = self._executor.submit(self._page, self._base, start or None, None)
        while True:
            page = coming.result()
            self.pages += 1
            if page.token is not None:
                coming = self._executor.submit(self._page, self._base, start or None, page.token)
            for listed in page.objects:
                if not listed.key.startswith(self._base) or (last is not None and listed.key <= last):
                    raise Halted(
                        f"S3 lists {listed.key!r} out of order; such a bucket cannot be mirrored.",
                        transient=False,
                    )
                last = listed.key
                name = listed.key[len(self._base) :]
                if name or self._nameless:
                    yield name, listed
            if page.token is None:
                return
