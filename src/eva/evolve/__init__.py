"""Writers of prompts that are language models."""
