"""Ablation experiments on language models: which part earns its keep, by how much, and how sure are we?"""

__version__ = "0.1.0"
