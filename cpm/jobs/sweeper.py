"""The tick: takes steps from dead workers, moves steps to and from places as their workers come and go, and offers
whatever is due and nobody was told of lately."""

from dataclasses import dataclass

from django.conf import settings
from django.db import connection, transaction

from cpm.jobs import fleet, queue

# A step whose worker died keeps its token and intent; the raised epoch shuts the dead (or merely frozen) owner out.
# What was intended may have been done at any moment until now (calls are paced), and lists lag behind that moment.
_TAKE_BACK = """
UPDATE cpm_step SET state = CASE WHEN poll_group <> '' THEN 'waiting' ELSE 'ready' END,
    lease_epoch = lease_epoch + 1, lease_owner = '', lease_until = NULL, offered_until = now(),
    intent_at = CASE WHEN intent_at IS NOT NULL AND token IS NULL THEN now() ELSE intent_at END
WHERE id IN (SELECT id FROM cpm_step WHERE state = 'running' AND lease_until < now()
             FOR UPDATE SKIP LOCKED LIMIT %s)
"""
# What waits for a place whose workers are gone goes to everybody, and back when they are there again.
_MOVE = """
WITH placed AS (
    SELECT id, queue AS now, split_part(queue, '@', 1) || CASE
        WHEN split_part(queue, '@', 1) || '@' || place = ANY(%s) THEN '@' || place ELSE '' END AS better
    FROM cpm_step WHERE place <> '' AND state IN ('ready', 'waiting')
), misplaced AS (
    SELECT s.id, placed.better FROM cpm_step s JOIN placed USING (id)
    WHERE placed.better <> placed.now AND s.state IN ('ready', 'waiting') LIMIT %s FOR UPDATE OF s SKIP LOCKED
)
UPDATE cpm_step s SET queue = misplaced.better, offered_until = now() FROM misplaced WHERE s.id = misplaced.id
"""
# One message per poll group is enough: its worker claims the whole group.
_OFFER = """
WITH due AS (
    SELECT id, queue, poll_group FROM cpm_step
    WHERE queue = ANY(%s) AND state IN ('ready', 'waiting') AND pending_after = 0
      AND not_before <= now() AND offered_until <= now()
    ORDER BY not_before FOR UPDATE SKIP LOCKED LIMIT %s
), offered AS (
    UPDATE cpm_step s SET offered_until = now() + make_interval(secs => %s) FROM due WHERE s.id = due.id
)
SELECT queue, min(id) FROM due
GROUP BY queue, CASE WHEN poll_group = '' THEN id::text ELSE poll_group END
"""


@dataclass(frozen=True, slots=True)
class Sweep:
    taken_back: int
    moved: int
    offered: int


def sweep(*, queues: list[str], limit: int = 1000) -> Sweep:
    """One pass over these queues, those at places included; at most `limit` steps each way.

    Any number of processes may do this at once.
    """
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(_TAKE_BACK, [limit])
        taken = cursor.rowcount
        served = sorted(fleet.served_at_places())
        cursor.execute(_MOVE, [served, limit])
        moved = cursor.rowcount
        cursor.execute(_OFFER, [[*queues, *served], limit, settings.CPM_OFFER_SECONDS])
        due = [(row[0], row[1]) for row in cursor.fetchall()]
        queue.offer(due)
    return Sweep(taken, moved, len(due))
