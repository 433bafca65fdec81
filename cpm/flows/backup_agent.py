"""Agent."""

KINDS = ()


def steps(phase, targets, *, after):
    return []
