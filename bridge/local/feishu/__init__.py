"""A local stand-in for Feishu: discovery, WebSocket, pushes, the ladder of re-pushes, faults."""
