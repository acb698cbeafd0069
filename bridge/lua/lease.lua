#!lua flags=allow-oom
-- Takes, renews or releases the lease of one app. Idempotent: a call whose reply was lost may be repeated.
-- KEYS[1]  lease: hash holder, term, renewed_at (ms), lease_duration (ms); never expires, so that terms only grow
-- ARGV     mode ('hold', 'look' to take nothing, or 'release'), identity, lease_duration (ms), term (release only; 0 stands for any)
-- returns  {term, or 0 when not held by this identity, holder, ms left}
-- A full Redis must not cost the leader its lease: it stays and answers Feishu with 500, hence allow-oom.

local mode, identity, duration = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local stored = redis.call('HMGET', KEYS[1], 'holder', 'term', 'renewed_at', 'lease_duration')
local holder = stored[1] or ''
local term = tonumber(stored[2] or 0)
local granted = tonumber(stored[4] or 0)
local left = tonumber(stored[3] or 0) + granted - now
if holder ~= '' and left > granted then
  -- Redis' clock went back. Its lease runs anew: a live holder keeps it, a dead one blocks no longer than that.
  redis.call('HSET', KEYS[1], 'renewed_at', string.format('%.0f', now))
  left = granted
end
local alive = holder ~= '' and left > 0

if mode == 'release' then
  local ours = holder == identity and (ARGV[4] == '0' or tonumber(ARGV[4]) == term)
  if ours then
    redis.call('HSET', KEYS[1], 'holder', '')
    return {0, '', 0}
  end
  return {0, holder, alive and left or 0}
end

if mode == 'look' then
  return {0, alive and holder or '', alive and left or 0}
end
if alive and holder ~= identity then
  return {0, holder, left}
end
if not alive then
  term = math.max(term + 1, now)
end
redis.call('HSET', KEYS[1], 'holder', identity, 'term', string.format('%.0f', term),
  'renewed_at', string.format('%.0f', now), 'lease_duration', string.format('%.0f', duration))
return {term, identity, duration}
