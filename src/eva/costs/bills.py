"""What servers charge for a run, and what it leaves on the disk."""

from dataclasses import dataclass

from eva.config import Recipe
from eva.costs.counts import Lengths, Sizes, Work
from eva.costs.memory import Models, models_of
from eva.parts.learners import Offline, Online, Update
from eva.parts.policies import HfPolicy, HttpPolicy, LanguageModel, VllmPolicy

TEXT = 5.0
"""Bytes of a token's text in JSON."""
IDS = 20.0
"""Bytes of a token's id and log-probability in JSON (`[128256, ...]`, `[-0.12345, ...]`)."""


@dataclass(frozen=True)
class Bill:
    """What one served model charges, in the currency of its price."""

    model: str
    """Its name."""
    expected: float
    """With mean lengths."""
    most: float
    """If every text is as long as it may be."""
    budget: float | None
    """What the run may spend on it."""

    @property
    def verdict(self) -> str | None:
        """What the budget means; None without one, or where it surely lasts."""
        if self.budget is None or self.most <= self.budget:
            return None
        will = "will not" if self.expected > self.budget else "may not"
        return (
            f"the budget of {self.budget:g} for {self.model} {will} last: about "
            f"{self.expected:.3g} is expected, {self.most:.3g} at most"
        )


def bills(work: Work) -> list[Bill]:
    """One bill for each served model that has a price."""
    found: list[tuple[HttpPolicy, Bill]] = []
    for ask in work.asks:
        who = ask.who
        if not isinstance(who, HttpPolicy) or who.price is None:
            continue
        expected = ask.read * who.price.input + ask.written * who.price.output
        most = ask.read_most * who.price.input + ask.written_most * who.price.output
        before = next((bill for part, bill in found if part == who), None)
        found = [(part, bill) for part, bill in found if part != who]
        sums = (before.expected, before.most) if before else (0.0, 0.0)
        name = who.name or who.model
        bill = Bill(name, sums[0] + expected / 1e6, sums[1] + most / 1e6, who.budget)
        found.append((who, bill))
    return [bill for _, bill in found]


def disk(
    recipe: Recipe, work: Work, models: Models, sizes: Sizes, lengths: Lengths
) -> dict[str, float | None]:
    """Bytes of the run directory when the run is over, and of downloads; None: not known.

    Responses are kept as they were answered and once more in the lessons of their round. The
    checkpoints of all rounds are kept, in float32; snapshots go when an update is finished, and
    while one is written there are two.
    """
    policy = recipe.policy
    if not isinstance(policy, LanguageModel):
        return {}
    each = TEXT + (IDS if isinstance(policy, HfPolicy | VllmPolicy) else 0.0)
    mean = lengths.expected(recipe.sampling.max_tokens)
    lessons = sizes.prompts * recipe.rounds if isinstance(recipe.learner, Offline) else 0
    copies = work.answered + lessons * (2 if _is_launched(recipe) else 1)
    if isinstance(recipe.learner, Online):
        copies = 2 * work.answered
    groups = copies * recipe.n + (work.held_out or 0)
    found: dict[str, float | None] = {"responses and lessons": groups * mean * each}
    return found | _weights(recipe, models) | {
        f"download of {model}": None if shape is None else 2.0 * shape.parameters
        for model, shape in models.items()
        if _is_downloaded(model, recipe)
    }  # fmt: skip


def _is_launched(recipe: Recipe) -> bool:
    return isinstance(recipe.learner, Offline) and bool(recipe.learner.launch)


def _is_downloaded(model: str, recipe: Recipe) -> bool:
    """Whether a model is a hub id whose weights this run needs."""
    if model == "playground" or model.startswith(("/", ".")):
        return False
    needed = [
        part
        for part in models_of(recipe)
        if part.model == model and not (isinstance(part, HttpPolicy) and part.serve is None)
    ]
    return bool(needed) or model == dict(recipe.policy).get("model")


def _weights(recipe: Recipe, models: Models) -> dict[str, float | None]:
    """Checkpoints of all rounds, and what an update keeps while it is under way."""
    part, policy = recipe.learner, recipe.policy
    assert isinstance(policy, LanguageModel)
    shape = models.get(policy.model)
    if shape is None or not isinstance(part, Update):
        return {"checkpoints of all rounds": None}
    trained = shape.adapter(part.lora.rank) if part.lora else shape.parameters
    is_adapter = part.lora is not None and not part.lora.merge
    moments = 8.0 if part.optimizer == "adamw" else 4.0
    whole = 4.0 * (trained if is_adapter else shape.parameters)
    kept = whole + (moments * trained if isinstance(part, Online) else 0.0)
    found: dict[str, float | None] = {"checkpoints of all rounds": recipe.rounds * kept}
    if part.save_steps:
        found["snapshots while it learns"] = 2 * (4.0 + moments) * trained
    return found
