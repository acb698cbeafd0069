#!lua flags=allow-oom
-- Claim an event for one attempt, or say why not. Repeating the call with the same token repeats the answer.
-- KEYS[1] state of the event (hash)   KEYS[2] lock of the event (string, python-redis-lock's)
-- KEYS[3] what is known of Redis' clock (hash, see clock.lua)
-- ARGV[1] token of this claim   ARGV[2] event lease, ms   ARGV[3] seconds an unsettled state is kept; what it needs, too
-- Only for an event that stands in a line or has business keys:
-- KEYS[4] retries of its stream (zset)   KEYS[5...] its line, if it has one (zset, see line_up.lua); then its business keys (strings:
-- the state key of the event that holds it)
-- ARGV[4] its member of the line, '' without   ARGV[5] "stream|entry id"   ARGV[6] group
-- ARGV[7...] the handlers of the business keys, in their order
-- Returns {'run', attempt, crashes, handlers to skip, now in ms, 'h:' and handler, mark, 't:' and handler, try, ...}
-- | {'duplicate'} | {'busy', ms left} | {'waiting', ms left} | {'queued', business key}: others of the line, or of the
-- business key that is given then, come first, and it will become due
-- Crashes are the earlier attempts of which nobody said how they ended.
local BUSINESS_WAIT = 1000 -- ms between looks whether another event has done what this one asks for
local line = ARGV[4] and ARGV[4] ~= '' and KEYS[5]

-- Whether an entry, "stream|id", comes behind another in a line.
local function is_behind(name, entry)
  local stream, ms, seq = string.match(entry, '^(.*)|(%d+)-(%d+)$')
  local member = string.rep('0', 20 - #ms) .. ms .. '-' .. string.rep('0', 20 - #seq) .. seq .. '|' .. stream
  return type(redis.pcall('ZSCORE', name, member)) == 'string' and redis.call('ZRANGE', name, 0, 0)[1] ~= member
end

-- Whether an event that has a business key keeps others from it: it runs, or will by itself. Time says nothing here: its
-- workers may be away for days, and then take it up again.
local function holds(lock, entry, its_line)
  local stream, id = string.match(entry or '', '^(.*)|(%d+-%d+)$')
  if not stream or not lock then
    return false -- it was replayed, and nobody has taken it up: whoever comes first has the key
  end
  if redis.call('EXISTS', lock) == 1 then
    return true
  end
  local found = redis.pcall('XRANGE', stream, id, id)
  local pending = redis.pcall('XPENDING', stream, ARGV[6], id, id, 1)
  if not found.err and #found == 0 or not pending.err and #pending == 0 then
    return false -- deleted or acknowledged by hand
  end
  -- Who waits in a line may wait for the event that asks, itself or through others.
  return not (is_behind(its_line or '', entry) or line and is_behind(line, entry))
end

-- A number that somebody has edited by hand, so that it is none or beyond the limit, counts as 0.
local function number(text, limit)
  local found = tonumber(text or 0) or 0
  return found >= 0 and found < limit and math.floor(found) or 0
end

local token = ARGV[1]
local state, owner, attempts, due, crashes, wait = unpack(
  redis.call('HMGET', KEYS[1], 'state', 'token', 'attempts', 'due', 'crashes', 'wait'))
attempts, crashes, due = number(attempts, 1e6), number(crashes, 1e6), number(due, 2 ^ 53)
if state == 'done' or state == 'dead' then
  return {'duplicate'}
end
if line then
  redis.call('ZADD', line, 'NX', 1, ARGV[4])
  redis.call('EXPIRE', line, ARGV[3])
  if redis.call('ZRANGE', line, 0, 0)[1] ~= ARGV[4] then
    return {'queued'}
  end
end
local holder = redis.call('GET', KEYS[2])
local now = 0
if holder or state or ARGV[7] then
  now = redis.call('TIME')
  now = now[1] * 1000 + math.floor(now[2] / 1000)
end
if holder and holder ~= token then
  local left, lease = redis.call('PTTL', KEYS[2]), tonumber(ARGV[2])
  if left > lease and (tonumber(redis.pcall('HGET', KEYS[3], 'ahead') or 0) or 0) > now then
    -- Set while Redis' clock was ahead. Its holder renews it, if it is alive.
    redis.call('PEXPIRE', KEYS[2], lease)
    left = lease
  end
  return {'busy', left}
end
if state == 'retry' and due > now then
  if wait and due - now > number(wait, 2 ^ 53) then
    due = now + number(wait, 2 ^ 53) -- noted while Redis' clock was ahead
    redis.call('HSET', KEYS[1], 'due', due)
  end
  return {'waiting', due - now}
end

-- All of the business keys or none: who waits for one must not keep another from running.
local free, skipped = {}, {}
for i = 7, #ARGV do
  local key, handler = KEYS[(line and 6 or 5) + i - 7], 'h:' .. ARGV[i]
  local other = redis.call('GET', key)
  if not other or other == KEYS[1] then
    free[#free + 1] = key
  elseif not redis.call('HGET', KEYS[1], handler) then
    local others, mark, lock, entry, its_line = unpack(
      redis.pcall('HMGET', other, 'state', handler, 'lock', 'entry', 'line'))
    if mark == '' then
      skipped[#skipped + 1] = handler
    elseif (others == 'running' or others == 'retry') and not mark and holds(lock, entry, its_line) then
      redis.call('ZADD', KEYS[4], now + BUSINESS_WAIT, string.match(ARGV[5], '[^|]*$'))
      return {'queued', key}
    else
      free[#free + 1] = key
    end
  end
end
for _, key in ipairs(free) do
  redis.call('SET', key, KEYS[1], 'EX', ARGV[3])
end
for _, handler in ipairs(skipped) do
  redis.call('HSET', KEYS[1], handler, '')
end
if ARGV[7] then
  -- For those who will wait for this one, see holds; and for who settles it, as the keys live as long as this does.
  redis.call('HSET', KEYS[1], 'lock', KEYS[2], 'entry', ARGV[5], 'line', line or '', 'business', table.concat(free, '\n'))
end

if not (state == 'running' and owner == token) then
  attempts = attempts + 1
  if state == 'running' then
    crashes = crashes + 1
    redis.call('HSET', KEYS[1], 'crashes', crashes)
  end
  redis.call('HSET', KEYS[1], 'state', 'running', 'token', token, 'attempts', attempts)
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
redis.call('SET', KEYS[2], token, 'PX', ARGV[2])
if line then
  -- Whoever comes late with a smaller id waits until this one is settled.
  redis.call('ZADD', line, 0, ARGV[4])
end
local answer = {'run', attempts, crashes, #skipped, now}
if state or #skipped > 0 then
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    local kind = string.sub(fields[i], 1, 2)
    if kind == 'h:' or kind == 't:' then
      answer[#answer + 1] = fields[i]
      answer[#answer + 1] = fields[i + 1]
    end
  end
end
return answer
