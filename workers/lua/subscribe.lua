#!lua flags=allow-oom
-- Note what a group reads, so that trimming waits for it, and that one of its workers is there. Repeating the call is
-- harmless.
-- allow-oom: a worker that starts must be able to drain a full Redis.
-- KEYS[1] subscriptions (set)  KEYS[2] the group's workers (zset: record -> ms of the last sign of life)
-- ARGV[1] record of the worker  ARGV[2] ms after which one that is silent goes  ARGV[3...] members of the subscriptions
-- Returns 1, or the error of a key of a wrong type; the other one is written all the same.
local told = ARGV[3] and redis.pcall('SADD', KEYS[1], unpack(ARGV, 3))
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
redis.call('ZADD', KEYS[2], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', now - ARGV[2])
redis.call('PEXPIRE', KEYS[2], ARGV[2])
if type(told) == 'table' then
  return told
end
return 1
