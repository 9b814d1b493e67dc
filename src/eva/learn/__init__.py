"""The solver's update on lessons: pairs, reference, loss, step.

`batches` (NumPy) turns rollouts into pairs and pairs into padded token arrays, `schedule` (pure)
plans steps and learning rates, `losses` (torch) holds one pure function per equation, and `trainer`
(torch, transformers, accelerate) puts them together as a `Learner`. Nothing is imported here.
"""
