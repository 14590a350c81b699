"""Content-addressed artifact store: blobs, manifests, keys and the trees that stages read."""
