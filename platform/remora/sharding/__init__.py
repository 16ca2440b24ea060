"""Which host owns which entity: pure decisions."""
