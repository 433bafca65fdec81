"""Why a stack on this machine does not run."""


class StackError(Exception):
    """The stack cannot start or go on; the message tells an operator why and what to do."""
