import hashlib
from pathlib import Path

import pytest

from eva import checkpoints
from eva.checkpoints import fingerprint
from eva.errors import BackEndError


def model_folder(path: Path, **files: bytes) -> Path:
    path.mkdir()
    for name, content in {"config.json": b"{}", "model.safetensors": b"weights", **files}.items():
        (path / name).write_bytes(content)
    return path


def test_it_is_the_digest_of_lengths_names_and_bytes(tmp_path: Path) -> None:
    written = b"11:config.json2:{}" + b"17:model.safetensors7:weights"
    expected = hashlib.blake2b(written, digest_size=10).hexdigest()
    assert fingerprint(model_folder(tmp_path / "m")) == expected


def test_it_depends_neither_on_the_place_nor_on_the_tokenizer(tmp_path: Path) -> None:
    one = model_folder(tmp_path / "one")
    other = model_folder(tmp_path / "other", **{"tokenizer.json": b"words", "log.jsonl": b"1"})
    assert fingerprint(one) == fingerprint(other)


@pytest.mark.parametrize(
    "files",
    [
        {"config.json": b"{} "},
        {"model.safetensors": b"weightz"},
        {"model.safetensors.index.json": b""},
        {"pytorch_model.bin": b""},
    ],
)
def test_any_file_of_the_model_changes_it(tmp_path: Path, files: dict[str, bytes]) -> None:
    assert fingerprint(model_folder(tmp_path / "a")) != fingerprint(
        model_folder(tmp_path / "b", **files)
    )


def test_big_files_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = model_folder(tmp_path / "m")
    whole = fingerprint(folder)
    monkeypatch.setattr(checkpoints, "BLOCK", 3)
    assert fingerprint(folder) == whole


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackEndError, match="holds no weights"):
        fingerprint(tmp_path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").mkdir()
    with pytest.raises(BackEndError, match=r"model\.safetensors"):
        fingerprint(tmp_path)
