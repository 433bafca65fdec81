"""What EBS allows of a volume's type, size and IOPS, and the shape of a volume that is made from a snapshot.

AWS: EBS User Guide, "Amazon EBS volume types".
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

# type -> smallest and largest size in GiB
SIZES = {
    "gp2": (1, 16384),
    "gp3": (1, 65536),
    "io1": (4, 16384),
    "io2": (4, 65536),
    "st1": (125, 16384),
    "sc1": (125, 16384),
    "standard": (1, 1024),
}
# type -> fewest and most IOPS, and most IOPS per GiB
IOPS = {"gp3": (3000, 80000, 500), "io1": (100, 64000, 50), "io2": (100, 256000, 1000)}
NEED_IOPS = frozenset({"io1", "io2"})
NOT_FOR_ROOT = frozenset({"st1", "sc1"})


@dataclass(frozen=True, slots=True)
class Shape:
    """Size, type and speed of a volume."""

    size: int | None
    type: str
    iops: int | None
    throughput: int | None

    @classmethod
    def of(cls, details: Mapping[str, Any], capacity: int | None, wanted: Mapping[str, Any]) -> "Shape":
        """The original's shape with the `capacity`, `type` and `iops` that somebody wants instead.

        IOPS and throughput of the original are kept where the type still takes them.
        """
        kind = wanted.get("type") or details.get("type") or ""
        iops = wanted.get("iops")
        if iops is None and kind in IOPS and (kind == details.get("type") or kind in NEED_IOPS):
            iops = details.get("iops")
        throughput = details.get("throughput") if kind == "gp3" == details.get("type") else None
        return cls(wanted.get("capacity") or capacity, kind, iops, throughput)

    def parameters(self, size_name: str = "Size") -> dict[str, Any]:
        """As parameters of CreateVolume, or of a block device mapping with `size_name` VolumeSize."""
        named = {
            size_name: self.size,
            "VolumeType": self.type or None,
            "Iops": self.iops,
            "Throughput": self.throughput,
        }
        return {name: value for name, value in named.items() if value is not None}

    def problems(self, *, at_least: int | None, root: bool = False) -> dict[str, str]:
        """What EBS would refuse, by `capacity`, `type` and `iops`; empty when it is fine."""
        found: dict[str, str] = {}
        if self.type and self.type not in SIZES:
            return {"type": f"EBS has no volume type {self.type}; choose one of {', '.join(SIZES)}."}
        if at_least is not None and self.size is not None and self.size < at_least:
            found["capacity"] = f"The snapshot has {at_least} GiB; a volume from it cannot be smaller."
        if not self.type:
            return found
        least, most = SIZES[self.type]
        if self.size is not None and not least <= self.size <= most:
            found.setdefault("capacity", f"A {self.type} volume has {least} to {most} GiB.")
        if root and self.type in NOT_FOR_ROOT:
            found["type"] = f"A root volume cannot be of type {self.type}."
        problem = self._iops_problem()
        return {**found, "iops": problem} if problem else found

    def _iops_problem(self) -> str:
        if self.type not in IOPS:
            return f"A {self.type} volume takes no IOPS setting." if self.iops is not None else ""
        if self.iops is None:
            return f"A {self.type} volume needs a number of IOPS." if self.type in NEED_IOPS else ""
        fewest, most, per_gib = IOPS[self.type]
        if self.size is not None:
            most = min(most, max(fewest, per_gib * self.size))
        if fewest <= self.iops <= most:
            return ""
        return f"A {self.type} volume of {self.size} GiB takes {fewest} to {most} IOPS."
