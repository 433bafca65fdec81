"""Back to an empty world."""

from moto.core.base_backend import BackendDict

from cpm.simulator.world import State, World


def everything(world: World) -> None:
    """Empties moto's backends and ours; data, faults, timing and the call log go too."""
    with world.lock:
        BackendDict.reset()
        world.state = State()
        world.blocks.recount(iter([]))
        world.postgres.keep_only(set())
        world.faults.remove(None)
        world.calls.clear()
        world.changes += 1
