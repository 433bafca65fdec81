"""The operators' admin: one module a noun. It reads scoped rows and writes through `cpm.services` only."""

from cpm.admin import (
    accounts,
    alerts,
    api_keys,
    audit,
    backups,
    fleet,
    jobs,
    login,
    notifications,
    policies,
    recoveries,
    repositories,
    schedules,
    settings,
    snapshots,
    users,
)

__all__ = [
    "accounts", "alerts", "api_keys", "audit", "backups", "fleet", "jobs", "login", "notifications", "policies", "recoveries",
    "repositories", "schedules", "settings", "snapshots", "users",
]  # fmt: skip
