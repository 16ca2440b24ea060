"""The Ray edge: actors as thin shells around the runtime, and how to start and find them."""
