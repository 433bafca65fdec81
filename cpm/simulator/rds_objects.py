"""Databases and their snapshots for the control endpoint's list of everything there is."""

from typing import Any

from cpm.simulator.rds_model import DatabaseSnapshot, Held
from cpm.simulator.world import State

SHELVES = ("db_instances", "db_clusters", "db_snapshots", "db_cluster_snapshots")


def everything(state: State, query: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """By kind, those of the account and region that the query names; kinds without any are left out."""
    found: dict[str, list[dict[str, Any]]] = {}
    for shelf in SHELVES:
        listed = [_listed(item) for item in getattr(state, shelf).by_id.values() if _asked_for(item, query)]
        if listed:
            found[shelf] = listed
    return found


def _asked_for(item: Held, query: dict[str, str]) -> bool:
    return (
        not item.gone
        and query.get("account", item.account) == item.account
        and query.get("region", item.region) == item.region
    )


def _listed(item: Any) -> dict[str, Any]:
    entry = {
        "id": item.id,
        "name": item.name,
        "account": item.account,
        "region": item.region,
        "state": item.state,
        "kms_key_id": item.key,
        "tags": dict(item.tags),
    }
    if isinstance(item, DatabaseSnapshot):
        return {**entry, "source": item.of.name, "shared_with": sorted(item.shared_with)}
    return entry
