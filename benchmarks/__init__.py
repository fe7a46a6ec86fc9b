"""What is measured against what; `results/` holds what came out, with the machine in it."""
