"""What operators do with streams: dead letters, replay, consumer groups."""
