#!lua flags=allow-oom
-- Give a consumer pending entries once more: its own, or those that nobody has renewed for an event lease.
-- What waits for a retry more than an event lease away is left out: `due` brings it, and there may be very many.
-- KEYS[1] stream  KEYS[2] its retries (zset: due ms -> entry id)
-- ARGV[1] group  ARGV[2] consumer  ARGV[3] event lease, ms  ARGV[4] how many to look at  ARGV[5] own or idle
-- ARGV[6] where to go on: '0-0' at first, then as returned  ARGV[7] how many to give at most
-- ARGV[8] 1: give ids instead of entries, for line_up.lua to take
-- Returns {where to go on, '0-0' at the end; ids of entries that are no longer in the stream; entries}
local key, group, consumer, lease, count = KEYS[1], ARGV[1], ARGV[2], ARGV[3], tonumber(ARGV[4])
local now = redis.call('TIME')
now = now[1] * 1000 + math.floor(now[2] / 1000)

local cursor, ids, gone = '0-0', {}, {}
if ARGV[5] == 'own' then
  for _, row in ipairs(redis.call('XPENDING', key, group, ARGV[6], '+', count, consumer)) do
    ids[#ids + 1] = row[1]
  end
  if #ids == count then
    cursor = '(' .. ids[count]
  end
else
  cursor, ids, gone = unpack(
    redis.call('XAUTOCLAIM', key, group, consumer, lease, ARGV[6], 'COUNT', count, 'JUSTID'))
end

local wanted = {}
for _, id in ipairs(ids) do
  local due = checked(redis.pcall('ZSCORE', KEYS[2], id))
  if type(due) ~= 'string' or due - now <= tonumber(lease) then
    wanted[#wanted + 1] = id
  end
end

-- What is too much stays as idle as it was, for whoever has room.
local most = tonumber(ARGV[7])
if #wanted > most then
  cursor = wanted[most + 1]
  if ARGV[5] == 'idle' then
    local rest = {unpack(wanted, most + 1)}
    for _, option in ipairs({'IDLE', lease, 'JUSTID'}) do
      rest[#rest + 1] = option
    end
    redis.call('XCLAIM', key, group, consumer, 0, unpack(rest))
  end
  wanted = {unpack(wanted, 1, most)}
end

if ARGV[8] == '1' then
  for _, id in ipairs(gone) do
    redis.pcall('ZREM', KEYS[2], id)
  end
  return {cursor, gone, wanted}
end

-- XCLAIM takes an entry that is gone off the pending list and leaves it out.
local entries, found = {}, {}
if #wanted > 0 then
  entries = redis.call('XCLAIM', key, group, consumer, 0, unpack(wanted))
end
for _, entry in ipairs(entries) do
  found[entry[1]] = true
end
for _, id in ipairs(wanted) do
  if not found[id] then
    gone[#gone + 1] = id
  end
end
for _, id in ipairs(gone) do
  redis.pcall('ZREM', KEYS[2], id)
end
return {cursor, gone, entries}
