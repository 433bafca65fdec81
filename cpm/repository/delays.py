"""The waits that make deleting safe beside writers that know nothing of it. Seconds; FORMAT.md, "Safety delays"."""

HOUR = 3600.0
DAY = 24 * HOUR

# How long a process may act on what it read of the index and the condemned lists. Within it, every block that a
# writer took for present has to be named by a progress object or a manifest.
VIEW_LIFETIME = 6 * HOUR

# Between condemning a pack and deleting it. Four times VIEW_LIFETIME: a writer that saw the pack before it was
# condemned has long been heard of, with 18 hours left for clocks that disagree and requests that linger.
GRACE = 24 * HOUR

# Packs younger than this are not condemned, nor leftovers removed: their writer may be about to name them.
YOUNG = VIEW_LIFETIME

# A lock that ends at most so much earlier than it should is left as it is, so that an extension which is repeated
# does not touch every object again.
LOCK_SLACK = HOUR

# A copy without progress for so long is abandoned: its progress objects stop protecting what they name.
ABANDONED = 7 * DAY
