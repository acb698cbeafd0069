"""What Feishu's long connection says: frames, fragments, envelopes, heartbeat. No I/O, no clock."""
