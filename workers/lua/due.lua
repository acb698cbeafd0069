#!lua flags=allow-oom
-- Take the retries that are due, and hide them for a while, so that a taker's death only delays them.
-- KEYS[1] retries (zset: due ms -> "stream|entry id")
-- ARGV[1] how many at most  ARGV[2] ms to hide  ARGV[3...] streams the caller reads
-- Returns the members taken, those of other streams left as they are.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local mine = {}
for i = 3, #ARGV do
  mine[ARGV[i]] = true
end
local taken = {}
for _, member in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, 1000)) do
  if #taken >= tonumber(ARGV[1]) then
    break
  end
  if mine[string.match(member, '^(.*)|')] then
    redis.call('ZADD', KEYS[1], now + ARGV[2], member)
    taken[#taken + 1] = member
  end
end
return taken
