"""What a causal LM needs before its lessons: which one and where, in 4 bits, with clear errors.

Imports nothing else of sealkit.
"""
