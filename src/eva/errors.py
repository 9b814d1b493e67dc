"""Everything eva raises on purpose, each with one sentence that says what to do.

::

    EvaError
    |-- RecipeError    the recipe is wrong; raised before any work is done
    |-- PlugInError    a plug-in broke the contract of its seam (eva.protocols)
    |-- BackEndError   a server, a device or a model folder failed underneath eva
    |-- RunDirError    the run directory is locked, foreign, damaged or full
    `-- StopRule       a rule of the recipe ended the run: an alarm, a budget

What happens to one prompt is no error: it is a record with a reason.
"""


class EvaError(Exception):
    """Any failure that eva explains in one sentence; the root of the tree above."""


class RecipeError(EvaError):
    """The recipe cannot be played: an unknown key, a wrong type, a missing file or extra."""


class PlugInError(EvaError):
    """A policy, reward, evolver or learner raised, or returned what its seam does not allow."""


class BackEndError(EvaError):
    """What carries the model failed: a folder that is no model, a server that died, no memory."""


class RunDirError(EvaError):
    """The run directory is held by another run, made by another recipe, damaged or full."""


class StopRule(EvaError):
    """A rule that the recipe asks for ended the run; what was made stands, and it can go on."""
