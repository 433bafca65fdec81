"""How the demo can end before its end."""


class DemoFailed(Exception):
    """Something did not happen as promised; the message says what."""


class ProofFailed(DemoFailed):
    """Bytes or records are not what they have to be."""


class Stopped(Exception):
    """Somebody pressed Ctrl-C."""
