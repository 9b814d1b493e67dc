"""How running servers are told to load the weights of a checkpoint.

vLLM 0.33 was read for its routes. Full weights: ``/collective_rpc`` with ``reload_weights``, then
``/reset_prefix_cache``, for vLLM keeps the keys and values that the old weights made; both exist if
it was started with VLLM_SERVER_DEV_MODE=1. An adapter: ``/v1/load_lora_adapter``, which exists with
--enable-lora and VLLM_ALLOW_RUNTIME_LORA_UPDATING=True; each adapter has a name of its own, so that
no prefix of an older one is taken for it.
"""

import asyncio
from pathlib import Path
from typing import Any, Literal

import aiohttp
import orjson

from eva.errors import BackEndError
from eva.records import Checkpoint
from eva.serving.limits import wait
from eva.serving.pool import Prepare
from eva.serving.words import words

LOADING = 3600.0
"""Seconds that loading weights may take."""
EMPTYING = 60.0
"""Seconds until a server must have let go of what the old weights computed."""
PASSING = (429, 500, 502, 503, 504)
"""What a server, or a proxy before it, says of a trouble that may pass."""
TRIALS = 6
"""How often an order is given to a server in such a trouble."""
NEEDED = {
    "collective_rpc": "start it with VLLM_SERVER_DEV_MODE=1",
    "reset_prefix_cache": "start it with VLLM_SERVER_DEV_MODE=1",
    "v1/load_lora_adapter": (
        "start it with --enable-lora, --max-lora-rank at least the rank of the recipe, and "
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
    ),
    "reload": "start it with `eva serve`",
}
"""What a server needs for a route."""


def is_adapter(uri: str) -> bool:
    """Whether a checkpoint is an adapter in PEFT's format alone."""
    return (Path(uri) / "adapter_config.json").exists()


def adapter_name(checkpoint: Checkpoint) -> str:
    """What a server of vLLM calls an adapter."""
    return f"eva-{checkpoint.id}"


def root(url: str) -> str:
    """The address of a server without the version of its API."""
    return url.rstrip("/").removesuffix("/v1")


def preparation(how: Literal["vllm", "eva"], checkpoint: Checkpoint) -> Prepare:
    """Has a server load the weights of a checkpoint; waits until it has.

    Raises:
        BackEndError: It cannot, later.
    """

    async def vllm(session: aiohttp.ClientSession, url: str) -> None:
        if is_adapter(checkpoint.uri):
            return await _adapter(session, url, checkpoint)
        order = {"method": "reload_weights", "kwargs": {"weights_path": checkpoint.uri}}
        await _told(session, url, "collective_rpc", order)
        for _ in range(int(EMPTYING)):
            said = await _told(session, url, "reset_prefix_cache", {})
            if not isinstance(said, dict) or said.get("success", True):
                return
            await asyncio.sleep(1.0)  # what it still answers holds some of them
        raise BackEndError(
            f"{url} does not let go of what the old weights computed; end its other clients and "
            "run the same command again"
        )

    async def eva(session: aiohttp.ClientSession, url: str) -> None:
        await _told(session, url, "reload", {"model": checkpoint.uri})

    return vllm if how == "vllm" else eva


async def _adapter(session: aiohttp.ClientSession, url: str, checkpoint: Checkpoint) -> None:
    name = adapter_name(checkpoint)
    async with session.get(f"{root(url)}/v1/models") as response:
        known = _models(url, await response.read()) if response.status == 200 else []
    if name not in known:
        order = {"lora_name": name, "lora_path": checkpoint.uri}
        await _told(session, url, "v1/load_lora_adapter", order)


def _models(url: str, raw: bytes) -> list[object]:
    """The names that a server knows.

    Raises:
        BackEndError: Its list is none.
    """
    try:
        return [model["id"] for model in orjson.loads(raw)["data"]]
    except (orjson.JSONDecodeError, TypeError, KeyError) as error:
        raise BackEndError(
            f"{root(url)}/v1/models gives no list of models ({raw[:80]!r}); see that a server of "
            "vLLM listens there, and run the same command again"
        ) from error


async def _told(
    session: aiohttp.ClientSession, url: str, route: str, order: dict[str, Any]
) -> object:
    """What a server says to an order; None where it says nothing."""
    address = f"{root(url)}/{route}"
    status, said = await _posted(session, address, order)
    for trial in range(1, TRIALS):
        if status not in PASSING:
            break
        await asyncio.sleep(wait(trial, 1.0))
        status, said = await _posted(session, address, order)
    if status != 200:
        raise BackEndError(
            f"{address} did not load the checkpoint (HTTP {status}: "
            f"{words(said, session.headers)}); "
            f"{NEEDED[route]}, see that it can read the folder {order}, and run the same command "
            "again"
        )
    try:
        return orjson.loads(said)
    except orjson.JSONDecodeError:
        return None


async def _posted(
    session: aiohttp.ClientSession, address: str, order: dict[str, Any]
) -> tuple[int, bytes]:
    timeout = aiohttp.ClientTimeout(total=LOADING)
    async with session.post(address, data=orjson.dumps(order), timeout=timeout) as response:
        return response.status, await response.read()
