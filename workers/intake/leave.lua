#!lua flags=allow-oom
-- Remove a consumer, one page of what it holds at a time. That goes to the consumer `left`, with the time it has been
-- idle, for the group's others to take over; a consumer takes its pending entries with it. Repeating the call is
-- harmless.
-- KEYS[1] stream  ARGV[1] group  ARGV[2] consumer
-- Returns {1 when it is removed, 0 while it holds more; ids of entries it held that are no longer in the stream}
local MOST = 200 -- entries in a page: Redis serves nobody else for a millisecond
local key, group, consumer = KEYS[1], ARGV[1], ARGV[2]
local gone = {}
local pending = checked(redis.pcall('XPENDING', key, group, '-', '+', MOST, consumer))
if pending.err then
  return {1, gone}
end
for _, entry in ipairs(pending) do
  local moved = redis.call('XCLAIM', key, group, 'left', 0, entry[1], 'IDLE', entry[3], 'JUSTID')
  if #moved == 0 then
    gone[#gone + 1] = entry[1]
  end
end
if #pending == MOST then
  return {0, gone}
end
redis.call('XGROUP', 'DELCONSUMER', key, group, consumer)
return {1, gone}
