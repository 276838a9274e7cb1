"""Side by side with the public reference implementation: ``python -m agent.bench``."""
