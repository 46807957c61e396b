"""A served model: catalog entry, tokenizer, chat template, engine."""
