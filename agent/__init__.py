"""The agent: GLM-4-Voice and how a phone call uses it."""
