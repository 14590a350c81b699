"""Model registries behind one protocol."""
