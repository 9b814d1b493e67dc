"""Rewards that are models, judges and services."""
