"""The worlds that the suite's algorithms are measured on: datasets and environments.

Importing this package does no work beyond registering Gymnasium ids (none yet).
"""
