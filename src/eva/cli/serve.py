"""`eva serve`: a small server of one model, for laptops and tests."""

import asyncio
from typing import Annotated

import typer

from eva.build.models import model_folder
from eva.cli.out import plain
from eva.extras import extra
from eva.parts.policies import HfPolicy


def serve(
    model: Annotated[
        str,
        typer.Argument(help='A folder, a hub id, or "playground"; also the name it answers to.'),
    ],
    host: Annotated[str, typer.Option(help="Whom to listen to; it asks for no key.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, help="0 takes a free one, and prints it.")] = 8000,
    device: Annotated[str, typer.Option(help='"auto", "cpu", "cuda:0", ...')] = "auto",
    rows: Annotated[
        int, typer.Option(min=1, help="Responses that are sampled side by side.")
    ] = 256,
    threads: Annotated[
        int | None, typer.Option(min=1, help="CPU threads of torch; 1 is best for small models.")
    ] = None,
) -> None:
    """Serve a model with OpenAI's chat completions, until Ctrl-C."""
    with extra("hf", "eva serve"):
        import torch
    with extra("http", "eva serve"):
        from eva.serving import server
    if threads is not None:
        torch.set_num_threads(threads)
    config = HfPolicy(model=model_folder(model), device=device, rows=rows)
    out = plain()

    def ready(url: str) -> None:
        out.print(f"serving {model} at {url}")

    asyncio.run(server.serve(config, model, (host, port), ready))
