"""What every part of a recipe is made of."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue


class Part(BaseModel):
    """A frozen part of a recipe that refuses keys it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PythonCall(Part):
    """Your own function, named by where it lives."""

    kind: Literal["python"] = "python"
    call: str = Field(pattern=r"^[\w.]+:[\w.]+$")
    """"module:function"; the folder of the recipe and the working directory are searched too."""
    args: dict[str, JsonValue] = Field(default_factory=dict)
    """If given, the function is called once with these arguments and returns the plug-in."""
