"""One pure function per equation, NumPy in and NumPy out.

How informative prompts are, which of them are drawn, which responses make a pair, and how sure a
measured number is. No configuration, no logging, and no randomness but an `rng` argument. Arrays
carry their axes in their names: P prompts, G responses per prompt, K chosen, S prompts that have a
score, n rewards that are there, N measurements, C clusters.
"""
