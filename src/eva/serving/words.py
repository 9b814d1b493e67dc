"""What a server says in a reply that is no answer, without the key that it was sent."""

from collections.abc import Mapping

import orjson

WORDS = 300
"""Characters that an error shows."""
HIDDEN = "***"
"""What stands in the place of a key."""


def words(raw: bytes, headers: Mapping[str, str]) -> str:
    """The message of an error object, or the reply itself, on one line.

    Args:
        raw: The reply.
        headers: What was sent; some servers repeat the key in them, which is replaced.
    """
    text = raw.decode(errors="replace")
    try:
        read = orjson.loads(raw)
    except orjson.JSONDecodeError:
        read = None
    if isinstance(read, dict):
        error = read.get("error", read.get("detail", read.get("message", text)))
        text = str(error.get("message", error)) if isinstance(error, dict) else str(error)
    for secret in headers.get("Authorization", "").split()[1:]:
        text = text.replace(secret, HIDDEN)
    return " ".join(text.split())[:WORDS] or "(no words)"
