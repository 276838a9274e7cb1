"""What an agent may do on a call: tools, declared in the settings, called by the model."""
