"""Compares what happened on a call with what a scenario expects."""
