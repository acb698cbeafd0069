"""What a worker knows of its consumer group: who is there, who handles what, where to begin."""
