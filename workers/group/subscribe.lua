#!lua flags=allow-oom
-- Note what a group reads, so that trimming waits for it, that one of its workers is there, and what that handles.
-- Repeating the call is harmless.
-- allow-oom: a worker that starts must be able to drain a full Redis.
-- KEYS[1] subscriptions (set)  KEYS[2] the group's workers (zset: record -> ms of the last sign of life)
-- KEYS[3] what they handle (zset: coverage -> ms of the last sign of life of a worker that has it)
-- KEYS[4] for how long they keep marks (zset: seconds -> ms of the last sign of life of a worker that does)
-- ARGV[1] record of the worker  ARGV[2] its coverage  ARGV[3] ms after which a record goes that is silent
-- ARGV[4] ms after which a coverage goes  ARGV[5] seconds of marks  ARGV[6...] members of the subscriptions
-- Returns each coverage, and its age in ms; or the error of a key of a wrong type: the others are written all the same.
local spoilt = {}
local function try(...)
  local answer = redis.pcall(...)
  if type(answer) == 'table' and answer.err then
    spoilt = answer
  end
  return answer
end
if ARGV[6] then
  try('SADD', KEYS[1], unpack(ARGV, 6))
end
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
try('ZADD', KEYS[4], now, ARGV[5])
for i = 1, 2 do
  local key, kept = KEYS[i + 1], ARGV[i + 2]
  try('ZADD', key, now, ARGV[i])
  try('ZREMRANGEBYSCORE', key, '-inf', now - kept)
  -- Noted while the clock of Redis was ahead: who is there says so again.
  try('ZREMRANGEBYSCORE', key, '(' .. now, '+inf')
  redis.call('PEXPIRE', key, kept)
end
local seen = try('ZRANGE', KEYS[3], 0, -1, 'WITHSCORES')
if spoilt.err then
  return spoilt
end
for i = 2, #seen, 2 do
  seen[i] = now - seen[i]
end
return seen
