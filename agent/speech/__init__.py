"""GLM-4-Voice in PyTorch: arrays and token ids in and out. Knows no server, no phone, no Pipecat."""
