"""distilabel's arm of bench/evolve.py; runs in a virtual environment of its own."""
# mypy: ignore-errors

import json
import sys

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps.tasks import EvolInstruct


def main(url: str, count: int, evolutions: int, in_flight: int) -> None:
    """Evolve, and print how many prompts there are; the server knows how long it took."""
    text = "Explain to me how family number {} could plan a week of holidays in the rain by the sea"
    given = [{"instruction": text.format(i)} for i in range(count)]
    with Pipeline(name="bench") as pipeline:
        EvolInstruct(
            llm=OpenAILLM(model="bench", base_url=url, api_key="none"),
            num_evolutions=evolutions,
            store_evolutions=True,
            input_batch_size=in_flight,
        )
    rows = pipeline.run(dataset=given, use_cache=False)["default"]["train"]
    sound = sum(bool(text) for row in rows for text in row["evolved_instructions"])
    print(json.dumps({"sound": sound}))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
