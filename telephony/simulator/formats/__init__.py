"""Scenarios in the formats of others."""
