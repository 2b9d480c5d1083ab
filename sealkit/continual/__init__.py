"""Continual learning (paper, section 5): the policy keeps each passage's update, θ ← θ'."""
