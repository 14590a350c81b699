"""Olive Press beside DVC, Olive's own cache and a plain Dagster project: what reruns cost and what they get wrong."""
