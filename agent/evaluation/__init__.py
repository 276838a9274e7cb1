"""The paper's evaluation for any checkpoint in the published layout: ``glm-voice evaluate``."""
