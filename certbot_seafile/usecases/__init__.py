"""What the package does, each use case a table of contents."""
