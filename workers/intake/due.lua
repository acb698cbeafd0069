#!lua flags=allow-oom
-- Take the retries that are due, and hide them for a while, so that a taker's death only delays them.
-- KEYS[...] the retries of a stream (zset: due ms -> entry id)
-- ARGV[1] how many to take at most  ARGV[2] ms to hide  ARGV[3...] how many of each key at most
-- Returns for each key {ids taken, members that are no entry id and were removed}, or the error of a spoilt key.
-- Each key gets an equal share first, so that no stream hides another; who has more then fills what is left.
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local left, answers, most = tonumber(ARGV[1]), {}, {}

local function is_id(member)
  local ms, seq = string.match(member, '^(%d+)-(%d+)$')
  return ms and #ms < 20 and #seq < 20
end

local function take(n, count)
  local key, taken, odd = KEYS[n], answers[n][1], answers[n][2]
  local found = redis.pcall('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, math.min(count, most[n], left))
  if found.err then
    answers[n], most[n] = found, 0
    return
  end
  for _, member in ipairs(found) do
    if is_id(member) then
      redis.call('ZADD', key, now + ARGV[2], member)
      taken[#taken + 1] = member
    else
      redis.call('ZREM', key, member)
      odd[#odd + 1] = member
    end
  end
  most[n], left = #found < count and 0 or most[n] - #found, left - #found
end

for _, share in ipairs({math.max(1, math.floor(left / #KEYS)), left}) do
  for n = 1, #KEYS do
    answers[n], most[n] = answers[n] or {{}, {}}, most[n] or tonumber(ARGV[n + 2])
    if most[n] > 0 and left > 0 then
      take(n, share)
    end
  end
end
return answers
