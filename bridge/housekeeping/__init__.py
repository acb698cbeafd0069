"""What a leader looks after in Redis: memory, trimming, and events that wait too long."""
