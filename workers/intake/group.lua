#!lua flags=allow-oom
-- Make a group in a stream, and the stream if need be. Repeating the call is harmless.
-- A group that has never been in the stream begins with its first entry. One made anew, because it was forgotten or
-- destroyed by hand, begins so far back as its marks are sure to tell what it has done, or where it was forgotten.
-- Neither begins before what begin.lua noted.
-- allow-oom: a worker that starts must be able to drain a full Redis; plain XGROUP CREATE is refused there.
-- KEYS[1] stream  KEYS[2] streams that the group has been in (hash, see leave_group.lua)  KEYS[3] its starts (hash)
-- ARGV[1] group  ARGV[2] ms for which marks are kept, at least; '' if each entry is the group's own
-- Returns 1, or 2 where KEYS[2] is of a wrong type.
local function older(one, other)
  local a, b = string.match(one, '%d+'), string.match(other, '%d+')
  return (#a < #b or #a == #b and a < b) and one or other
end

local start = '0-0'
local position = ARGV[2] ~= '' and checked(redis.pcall('HGET', KEYS[2], KEYS[1]))
local spoilt = type(position) == 'table' -- it is as if the group had never been there
if type(position) == 'string' then
  local now = redis.call('TIME')
  start = string.format('%.0f-0', math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - ARGV[2]))
  if string.match(position, '^%d+%-%d+$') then
    start = older(start, position)
  end
end
local begun = ARGV[2] ~= '' and checked(redis.pcall('HGET', KEYS[3], KEYS[1]))
if type(begun) == 'string' and string.match(begun, '^%d+%-%d+$') and older(start, begun) == start then
  start = begun
end
-- Redis knows the lag of a group that begins at the end, or at the beginning, but not in between.
local newer = redis.pcall('XRANGE', KEYS[1], '(' .. start, '+', 'COUNT', 1)
if not newer.err and #newer == 0 then
  start = '$'
end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], start, 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then
  return made
end
if ARGV[2] ~= '' and not spoilt then
  redis.call('HSET', KEYS[2], KEYS[1], '')
end
return spoilt and 2 or 1
