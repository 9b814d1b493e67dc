"""Without the extra hf, the tests of the model are left out."""

from importlib.util import find_spec

collect_ignore = (
    [] if find_spec("transformers") else ["test_policy.py", "test_sft.py", "test_theta_0.py"]
)
