"""The domains SEAL learns from; `passages` holds the texts and questions of its knowledge task."""
