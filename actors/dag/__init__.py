"""DAG runs: the rules of their progress, and the actor that applies them."""
