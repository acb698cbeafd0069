"""One bridge, put together: its supervisor, its reconnector, and what it reports of itself."""
