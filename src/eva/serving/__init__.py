"""Servers of language models: asked at full speed, each answer paid once; started and ended."""
