"""Azure: a workspace, and content-addressed blobs in its storage."""
