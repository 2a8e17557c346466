"""What is taught and asked: people, pictures, lessons, questions, splits; no torch."""
