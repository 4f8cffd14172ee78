"""A user's training function as a task: the decorator, what the function finds on `run`, and the conformance check."""
