"""The inference worker, which knows tokenizer, chat template and text format of each language model."""
