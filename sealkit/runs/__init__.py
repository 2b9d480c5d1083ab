"""Caching and resuming: results are stored under a key, in a dict or in a run folder.

Imports nothing else of sealkit.
"""
