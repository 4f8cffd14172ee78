"""Speed and robustness, side by side with peers: python -m benchmarks."""
