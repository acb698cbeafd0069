"""Who may run an event: claims, renewals and outcomes in Redis, by Lua scripts."""
