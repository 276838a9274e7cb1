"""The training recipes: tokenizer, language model, flow and vocoder, and their evaluation."""
