"""Evidence of deletion: what the report says of one winner, person by person, with what is not claimed."""
