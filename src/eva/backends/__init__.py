"""Policies: what answers prompts. `hf` samples a model in this process."""
