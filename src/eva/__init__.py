"""eva: open-ended post-training, where the prompts evolve with the model that trains on them.

The public names: what flows (records), where you plug in (protocols), and how a game is run. From
here read `eva.loop`, which is Algorithm 1.
"""

from eva import adapt
from eva.errors import BackEndError, EvaError, PlugInError, RecipeError, RunDirError
from eva.protocols import (
    Evolver,
    Gate,
    Info,
    Learner,
    OnlineLearner,
    OpenPolicy,
    Policy,
    Reward,
    Select,
    Trainee,
)
from eva.records import (
    Checkpoint,
    Child,
    Message,
    Pair,
    Prompt,
    Refused,
    Response,
    Rollout,
    RunState,
    Sampling,
    ScoredPrompt,
)

__version__ = "0.1.0"

__all__ = [
    "BackEndError",
    "Checkpoint",
    "Child",
    "EvaError",
    "Evolver",
    "Gate",
    "Info",
    "Learner",
    "Message",
    "OnlineLearner",
    "OpenPolicy",
    "Pair",
    "PlugInError",
    "Policy",
    "Prompt",
    "RecipeError",
    "Refused",
    "Response",
    "Reward",
    "Rollout",
    "RunDirError",
    "RunState",
    "Sampling",
    "ScoredPrompt",
    "Select",
    "Trainee",
    "adapt",
]
