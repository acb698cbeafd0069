"""Between Feishu and the Redis streams, and what bridge and workers share."""
