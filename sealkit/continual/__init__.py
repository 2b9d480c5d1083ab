"""Continual learning (paper, section 5): passages learned for good, one after another."""
