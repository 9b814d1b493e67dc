"""A trainer of your own as a program: DPO in plain torch. Copy it, and change what you like.

``python examples/command_learner.py`` plays two small rounds of the playground with this very file
as the learner; eva starts it as ``python command_learner.py START PAIRS OUT SEED``. The program
knows nothing of eva: it reads a model and a file of pairs, and writes a model.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, logsigmoid
from transformers import AutoModelForCausalLM, AutoTokenizer

BETA, LR, EPOCHS, BATCH = 0.1, 2e-4, 1, 8
Turns: TypeAlias = list[dict[str, str]]
Encoded: TypeAlias = tuple[list[int], int]
"""Token ids of a chat, and how many of them are the prompt."""


def encoded(tokenizer: Any, prompt: Turns, answer: Turns) -> Encoded:
    """A prompt with its answer as the chat template writes them."""
    start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
    whole = tokenizer.apply_chat_template(prompt + answer, return_dict=False)
    return whole, len(start)


def logp(model: Any, chat: Encoded) -> Tensor:
    """The log-probability of an answer, log pi(y | x)."""
    ids, length = chat
    logits_T_V = model(input_ids=torch.tensor([ids])).logits[0]
    return -cross_entropy(logits_T_V[length - 1 : -1], torch.tensor(ids[length:]), reduction="sum")


def train(start: str, pairs_file: str, out: str, seed: int) -> None:
    """Fit the model to the pairs; the start is also the reference."""
    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(start)
    model: Any = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    with Path(pairs_file).open("rb") as file:
        rows = [json.loads(line) for line in file]
    # The template ends every answer; one that was cut would be taught to stop there.
    pairs = [
        [encoded(tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected")]
        for row in rows
        if row["chosen_finish"] == row["rejected_finish"] == "stop"
    ]
    with torch.no_grad():
        reference = [[float(logp(model, chat)) for chat in pair] for pair in pairs]
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.0)
    for _ in range(EPOCHS):
        order = torch.randperm(len(pairs)).tolist()
        for begin in range(0, len(order), BATCH):
            losses = []
            for i in order[begin : begin + BATCH]:
                chosen, rejected = (logp(model, chat) for chat in pairs[i])
                margin = (chosen - reference[i][0]) - (rejected - reference[i][1])
                losses.append(-logsigmoid(BETA * margin))
            loss = torch.stack(losses).mean()
            loss.backward()  # type: ignore[no-untyped-call]  # theirs
            optimizer.step()
            optimizer.zero_grad()
            print(f"loss {float(loss.detach()):.4f}")  # learn/command.log of the round keeps it
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def play(folder: Path) -> None:
    """Two rounds with this file as the learner."""
    from eva.recipe import load
    from eva.start import run_recipe

    run = [sys.executable, __file__, "{start}", "{pairs}", "{out}", "{seed}"]
    learner = json.dumps({"kind": "command", "run": run})
    small = ["rounds=2", "n=4", "prompts.n=16", "evaluate=null", f"learner={learner}"]
    recipe = load("playground-eva", small)
    for t, metrics in run_recipe(recipe, folder, here=Path()):
        print(t, {name: round(value, 3) for name, value in metrics.items()})


if __name__ == "__main__":
    torch.set_num_threads(1)
    if len(sys.argv) == 5:
        start, pairs_file, out, seed = sys.argv[1:]
        train(start, pairs_file, out, int(seed))
    else:
        with tempfile.TemporaryDirectory() as scratch:
            play(Path(scratch) / "run")
