"""How inferences are seen."""
