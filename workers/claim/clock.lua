#!lua flags=allow-oom
-- Redis' time, and whether its clock was ahead of that before. Repeating the call is harmless.
-- KEYS[1] what the group's workers have seen of it (hash: last, the time of the last look; ahead, the time up to which
-- Redis' stamps may be wrong, 0 if none are; both Unix ms; back, how often it went back)
-- Returns {now in Unix ms, how often it went back if that still matters, else 0; the error of a key of a wrong type, or
-- empty}
local SLACK = 1000 -- ms that a clock may be put back without a word
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)
local seen = redis.pcall('HMGET', KEYS[1], 'last', 'ahead', 'back')
local last, ahead, back = tonumber(seen[1] or 0) or 0, tonumber(seen[2] or 0) or 0, tonumber(seen[3] or 0) or 0
if last - now > SLACK then
  ahead, back = math.max(ahead, last), back + 1
end
if ahead <= now then
  ahead = 0
end
redis.pcall('HSET', KEYS[1], 'last', now, 'ahead', ahead, 'back', back)
return {now, ahead > 0 and back or 0, seen.err or ''}
