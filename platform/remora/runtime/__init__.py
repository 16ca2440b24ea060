"""What runs in one process, without Ray."""
