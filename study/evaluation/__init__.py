"""Model x questions -> rows: strict protocol, official protocol, membership scores."""
