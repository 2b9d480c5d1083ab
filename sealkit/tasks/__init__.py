"""What the model is examined on, one module each, and how its answers are graded."""
