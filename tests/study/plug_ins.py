"""Functions that test studies name in their files."""

import json


def words(path):
    """A probe: what the metrics of the rounds say again, doubled."""
    files = sorted(path.glob("rounds/*/metrics.json"))
    return {int(f.parent.name): {"twice": 2 * json.loads(f.read_text())["words"]} for f in files}


def lengths(path):
    """A probe that sees what a pruned run no longer has."""
    return {0: {"pool": float(len((path / "rounds/000/pool.jsonl").read_bytes().splitlines()))}}
