"""Who does something, for whom, and from where. Every service takes one."""

from dataclasses import dataclass

from cpm.models.user import User


@dataclass(frozen=True, slots=True)
class Actor:
    """`user` acts; `on_behalf_of` owns what is made (a delegate's original user); `source` is an address."""

    user: User
    on_behalf_of: User
    source: str = ""

    @classmethod
    def of(cls, user: User, source: str = "") -> "Actor":
        return cls(user=user, on_behalf_of=user.environment, source=source)
