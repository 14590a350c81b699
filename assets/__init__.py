"""The six stages of an experiment, one file each, and what they share."""
