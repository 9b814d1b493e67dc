"""The playground: a verifiable constraint language and a tiny transformer that learns it.

The whole game at laptop size, through the same code path as a model of nine billion parameters.
`domain` is the language; `tasks`, `sets` and `evolve` make prompts; `verify` rewards; none of these
loads torch. `policy` and `sft` make theta_0, the checkpoint that ships in `theta_0/`.
"""
