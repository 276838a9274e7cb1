"""Calls that are made from here: one, or a list of them."""
