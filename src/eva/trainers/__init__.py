"""Learners that run in processes of their own: any command, TRL, and eva's own on many devices."""
