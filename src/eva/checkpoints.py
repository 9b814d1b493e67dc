"""What the weights in a folder are: a digest of the files that decide what a model computes."""

import hashlib
from pathlib import Path

from eva.errors import BackEndError

PATTERNS = ("config.json", "*.safetensors", "*.safetensors.index.json", "*.bin", "*.bin.index.json")
"""Files of a model in Hugging Face format; tokenizers and logs do not count."""
BLOCK = 2**22
"""Bytes that are read at once."""


def fingerprint(folder: Path) -> str:
    """The identity of the weights in a folder: 20 hexadecimal digits.

    BLAKE2b over the sorted names and the bytes of `PATTERNS`, each with its length, so that equal
    weights have equal ids wherever they lie. Files are streamed: a big model costs time, no memory.

    Raises:
        BackEndError: The folder holds no file of a model, or one cannot be read.

    Examples:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = Path(folder, "config.json").write_text("{}")
        ...     len(fingerprint(Path(folder)))
        20
    """
    files = sorted({path for pattern in PATTERNS for path in folder.glob(pattern)})
    if not files:
        raise BackEndError(
            f"{folder} holds no weights; expected config.json and *.safetensors of a model in "
            "Hugging Face format"
        )
    digest = hashlib.blake2b(digest_size=10)
    try:
        for path in files:
            _add(digest, path)
    except OSError as error:
        raise BackEndError(f"cannot read the weights {error.filename}: {error.strerror}") from error
    return digest.hexdigest()


def _add(digest: "hashlib.blake2b", path: Path) -> None:
    name = path.name.encode()
    digest.update(b"%d:%b%d:" % (len(name), name, path.stat().st_size))
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
