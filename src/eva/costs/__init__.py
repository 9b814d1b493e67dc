"""What a run will cost, from the recipe alone: work, memory, hours, money and disk.

Read `plan.planned`. Everything here is arithmetic on a recipe, the shapes of its models and a
machine; nothing is loaded. The formulas stand in docs/checking.md.
"""
