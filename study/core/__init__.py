"""Terms, keys, files, records and validation: no torch, no Ray, nothing about unlearning."""
