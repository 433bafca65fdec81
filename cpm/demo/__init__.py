"""`cpm demo`: the main job from a schedule to a proven recovery, on AWS simulated by this machine.

`story` tells it from top to bottom; `world` builds the AWS side as a customer would, `protection` tells CPM about it,
`rounds` follows the backups, `disaster` and `recovery` lose everything and get it back, and `proofs` compares bytes.
`others` does it all once more for one of each of `kinds`: databases, tables, file systems.
Nothing here reaches into CPM: it uses the REST API, boto3 against the simulator, and the simulator's control endpoint.
"""
