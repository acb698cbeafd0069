#!lua flags=allow-oom
-- Takes, renews or releases the lease of one app. Idempotent: a call whose reply was lost may be repeated.
-- KEYS[1]  lease: hash holder, candidacy, term, renewed_at (ms), lease_duration (ms), and released: who gave it back
--          last, in which candidacy; never expires, so that terms only grow
-- ARGV     mode ('hold', 'look' to take nothing, or 'release'), identity, lease_duration (ms), term (release only; 0
--          stands for any), candidacy: a number that grows with each release of the identity
-- returns  {term, or 0 when not held by this identity, holder, ms left}
-- A full Redis must not cost the leader its lease: it stays and answers Feishu with 500, hence allow-oom.

local mode, identity, duration = ARGV[1], ARGV[2], tonumber(ARGV[3])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function number(text)  -- one that was written by hand, and is none, counts as 0
  local found = tonumber(text or 0) or 0
  return found >= 0 and found < 2 ^ 53 and math.floor(found) or 0
end

local stored = redis.call('HMGET', KEYS[1], 'holder', 'term', 'renewed_at', 'lease_duration', 'candidacy', 'released')
local holder = stored[1] or ''
local term, granted = number(stored[2]), number(stored[4])
local left = number(stored[3]) + granted - now
local candidate = identity .. ' ' .. (ARGV[5] or '')
if holder ~= '' and left > granted then
  -- Redis' clock went back. Its lease runs anew: a live holder keeps it, a dead one blocks no longer than that.
  redis.call('HSET', KEYS[1], 'renewed_at', string.format('%.0f', now))
  left = granted
end
local alive = holder ~= '' and left > 0

if mode == 'release' then
  -- A call of the same candidacy may come after this one, when nobody waits for its answer any more: it takes nothing.
  redis.call('HSET', KEYS[1], 'released', candidate)
  local ours = holder == identity and stored[5] == (ARGV[5] or '') and (ARGV[4] == '0' or tonumber(ARGV[4]) == term)
  if ours then
    redis.call('HSET', KEYS[1], 'holder', '')
    return {0, '', 0}
  end
  return {0, holder, alive and left or 0}
end

if mode == 'look' or stored[6] == candidate then
  return {0, alive and holder or '', alive and left or 0}
end
if alive and holder ~= identity then
  return {0, holder, left}
end
if not alive then
  term = math.max(term + 1, now)
end
redis.call('HSET', KEYS[1], 'holder', identity, 'candidacy', ARGV[5] or '', 'term', string.format('%.0f', term),
  'renewed_at', string.format('%.0f', now), 'lease_duration', string.format('%.0f', duration))
return {term, identity, duration}
