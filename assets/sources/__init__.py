"""The external inputs of an experiment; a module each, so that a change to one leaves the others' keys alone."""
