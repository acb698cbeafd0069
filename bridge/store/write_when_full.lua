#!lua flags=allow-oom
-- Runs one command of a few bytes where Redis is at its maxmemory, which refuses it otherwise.
-- KEYS: the command's key. ARGV: its name, and its arguments after the key.
-- Returns the command's answer. Repeated, it does what the command does when it is repeated.
return redis.call(ARGV[1], KEYS[1], unpack(ARGV, 2))
