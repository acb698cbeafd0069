#!lua flags=allow-oom
-- Take the retries that are due, and hide them for a while, so that a taker's death only delays them.
-- KEYS[1] retries (zset: due ms -> "stream|entry id")
-- ARGV[1] how many at most  ARGV[2] ms to hide  ARGV[3...] stream the caller reads, how many of it at most, ...
-- Returns the members taken, those of other streams left as they are. It looks at a few thousand members, so that
-- those which nobody may take now do not hide the others.
local PAGE, PAGES = 1000, 10
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local most, left = {}, tonumber(ARGV[1])
for i = 3, #ARGV, 2 do
  most[ARGV[i]] = tonumber(ARGV[i + 1])
end
local taken, skipped = {}, 0
for _ = 1, PAGES do
  local page = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', skipped, PAGE)
  for _, member in ipairs(page) do
    if left <= 0 then
      return taken
    end
    local stream = string.match(member, '^(.*)|')
    if (most[stream] or 0) > 0 then
      redis.call('ZADD', KEYS[1], now + ARGV[2], member)
      taken[#taken + 1] = member
      most[stream], left = most[stream] - 1, left - 1
    else
      skipped = skipped + 1
    end
  end
  if #page < PAGE then
    break
  end
end
return taken
