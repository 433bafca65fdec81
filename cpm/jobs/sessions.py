"""Database sessions of processes that hold leases."""

from django.conf import settings
from django.db import connections

# Transactions of the job engine hold no waits, so one that stands still belongs to a process that stands still.
_OPTION = "-c idle_in_transaction_session_timeout="


def bound() -> None:
    """Let PostgreSQL end sessions of this process that stand still in mid-transaction for two leases.

    Else a frozen worker (a paused machine, a stopped process) would keep its row locks: its step could be given
    to nobody, and whoever ends another step of that job would wait. Call it before the first connection is made.
    """
    for alias in connections:
        options = connections.settings[alias]["OPTIONS"]
        given = str(options.get("options", ""))
        if _OPTION not in given:
            milliseconds = int(settings.CPM_LEASE_SECONDS * 2000)
            options["options"] = f"{given} {_OPTION}{milliseconds}".strip()
