"""Terms, keys, files and validation: no torch, no Ray, nothing about unlearning."""
