#!lua flags=allow-oom
-- Note what a group reads, so that trimming waits for it. Repeating the call is harmless.
-- allow-oom: a worker that starts must be able to drain a full Redis.
-- KEYS[1] subscriptions (set)  ARGV members
-- Returns 1.
redis.call('SADD', KEYS[1], unpack(ARGV))
return 1
