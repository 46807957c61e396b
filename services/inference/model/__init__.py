"""What a served model is: catalog entry, tokenizer, chat template, engine."""
