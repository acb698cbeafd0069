"""Which bridge leads: the lease in Redis, the election, the watchdog of a leader's loop."""
