"""How an envelope is read: its header, its times, its damaged texts."""
