"""I/O with Feishu: discovery, upgrade, connection, and the delays between attempts."""
