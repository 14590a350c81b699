"""The only importer of olive: run configs in, folders out."""
